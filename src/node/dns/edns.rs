//! What the message library leaves out of EDNS: the DO flag, and the refusal of another version (RFC 6891).

use simple_dns::Packet;

use super::answer::{Reply, finished};

const OPT: [u8; 3] = [0, 0, 41];
/// DO, in the upper byte of the flags.
const WANTS_SIGNATURES: u8 = 0x80;
/// The upper eight bits of BADVERS (16); the lower four, in the header, are 0.
const BAD_VERSION: u8 = 1;

/// Where the OPT record's extended code stands: behind the root's name, the type and the size.
///
/// Nothing before it in a question or an answer with at most one such record looks like it, since the
/// record has the only empty name that is followed by this type.
fn position(bytes: &[u8]) -> Option<usize> {
    let opt = Packet::parse(bytes).ok()?.opt()?.udp_packet_size.to_be_bytes();
    let head = [OPT.as_slice(), &opt].concat();
    let at = bytes.windows(head.len()).rposition(|window| window == head)? + head.len();
    (bytes.len() >= at + 4).then_some(at)
}

/// The version a message asks for. The library reads it from where the flags are.
pub fn version(bytes: &[u8]) -> Option<u8> {
    position(bytes).map(|at| bytes[at + 1])
}

/// An answer with the question's DO flag, as every server echoes it (RFC 3225).
pub fn echo(reply: Reply, question: &[u8]) -> Reply {
    match reply {
        Reply::Answer { bytes, rcode, asked, logged } => {
            Reply::Answer { bytes: keep_flags(bytes, question), rcode, asked, logged }
        }
        other => other,
    }
}

/// The same message with the DO flag that `from` has.
pub fn keep_flags(mut bytes: Vec<u8>, from: &[u8]) -> Vec<u8> {
    let wanted = position(from).is_some_and(|at| from[at + 2] & WANTS_SIGNATURES != 0);
    if let Some(at) = position(&bytes).filter(|_| wanted) {
        bytes[at + 2] |= WANTS_SIGNATURES;
    }
    bytes
}

/// BADVERS, the only answer to a version that is not 0.
pub fn bad_version(start: &Packet<'_>, question: &[u8]) -> Reply {
    match echo(finished(start, ""), question) {
        Reply::Answer { mut bytes, rcode, asked, logged } => {
            if let Some(at) = position(&bytes) {
                bytes[at] = BAD_VERSION;
            }
            Reply::Answer { bytes, rcode, asked, logged }
        }
        other => other,
    }
}
