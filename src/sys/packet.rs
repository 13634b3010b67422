//! Messages with descriptors, over Unix sockets that keep message boundaries (SOCK_SEQPACKET).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, socket, socketpair, sockopt,
};

/// The longest message. The kernel's default send buffer holds one of this size.
const LONGEST: usize = 128 * 1024;
/// The most descriptors in one message.
const MOST_FDS: usize = 16;

/// One message and what came with it.
pub type Packet = (Vec<u8>, Vec<OwnedFd>);

/// One end of a connection.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// Where connections come in.
#[derive(Debug)]
pub struct PacketListener(OwnedFd);

impl PacketSocket {
    /// Two ends joined to each other.
    pub fn pair() -> io::Result<(PacketSocket, PacketSocket)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((PacketSocket(one), PacketSocket(other)))
    }

    /// Connects to the socket called `name` in `directory`, however long its path is.
    pub fn connect(directory: &Path, name: &str) -> io::Result<PacketSocket> {
        let (_directory, address) = address_in(directory, name)?;
        let socket = new_socket()?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(PacketSocket(socket))
    }

    /// Sends one message with copies of `fds`; waits while the other end's queue is full.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next message; None when the other end is closed.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        self.receive_with(MsgFlags::empty())
    }

    /// As [`PacketSocket::receive`]; `WouldBlock` when there is none now.
    pub fn try_receive(&self) -> io::Result<Option<Packet>> {
        self.receive_with(MsgFlags::MSG_DONTWAIT)
    }

    fn receive_with(&self, flags: MsgFlags) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0; LONGEST];
        let mut control = nix::cmsg_space!([RawFd; MOST_FDS]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let length = message.bytes;
        let mut fds = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel just made these descriptors for us, each once.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if length == 0 && fds.is_empty() {
            return Ok(None);
        }
        bytes.truncate(length);
        Ok(Some((bytes, fds)))
    }

    /// Who is at the other end, by this process's user namespace.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.0, sockopt::PeerCredentials)?.uid())
    }
}

impl PacketListener {
    /// Makes the socket called `name` in `directory`; only its owner may connect.
    pub fn bind(directory: &Path, name: &str) -> io::Result<PacketListener> {
        let (_directory, address) = address_in(directory, name)?;
        let socket = new_socket()?;
        bind(socket.as_raw_fd(), &address)?;
        std::fs::set_permissions(directory.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        listen(&socket, Backlog::new(64)?)?;
        Ok(PacketListener(socket))
    }

    /// The next connection; `WouldBlock` when the listener is non-blocking and there is none.
    pub fn accept(&self) -> io::Result<PacketSocket> {
        let fd = accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: accept4 just made this descriptor for us.
        Ok(PacketSocket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes [`PacketListener::accept`] return at once, for use with readiness.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&self.0, flags)?;
        Ok(())
    }
}

impl From<OwnedFd> for PacketSocket {
    fn from(fd: OwnedFd) -> Self {
        PacketSocket(fd)
    }
}

impl From<PacketSocket> for OwnedFd {
    fn from(socket: PacketSocket) -> Self {
        socket.0
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for PacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends on a connected stream socket, with copies of `fds` beside the first byte; says how much was taken.
pub fn send_beside(stream: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let slices = [IoSlice::new(bytes)];
    Ok(sendmsg::<()>(stream.as_fd().as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Reads from a connected stream socket, and what came beside the bytes. Nothing at all is its end.
pub fn receive_beside(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MOST_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(stream.as_fd().as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel just made these descriptors for us, each once.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A socket's address may have 108 bytes, a path more: go through the open directory.
fn address_in(directory: &Path, name: &str) -> io::Result<(OwnedFd, UnixAddr)> {
    use nix::fcntl::{OFlag, open};
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(directory, how, nix::sys::stat::Mode::empty())?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).as_str())?;
    Ok((directory, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn messages_keep_their_boundaries_and_bring_descriptors() {
        let (one, other) = PacketSocket::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        one.send(b"first", &[write.as_fd()]).unwrap();
        one.send(b"second", &[]).unwrap();
        drop(write);
        let (bytes, mut fds) = other.receive().unwrap().unwrap();
        assert_eq!(bytes, b"first");
        std::fs::File::from(fds.remove(0)).write_all(b"through").unwrap();
        assert_eq!(other.receive().unwrap().unwrap().0, b"second");
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(other.try_receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(other.receive().unwrap().is_none());
    }

    #[test]
    fn a_socket_may_lie_deeper_than_its_address_can_say() {
        let temp = tempfile::tempdir().unwrap();
        let deep = temp.path().join("x".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let listener = PacketListener::bind(&deep, "s").unwrap();
        let near = PacketSocket::connect(&deep, "s").unwrap();
        let far = listener.accept().unwrap();
        near.send(b"hello", &[]).unwrap();
        assert_eq!(far.receive().unwrap().unwrap().0, b"hello");
        assert_eq!(far.peer_uid().unwrap(), nix::unistd::geteuid().as_raw());
    }
}
