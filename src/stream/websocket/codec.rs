//! One message of the channel protocols: which channel, which bytes.
//!
//! `k8s.io/streaming/pkg/httpstream/wsstream`: binary messages begin with the channel's number, base64
//! ones with its digit; in `v5` the number 255 closes the channel that follows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

/// Says in `v5` that a channel's sender is done.
const CLOSE: u8 = 255;

/// How a message carries its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Binary,
    Base64,
}

/// What a message means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Data(u8, Bytes),
    /// No more will come on this channel.
    Close(u8),
    /// Empty, or not base64: upstream goes on.
    Nothing,
    /// Upstream ends the connection.
    Broken,
}

impl Codec {
    pub fn decode(self, mut message: Bytes, half_close: bool) -> Event {
        let Some(first) = message.first().copied() else { return Event::Nothing };
        if half_close && first == CLOSE {
            return match message[..] {
                [_, channel] => Event::Close(channel),
                _ => Event::Broken,
            };
        }
        let data = message.split_off(1);
        match self {
            Self::Binary => Event::Data(first, data),
            Self::Base64 => match STANDARD.decode(&data) {
                Ok(plain) => Event::Data(first.wrapping_sub(b'0'), plain.into()),
                Err(_) => Event::Nothing,
            },
        }
    }

    pub fn encode(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(data.len() + 1);
                message.put_u8(channel);
                message.extend_from_slice(data);
                Message::Binary(message.freeze())
            }
            Self::Base64 => {
                let mut message = String::with_capacity(data.len() * 4 / 3 + 8);
                message.push(char::from(b'0'.wrapping_add(channel)));
                STANDARD.encode_string(data, &mut message);
                Message::text(message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_messages_begin_with_their_channel() {
        assert_eq!(Codec::Binary.encode(1, b"hi"), Message::Binary(Bytes::from_static(b"\x01hi")));
        let read = |bytes: &'static [u8], v5| Codec::Binary.decode(Bytes::from_static(bytes), v5);
        assert_eq!(read(b"\x00ls\n", true), Event::Data(0, Bytes::from_static(b"ls\n")));
        assert_eq!(read(b"\x00", true), Event::Data(0, Bytes::new()));
        assert_eq!(read(b"", true), Event::Nothing);
        assert_eq!(read(b"\xff\x00", true), Event::Close(0));
        assert_eq!(read(b"\xff\x00\x01", true), Event::Broken);
        assert_eq!(read(b"\xff", true), Event::Broken);
        assert_eq!(
            read(b"\xff\x00", false),
            Event::Data(255, Bytes::from_static(b"\0")),
            "v4 knows no close"
        );
    }

    #[test]
    fn base64_messages_begin_with_a_digit() {
        assert_eq!(Codec::Base64.encode(1, b"\n"), Message::text("1Cg=="));
        let read = |bytes: &'static [u8]| Codec::Base64.decode(Bytes::from_static(bytes), false);
        assert_eq!(read(b"0Zm9vCg=="), Event::Data(0, Bytes::from_static(b"foo\n")));
        assert_eq!(read(b"0???"), Event::Nothing);
        assert_eq!(read(b"\x00"), Event::Data(208, Bytes::new()), "wraps as Go's byte does");
    }
}
