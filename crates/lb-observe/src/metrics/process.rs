//! The kernel's counters about this process.

use std::fs;

/// Resident memory, bytes.
pub(super) fn resident_memory() -> Option<u64> {
    resident_memory_in(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_memory_in(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    Some(kibibytes.trim().parse::<u64>().ok()? * 1024)
}

/// Open file descriptors.
pub(super) fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the directory's size is the answer, which spares walking through it.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // The walk holds one descriptor itself.
        0 => Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        assert!(resident_memory().is_some_and(|bytes| bytes > 100_000));
        let files = (0..50).map(|_| fs::File::open("/proc/self/status").unwrap()).collect::<Vec<_>>();
        assert!(open_fds().unwrap() >= files.len() as u64);
    }

    #[test]
    fn unknown_shapes_have_no_value() {
        assert_eq!(resident_memory_in("VmSize: 5 kB\nVmRSS:\t  12 kB\n"), Some(12 * 1024));
        assert_eq!(resident_memory_in("VmSize: 5 kB\n"), None);
        assert_eq!(resident_memory_in("VmRSS: many kB\n"), None);
    }
}
