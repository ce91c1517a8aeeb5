//! Standard error as the thread of the log writes it.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Writes to standard error, and waits where it takes nothing now.
///
/// The lock of [`io::stderr`] is not taken, so a write that does not return keeps no other thread from writing. The descriptor may
/// not block, because another process that shares it has set it so; the end of a pipe is then waited for, not an error.
#[derive(Debug)]
pub(super) struct StandardError;

impl io::Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(stderr.as_fd(), bytes) {
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
                }
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
