//! Connection IDs.

use std::fmt;

/// The bytes of the longest connection ID of QUIC versions 1 and 2 (RFC 9000 §17.2).
pub const MAX_CONNECTION_ID: usize = 20;

/// A connection ID of versions 1 and 2: 0 to 20 bytes, which are copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The bytes after the ID are zero.
    bytes: [u8; MAX_CONNECTION_ID],
    length: u8,
}

impl ConnectionId {
    /// The ID without bytes.
    pub const EMPTY: Self = Self { bytes: [0; MAX_CONNECTION_ID], length: 0 };

    /// An ID of these bytes; `None` when they are more than [`MAX_CONNECTION_ID`].
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_CONNECTION_ID];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, length: u8::try_from(id.len()).ok()? })
    }

    /// The bytes of the ID.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// How many bytes the ID has.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// Whether the ID has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_up_to_twenty_bytes_are_kept_and_longer_ones_are_not() {
        assert_eq!(ConnectionId::new(&[]), Some(ConnectionId::EMPTY));
        let longest = ConnectionId::new(&[7; 20]).unwrap();
        assert_eq!((longest.as_bytes(), longest.len()), (&[7; 20][..], 20));
        assert_eq!(ConnectionId::new(&[7; 21]), None);
        assert_ne!(ConnectionId::new(&[0; 3]), ConnectionId::new(&[0; 4]), "the length is part of the ID");
        assert_eq!(ConnectionId::new(&[0x0a, 0xff]).unwrap().to_string(), "0aff");
    }
}
