//! SPDY/3.1 frames as bytes: reading them with every length checked, writing the ones we send.
//!
//! Format: SPDY Protocol, Draft 3.1, section 2.6. Header blocks stay compressed here; see `headers`.

use bytes::{BufMut, BytesMut};

/// The start of every frame.
pub const HEAD: usize = 8;
/// The longest control frame taken. client-go's are some hundred bytes.
const LONGEST_CONTROL: usize = 64 * 1024;
/// A stream id and a window are 31 bits wide.
const BITS_31: u32 = 0x7fff_ffff;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why the other end's bytes are not SPDY, which ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("version {0} where 3 was expected")]
    Version(u16),
    #[error("a control frame of {0} bytes is too long")]
    Long(usize),
    #[error("a control frame of type {0} is malformed")]
    Malformed(u16),
    #[error("a header block cannot be decompressed")]
    Compression,
    #[error("a header block is too large")]
    Large,
    #[error("a header block's lengths do not add up")]
    Headers,
    #[error("the connection ended inside a frame")]
    Truncated,
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Protocol = 1,
    Refused = 3,
    Cancel = 5,
}

/// What the first eight bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Data { id: u32, fin: bool, len: usize },
    Control { kind: u16, flags: u8, len: usize },
}

impl Head {
    pub fn parse(bytes: [u8; HEAD]) -> Result<Self, FrameError> {
        let [a, b, c, d, flags, e, f, g] = bytes;
        let len = u32::from_be_bytes([0, e, f, g]) as usize;
        if a & 0x80 == 0 {
            return Ok(Self::Data { id: u32::from_be_bytes([a, b, c, d]), fin: flags & FIN != 0, len });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if len > LONGEST_CONTROL {
            return Err(FrameError::Long(len));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, len })
    }
}

/// A control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control<'a> {
    SynStream {
        id: u32,
        fin: bool,
        unidirectional: bool,
        block: &'a [u8],
    },
    SynReply {
        id: u32,
        fin: bool,
        block: &'a [u8],
    },
    Reset {
        id: u32,
    },
    Settings {
        initial_window: Option<u32>,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Headers {
        id: u32,
        fin: bool,
        block: &'a [u8],
    },
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    /// To be ignored, as the draft says.
    Unknown,
}

impl<'a> Control<'a> {
    pub fn parse(kind: u16, flags: u8, payload: &'a [u8]) -> Result<Self, FrameError> {
        let word = |at: usize| -> Result<u32, FrameError> {
            let bytes = payload.get(at..at + 4).ok_or(FrameError::Malformed(kind))?;
            Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| FrameError::Malformed(kind))?))
        };
        let id = || word(0).map(|word| word & BITS_31);
        let block = |at: usize| payload.get(at..).ok_or(FrameError::Malformed(kind));
        let fin = flags & FIN != 0;
        Ok(match kind {
            SYN_STREAM => {
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Self::SynStream { id: id()?, fin, unidirectional, block: block(10)? }
            }
            SYN_REPLY => Self::SynReply { id: id()?, fin, block: block(4)? },
            HEADERS => Self::Headers { id: id()?, fin, block: block(4)? },
            RST_STREAM => {
                word(4)?;
                Self::Reset { id: id()? }
            }
            SETTINGS => Self::Settings { initial_window: initial_window(word(0)?, payload)? },
            PING => Self::Ping { id: word(0)? },
            GOAWAY => Self::GoAway,
            WINDOW_UPDATE => Self::WindowUpdate { id: id()?, delta: word(4)? & BITS_31 },
            _ => Self::Unknown,
        })
    }
}

fn initial_window(count: u32, payload: &[u8]) -> Result<Option<u32>, FrameError> {
    let entries = &payload[4..];
    if entries.len() / 8 < count as usize {
        return Err(FrameError::Malformed(SETTINGS));
    }
    let mut found = None;
    for entry in entries.chunks_exact(8).take(count as usize) {
        let (flags_and_id, value) = entry.split_at(4);
        let id = flags_and_id.iter().skip(1).fold(0, |id, byte| id << 8 | u32::from(*byte));
        if id == INITIAL_WINDOW_SIZE {
            found = Some(value.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)) & BITS_31);
        }
    }
    Ok(found)
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, len: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    flags_and_len(out, flags, len);
}

fn flags_and_len(out: &mut BytesMut, flags: u8, len: usize) {
    debug_assert!(len < 1 << 24, "a frame's length has 24 bits");
    out.put_u32(u32::from(flags) << 24 | len as u32);
}

pub fn put_data(out: &mut BytesMut, id: u32, fin: bool, data: &[u8]) {
    out.put_u32(id);
    flags_and_len(out, u8::from(fin), data.len());
    out.extend_from_slice(data);
}

pub fn put_syn_stream(out: &mut BytesMut, id: u32, block: &[u8]) {
    control(out, SYN_STREAM, 0, 10 + block.len());
    out.put_u32(id);
    out.put_u32(0);
    out.put_u16(0);
    out.extend_from_slice(block);
}

pub fn put_syn_reply(out: &mut BytesMut, id: u32, block: &[u8]) {
    control(out, SYN_REPLY, 0, 4 + block.len());
    out.put_u32(id);
    out.extend_from_slice(block);
}

pub fn put_reset(out: &mut BytesMut, id: u32, status: Status) {
    control(out, RST_STREAM, 0, 8);
    out.put_u32(id);
    out.put_u32(status as u32);
}

pub fn put_initial_window(out: &mut BytesMut, window: u32) {
    control(out, SETTINGS, 0, 12);
    out.put_u32(1);
    out.put_u32(INITIAL_WINDOW_SIZE);
    out.put_u32(window);
}

pub fn put_ping(out: &mut BytesMut, id: u32) {
    control(out, PING, 0, 4);
    out.put_u32(id);
}

/// The orderly one, status 0.
pub fn put_goaway(out: &mut BytesMut, last_good: u32) {
    control(out, GOAWAY, 0, 8);
    out.put_u32(last_good);
    out.put_u32(0);
}

pub fn put_window_update(out: &mut BytesMut, id: u32, delta: u32) {
    control(out, WINDOW_UPDATE, 0, 8);
    out.put_u32(id);
    out.put_u32(delta);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Control<'_>, FrameError> {
        let (head, payload) = bytes.split_at(HEAD);
        match Head::parse(head.try_into().unwrap())? {
            Head::Control { kind, flags, len } => {
                assert_eq!(len, payload.len());
                Control::parse(kind, flags, payload)
            }
            Head::Data { .. } => panic!("a data frame"),
        }
    }

    fn written(put: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        put(&mut out);
        out
    }

    #[test]
    fn a_ping_is_the_twelve_bytes_of_the_draft() {
        assert_eq!(&written(|out| put_ping(out, 1))[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    }

    #[test]
    fn what_is_written_reads_back() {
        let block = b"block".as_slice();
        assert_eq!(
            parse(&written(|out| put_syn_stream(out, 3, block))),
            Ok(Control::SynStream { id: 3, fin: false, unidirectional: false, block })
        );
        assert_eq!(
            parse(&written(|out| put_syn_reply(out, 3, block))),
            Ok(Control::SynReply { id: 3, fin: false, block })
        );
        assert_eq!(parse(&written(|out| put_reset(out, 5, Status::Cancel))), Ok(Control::Reset { id: 5 }));
        assert_eq!(
            parse(&written(|out| put_initial_window(out, 7000))),
            Ok(Control::Settings { initial_window: Some(7000) })
        );
        assert_eq!(parse(&written(|out| put_goaway(out, 9))), Ok(Control::GoAway));
        assert_eq!(
            parse(&written(|out| put_window_update(out, 0, 12))),
            Ok(Control::WindowUpdate { id: 0, delta: 12 })
        );
        let data = written(|out| put_data(out, 11, true, b"abc"));
        let head = Head::parse(data[..HEAD].try_into().unwrap());
        assert_eq!(head, Ok(Head::Data { id: 11, fin: true, len: 3 }));
    }

    #[test]
    fn wrong_versions_and_lengths_are_refused() {
        assert_eq!(Head::parse([0x80, 2, 0, 6, 0, 0, 0, 4]), Err(FrameError::Version(2)));
        assert_eq!(Head::parse([0x80, 3, 0, 6, 0, 1, 0, 1]), Err(FrameError::Long(65537)));
        assert_eq!(Control::parse(PING, 0, &[0; 3]), Err(FrameError::Malformed(PING)));
        assert_eq!(Control::parse(SETTINGS, 0, &[0xff; 12]), Err(FrameError::Malformed(SETTINGS)));
        assert_eq!(Control::parse(99, 0, &[]), Ok(Control::Unknown));
    }
}
