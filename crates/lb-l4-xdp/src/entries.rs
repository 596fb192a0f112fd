//! Whole tables of flows, read many entries at a time.
//!
//! A table may have millions of entries, and one by one each of them would be two system calls. An entry that stays meanwhile is seen once; one that comes
//! or goes may be seen or not. Reading does not keep an entry from being evicted.

use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::MapData;
use lb_l4_xdp_layout::Plain;

use crate::error::XdpError;
use crate::pins::Pins;

/// Entries of one system call. More than any bucket of a table holds, since a call that ends within a bucket fails.
const BATCH: usize = 4096;

/// What is left to be read of a table with these keys and values.
pub(crate) struct Entries<K, V> {
    map: MapData,
    /// Where the kernel goes on; none at the beginning.
    position: Option<u32>,
    is_over: bool,
    of: PhantomData<(K, V)>,
}

impl<K: Plain + Default, V: Plain + Default> Entries<K, V> {
    /// All entries of the pinned table of this name, whose layout has been checked.
    pub(crate) fn open(pins: &Pins, name: &str) -> Result<Self, XdpError> {
        let map = MapData::from_pin(pins.table(name))?;
        let info = map.info()?;
        if (info.key_size() as usize, info.value_size() as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(XdpError::OtherLayout(pins.table(name)));
        }
        Ok(Self { map, position: None, is_over: false, of: PhantomData })
    }

    /// How many entries the table has room for.
    pub(crate) fn capacity(&self) -> Result<u32, XdpError> {
        Ok(self.map.info()?.max_entries())
    }

    /// The next entries; none once all have been read.
    pub(crate) fn next(&mut self) -> Result<Option<impl Iterator<Item = (K, V)> + use<K, V>>, XdpError> {
        if self.is_over {
            return Ok(None);
        }
        let (mut keys, mut values) = (vec![K::default(); BATCH], vec![V::default(); BATCH]);
        let before = self.position;
        let mut after = 0u32;
        let mut attributes = Batch {
            position: before.as_ref().map_or(0, |position| std::ptr::from_ref(position) as u64),
            next_position: &raw mut after as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
            flags: [0; 2],
        };
        // SAFETY: the attributes have the layout of `struct { … } batch` in `union bpf_attr` (linux/bpf.h). All that they point to lives until the call is over, and the kernel
        // writes at most `count` keys and values of the sizes that `open` has compared, any bytes of which are a `K` and a `V`.
        // JUSTIFICATION: aya and rustix have no call for it.
        #[expect(unsafe_code, reason = "no crate offers BPF_MAP_LOOKUP_BATCH")]
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<Batch>())
        };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(XdpError::Read(error));
            }
            self.is_over = true;
        }
        self.position = Some(after);
        let count = attributes.count as usize;
        Ok(Some(keys.into_iter().zip(values).take(count)))
    }
}

/// The attributes of a batch operation (Linux 5.6).
#[repr(C)]
struct Batch {
    position: u64,
    next_position: u64,
    keys: u64,
    values: u64,
    /// Entries that there is room for, and then those that were written.
    count: u32,
    map: u32,
    flags: [u64; 2],
}

/// `enum bpf_cmd` of linux/bpf.h.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
