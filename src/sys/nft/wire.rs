//! Netlink messages of the nf_tables subsystem, and the exchange of a batch of them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};

use super::{Family, NftError};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 1;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;

/// Netlink attributes: length, type, payload, padded to four bytes. Numbers are big-endian here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) {
        self.0.extend_from_slice(&((payload.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub fn text(&mut self, kind: u16, text: &str) {
        let mut payload = text.as_bytes().to_vec();
        payload.push(0);
        self.bytes(kind, &payload);
    }

    pub fn number(&mut self, kind: u16, number: u32) {
        self.bytes(kind, &number.to_be_bytes());
    }

    pub fn long(&mut self, kind: u16, number: u64) {
        self.bytes(kind, &number.to_be_bytes());
    }

    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }
}

/// One step of a transaction.
pub struct Message {
    kind: u16,
    family: u8,
    step: String,
    body: Attributes,
}

impl Message {
    pub fn new(kind: u8, family: Family, step: String, body: Attributes) -> Self {
        Self { kind: (SUBSYSTEM << 8) | u16::from(kind), family: family as u8, step, body }
    }

    fn write(&self, out: &mut Vec<u8>, sequence: u32) {
        frame(out, self.kind, REQUEST | CREATE | APPEND, sequence, [self.family, 0, 0, 0], &self.body.0);
    }
}

fn frame(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, head: [u8; 4], body: &[u8]) {
    out.extend_from_slice(&((16 + 4 + body.len()) as u32).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(body);
}

/// Sends the messages as one transaction in the calling thread's network namespace.
///
/// The kernel works a batch off inside `send`, so every complaint is in the socket's queue when it
/// returns, and an empty queue means success.
pub fn exchange(messages: &[Message]) -> Result<(), NftError> {
    exchange_on(&open()?, messages)
}

/// A socket for transactions.
pub fn open() -> Result<OwnedFd, NftError> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
        .map_err(|errno| NftError::Open(errno.into()))
}

/// The same by a socket that outlives the transaction.
pub fn exchange_on(socket: &OwnedFd, messages: &[Message]) -> Result<(), NftError> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let mut out = Vec::new();
    frame(&mut out, BATCH_BEGIN, REQUEST, 0, [0, 0, high, low], &[]);
    for (at, message) in messages.iter().enumerate() {
        message.write(&mut out, at as u32 + 1);
    }
    frame(&mut out, BATCH_END, REQUEST, messages.len() as u32 + 1, [0, 0, high, low], &[]);
    // A refusal to grow the buffer shows as EMSGSIZE below.
    let _ = setsockopt(socket, sockopt::SndBuf, &(out.len() * 2 + 4096));
    send(socket.as_raw_fd(), &out, MsgFlags::empty()).map_err(|errno| NftError::Send(errno.into()))?;
    first_refusal(socket, messages)
}

fn first_refusal(socket: &OwnedFd, messages: &[Message]) -> Result<(), NftError> {
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
            Ok(length) => length,
            Err(Errno::ENOBUFS) => continue,
            Err(errno) => return Err(NftError::Send(errno.into())),
        };
        let mut rest = &buffer[..length];
        while let Some((kind, sequence, body, after)) = next_message(rest) {
            rest = after;
            let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
            if kind == ERROR && code != 0 {
                let step = (sequence as usize).checked_sub(1).and_then(|at| messages.get(at));
                let step = step.map_or_else(|| "commit".into(), |message| message.step.clone());
                return Err(NftError::Refused { step, source: io::Error::from_raw_os_error(-code) });
            }
        }
    }
}

fn next_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let body = bytes.get(16..length)?;
    Some((kind, sequence, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}
