//! The object that holds the programs.

/// The compiled programs, if the tree has them.
pub fn object() -> Option<&'static [u8]> {
    #[cfg(lb_xdp_elf)]
    return Some(aya::include_bytes_aligned!("lb_xdp.bin"));
    #[cfg(not(lb_xdp_elf))]
    None
}

/// The SHA-256 of the sources that an object was made of, in hexadecimal, as `scripts/build-xdp.sh` has written it into a section of its own.
pub fn sources(object: &[u8]) -> Option<&str> {
    let at = object.windows(MARK.len()).position(|window| window == MARK)?;
    let hash = object.get(at + MARK.len()..at + MARK.len() + 64)?;
    std::str::from_utf8(hash).ok()
}

/// What stands before the hash.
const MARK: &[u8] = b"lb_xdp sources sha256 ";
