//! The driver on a worker of its own, against plain sockets: nothing is lost, swapped or kept, whatever happens in which order.

mod closing;
mod exhaustion;
mod faults;
mod mixed;
mod opening;
mod pump;
mod receiving;
mod rig;
mod sending;
