//! Files on a file system that does not answer.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file that cannot be opened or looked at any more: a process that tries waits, in the kernel, until it is killed or this is dropped.
/// Then the file is what it was before.
#[derive(Debug)]
pub struct HungFile {
    path: CString,
    /// The other end of the file system, which is not served. Dropped first, or else unmounting could wait as well.
    device: Option<File>,
}

impl HungFile {
    /// Puts a file system of one file, which is not served, over the file at `path`.
    ///
    /// # Errors
    /// Those of open(2) for `/dev/fuse`, and of mount(2): only root can do it.
    pub fn over(path: &Path) -> io::Result<HungFile> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        // The root of the file system is a regular file, as what it lies over.
        let options = format!("fd={},rootmode=100000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options)?;
        // SAFETY: all four are strings that end in a zero byte and outlive the call, which only reads them.
        let mounted = unsafe {
            let flags = libc::MS_NOSUID | libc::MS_NODEV;
            libc::mount(c"hung".as_ptr(), path.as_ptr(), c"fuse".as_ptr(), flags, options.as_ptr().cast())
        };
        if mounted != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(HungFile { path, device: Some(device) })
    }

    /// Whether this machine lets us.
    pub fn is_possible() -> bool {
        tempfile::NamedTempFile::new().is_ok_and(|file| HungFile::over(file.path()).is_ok())
    }
}

impl Drop for HungFile {
    fn drop(&mut self) {
        self.device = None;
        // SAFETY: the path ends in a zero byte and outlives the call, which only reads it.
        unsafe { libc::umount2(self.path.as_ptr(), libc::MNT_DETACH) };
    }
}
