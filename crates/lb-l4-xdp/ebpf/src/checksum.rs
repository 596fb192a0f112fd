//! Checksums that follow a change (RFC 1624), in one's complement arithmetic, where the order of octets does not matter.

/// A sum of 16-bit words, not folded yet. So few are added that 64 bits never overflow.
#[derive(Clone, Copy)]
pub struct Sum(pub u64);

impl Sum {
    #[inline(always)]
    pub fn replace(self, old: u32, new: u32) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    #[inline(always)]
    pub fn replace_all(self, old: &[u32; 4], new: &[u32; 4]) -> Self {
        self.replace(old[0], new[0]).replace(old[1], new[1]).replace(old[2], new[2]).replace(old[3], new[3])
    }

    /// Both are words of 16 bits in a larger type.
    #[inline(always)]
    pub fn replace16(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    #[inline(always)]
    pub fn add(self, word: u32) -> Self {
        Self(self.0 + u64::from(word))
    }

    #[inline(always)]
    pub fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }

    /// A checksum after this change.
    #[inline(always)]
    pub fn apply(self, checksum: u16) -> u16 {
        !Self(self.0 + u64::from(!checksum)).fold()
    }
}
