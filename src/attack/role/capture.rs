//! Everything that crosses the wire, as whoever owns the router sees it: who dials whom, what of it can be read.
//!
//! A packet socket on every interface of the host; each packet counts once, as it comes in. Left out on
//! purpose: putting streams together again. What matters is readable in one packet: a greeting, a request.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};
use serde_json::json;

use super::kubelet::told_to_end;
use super::say;
use crate::net::client_hello;
use crate::sys::ready::Readable;

/// `PACKET_OUTGOING`: the same packet on its way out.
const OUTGOING: u8 = 4;
/// `ETH_P_IP`
const IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Connections remembered at once; the wire of a lab has some dozens.
const MOST: usize = 4096;
/// This much of what can be read is shown.
const SHOWN: usize = 200;

#[derive(Debug, Args)]
pub struct Capture {
    /// Say every packet whole, for a capture file
    #[arg(long)]
    packets: bool,
}

/// One TCP packet.
#[derive(Debug, PartialEq, Eq)]
struct Segment<'a> {
    from: SocketAddrV4,
    to: SocketAddrV4,
    flags: u8,
    payload: &'a [u8],
}

impl Capture {
    pub async fn run(self) -> anyhow::Result<()> {
        let socket: OwnedFd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?;
        let ready = Readable::of(&socket)?;
        say(&json!({"event": "ready"}));
        let ended = told_to_end();
        tokio::pin!(ended);
        let mut said = HashMap::new();
        let mut buffer = vec![0; 70_000];
        loop {
            let next = ready.until(|| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer)?));
            let (length, from) = tokio::select! { next = next => next?, () = &mut ended => return Ok(()) };
            if from.is_some_and(|from| from.pkttype() == OUTGOING) {
                continue;
            }
            let packet = &buffer[..length.min(buffer.len())];
            if self.packets {
                let micros =
                    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
                let bytes = BASE64_STANDARD.encode(packet);
                say(&json!({"event": "packet", "micros": micros as u64, "bytes": bytes}));
            }
            if let Some(segment) = segment(packet) {
                tell(&segment, &mut said);
            }
        }
    }
}

/// Says what is new about a connection: that it is dialled, and what each side says first.
fn tell(segment: &Segment<'_>, said: &mut HashMap<(SocketAddrV4, SocketAddrV4), ()>) {
    let (from, to) = (segment.from, segment.to);
    if segment.flags & (SYN | ACK) == SYN {
        said.remove(&(from, to));
        said.remove(&(to, from));
        return say(&json!({"event": "dial", "from": from, "to": to}));
    }
    if segment.payload.is_empty() || said.contains_key(&(from, to)) {
        return;
    }
    if said.len() >= MOST {
        said.clear();
    }
    let reads = reading(segment.payload);
    // What can be read goes on being read; a cipher is told of once.
    if reads["protocol"] != "plain" {
        said.insert((from, to), ());
    }
    let mut event = json!({"event": "says", "from": from, "to": to});
    if let (Some(event), Some(reads)) = (event.as_object_mut(), reads.as_object()) {
        event.extend(reads.clone());
    }
    say(&event);
}

/// What an onlooker makes of a packet's contents.
fn reading(payload: &[u8]) -> serde_json::Value {
    match payload {
        [0x16, 3, _, _, _, 1, ..] => {
            let hello = client_hello(payload).unwrap_or_default();
            json!({"protocol": "tls", "what": "client hello", "serverName": hello.server_name, "offers": hello.protocols})
        }
        [0x16, 3, _, _, _, 2, ..] => json!({"protocol": "tls", "what": "server hello"}),
        [0x14..=0x17, 3, ..] => json!({"protocol": "tls", "what": "ciphertext"}),
        _ if payload.iter().take(16).all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e)) => {
            let text = String::from_utf8_lossy(&payload[..payload.len().min(SHOWN)]).into_owned();
            json!({"protocol": "plain", "what": text})
        }
        _ => json!({"protocol": "other", "what": "bytes"}),
    }
}

/// The TCP segment in an Ethernet frame; nothing where there is none or it is cut short.
fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    if frame.get(12..14)? != IPV4 {
        return None;
    }
    let packet = frame.get(14..)?;
    let head = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    if *packet.get(9)? != TCP {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let body = packet.get(head..total.min(packet.len()))?;
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let offset = usize::from(body.get(12)? >> 4) * 4;
    Some(Segment {
        from: SocketAddrV4::new(address(12)?, port(0)?),
        to: SocketAddrV4::new(address(16)?, port(2)?),
        flags: *body.get(13)?,
        payload: body.get(offset..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend(((40 + payload.len()) as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, TCP, 0, 0, 192, 0, 2, 11, 198, 51, 100, 1]);
        frame.extend([0x9c, 0x40, 0x19, 0x2b, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        // What Ethernet pads short frames with is not the sender's.
        frame.extend([0; 6]);
        frame
    }

    #[test]
    fn a_packet_is_read_and_what_is_cut_short_is_not() {
        let whole = frame(b"GET /pods HTTP/1.1");
        let read = segment(&whole).unwrap();
        assert_eq!(
            (read.from.to_string(), read.to.to_string()),
            ("192.0.2.11:40000".into(), "198.51.100.1:6443".into())
        );
        assert_eq!(read.payload, b"GET /pods HTTP/1.1");
        for length in 0..whole.len() - 24 - 18 {
            let _ = segment(&whole[..length]);
        }
        assert_eq!(segment(&whole[..30]), None);
    }

    #[test]
    fn plain_text_is_told_from_a_cipher() {
        assert_eq!(reading(b"GET / HTTP/1.1\r\n")["protocol"], "plain");
        assert_eq!(reading(&[0x17, 3, 3, 0, 2, 9, 9])["what"], "ciphertext");
        assert_eq!(reading(&[0x16, 3, 1, 0, 2, 1, 9])["what"], "client hello");
        assert_eq!(reading(&[0, 1, 2, 3])["protocol"], "other");
    }
}
