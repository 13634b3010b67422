//! Waiting, inside a runtime, until a descriptor of ours has something to read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches one descriptor.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Watches a copy of `fd`, so that the original may be used and closed freely.
    pub fn of(fd: impl AsFd) -> io::Result<Readable> {
        let copy = fd.as_fd().try_clone_to_owned()?;
        // SAFETY: an OwnedFd always names the same open descriptor for as long as it lives.
        unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }
            .map(Readable)
            .map_err(io::Error::from)
    }

    /// Tries until `attempt`, which must not block, gives anything but `WouldBlock`.
    pub async fn until<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|_| attempt()) {
                return result;
            }
        }
    }
}
