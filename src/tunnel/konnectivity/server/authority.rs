//! What Go's gRPC calls a Unix socket, made fit for HTTP.
//!
//! A kube-apiserver that dials `--uds-name` sends the socket's path as `:authority` (percent-encoded since
//! grpc-go 1.58, plain before). grpc-go's server does not mind; h2 resets the stream as malformed, and every
//! Rust server on a Unix socket with it. So the one value is exchanged on its way in, in the compressed headers
//! themselves: nothing behind the socket looks at it.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// HTTP/2's greeting and the head of its frames.
const PREFACE: usize = 24;
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longer headers are left as they are; HTTP/2 refuses them unless asked for.
const LONGEST: usize = 16 << 10;
/// A string of one byte: no longer than what it stands for, or the tables of both ends would evict differently.
const STAND_IN: [u8; 2] = [1, b'u'];

/// A frontend's connection whose requests name a host.
#[derive(Debug)]
pub struct Named<S> {
    io: S,
    frames: Frames,
    /// Read, and not yet taken.
    ready: BytesMut,
}

impl<S> Named<S> {
    pub fn new(io: S) -> Self {
        Self { io, frames: Frames::default(), ready: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Named<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        while this.ready.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
            let come = buffer.filled().len() - before;
            if come == 0 || this.frames.passes(come) {
                return Poll::Ready(Ok(()));
            }
            this.frames.feed(&buffer.filled()[before..], &mut this.ready);
            buffer.set_filled(before);
        }
        let length = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready[..length]);
        this.ready.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Named<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Where in the client's half of a connection one is.
#[derive(Debug)]
struct Frames {
    /// So many bytes go on as they are.
    pass: usize,
    /// A frame's head, or a whole frame of headers, as far as it has come.
    held: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { pass: PREFACE, held: Vec::new() }
    }
}

impl Frames {
    /// Whether the next bytes, so many, are in the middle of something that goes on as it is.
    fn passes(&mut self, count: usize) -> bool {
        let passes = self.held.is_empty() && count <= self.pass;
        if passes {
            self.pass -= count;
        }
        passes
    }

    fn feed(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        while !bytes.is_empty() {
            let wanted = if self.pass > 0 { self.pass } else { self.missing() };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.pass > 0 {
                self.pass -= now.len();
                out.extend_from_slice(now);
                continue;
            }
            self.held.extend_from_slice(now);
            if self.missing() > 0 {
                continue;
            }
            match named(&self.held) {
                Some(frame) => out.extend_from_slice(&frame),
                None => out.extend_from_slice(&self.held),
            }
            self.pass = if is_headers(&self.held) { 0 } else { length(&self.held) };
            self.held.clear();
        }
    }

    /// What is held back is a head, and behind that of headers all of them.
    fn missing(&self) -> usize {
        let whole = if is_headers(&self.held) { HEAD + length(&self.held) } else { HEAD };
        whole - self.held.len()
    }
}

fn length(head: &[u8]) -> usize {
    head.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte))
}

fn is_headers(held: &[u8]) -> bool {
    held.len() >= HEAD && held[3] == HEADERS && held[4] & END_HEADERS != 0 && length(held) <= LONGEST
}

/// A frame of headers with the stand-in for its authority.
fn named(frame: &[u8]) -> Option<Vec<u8>> {
    if !is_headers(frame) {
        return None;
    }
    let (head, payload) = frame.split_at_checked(HEAD)?;
    let padding = if head[4] & PADDED != 0 { usize::from(*payload.first()?) } else { 0 };
    let start = usize::from(head[4] & PADDED != 0) + if head[4] & PRIORITY != 0 { 5 } else { 0 };
    let block = payload.get(start..payload.len().checked_sub(padding)?)?;
    let Range { start: from, end: to } = authority(block)?;
    let payload = [&payload[..start + from], &STAND_IN, &payload[start + to..]].concat();
    let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
    Some([&length[1..], &head[3..], &payload].concat())
}

/// Where in a header block `:authority` has its value: a literal under the first name of HPACK's static table.
fn authority(block: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (name, next) = integer(block, at, prefix)?;
        at = next;
        if !literal {
            continue;
        }
        if name == 0 {
            at = string(block, at)?;
        }
        let end = string(block, at)?;
        if name == 1 {
            return (end - at >= STAND_IN.len()).then_some(at..end);
        }
        at = end;
    }
    None
}

/// HPACK's integer (RFC 7541, 5.1) and where it ends.
fn integer(block: &[u8], at: usize, prefix: u8) -> Option<(usize, usize)> {
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    if value < most {
        return Some((value, at + 1));
    }
    for (step, byte) in block.get(at + 1..)?.iter().take(4).enumerate() {
        value += usize::from(byte & 0x7f) << (7 * step);
        if byte & 0x80 == 0 {
            return Some((value, at + 2 + step));
        }
    }
    None
}

/// Where a string ends; how it is written does not matter here.
fn string(block: &[u8], at: usize) -> Option<usize> {
    let (length, from) = integer(block, at, 7)?;
    from.checked_add(length).filter(|end| *end <= block.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method POST`, a path, the authority, `te: trailers`.
    fn block(authority: &[u8]) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        [&b"\x83\x86\x44\x03/ab\x41"[..], &[length], authority, b"\x40\x02te\x08trailers"].concat()
    }

    fn conversation(first: &[u8], second: &[u8], third: &[u8]) -> Vec<u8> {
        [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(4, 0, b""),
            first,
            &frame(0, 0, &[7; 300]),
            second,
            &frame(0, 1, b""),
            third,
            &frame(8, 0, &[0, 0, 1, 0]),
        ]
        .concat()
    }

    #[test]
    fn an_authority_is_exchanged_and_nothing_else_however_the_bytes_come() {
        let path = b"%2Fetc%2Fkubernetes%2Fkonnectivity-server%2Fkonnectivity-server.socket";
        let padded = |own: &[u8]| [&[2, 0, 0, 0, 0, 9][..], own, &[0, 0]].concat();
        // The second repeats the first by its place in the table; the third has padding and a priority.
        let repeated = frame(1, 5, b"\x83\x86\xbf\xbe");
        let sent =
            conversation(&frame(1, 4, &block(path)), &repeated, &frame(1, 0x2d, &padded(&block(path))));
        let wanted =
            conversation(&frame(1, 4, &block(b"u")), &repeated, &frame(1, 0x2d, &padded(&block(b"u"))));
        for piece in [1, 2, 7, 100, sent.len()] {
            let (mut frames, mut out) = (Frames::default(), BytesMut::new());
            for part in sent.chunks(piece) {
                if frames.passes(part.len()) {
                    out.extend_from_slice(part);
                } else {
                    frames.feed(part, &mut out);
                }
            }
            assert!(out == wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn broken_headers_go_on_as_they_are() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let mut sent = frame(1, next() as u8 | END_HEADERS, &block(b"/run/s"));
            let at = next() as usize % sent.len();
            sent[at] = next() as u8;
            let (mut frames, mut out) = (Frames { pass: 0, held: Vec::new() }, BytesMut::new());
            frames.feed(&sent, &mut out);
            assert!(out.len() + frames.held.len() <= sent.len());
        }
        for wrong in
            [&frame(1, 4, b"\x41\x7f")[..], &frame(1, 12, b"\xff"), &frame(1, 4, b"\x41\xff\xff\xff\xff\xff")]
        {
            assert_eq!(named(wrong), None);
        }
    }
}
