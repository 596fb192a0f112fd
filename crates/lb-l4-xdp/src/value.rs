//! Keys and values of maps as aya wants them.

#![expect(unsafe_code, reason = "a promise about memory that lb-l4-xdp-layout makes and aya asks for")]

use lb_l4_xdp_layout::Plain;

/// A key or value of a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Value<T: Plain>(pub(crate) T);

// SAFETY: the wrapper has the representation of a type that is plain: no padding, no pointer, any bits are a value.
unsafe impl<T: Plain> aya::Pod for Value<T> {}
