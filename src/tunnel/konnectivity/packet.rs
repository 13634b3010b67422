//! The one message of Konnectivity's protocol, by the field numbers of upstream's `client.proto`.
//!
//! Both services (`/ProxyService/Proxy`, `/AgentService/Connect`) are a stream of [`Packet`]s each way. A
//! receiver goes by `type` and takes the payload that belongs to it; one that is missing reads as zeros.
//! [`Message`] is that reading. The only field of ours is [`Data::credit`], which upstream ignores and which
//! is only sent to a peer that asked for it.

use bytes::Bytes;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PacketType {
    DialReq = 0,
    DialRsp = 1,
    CloseReq = 2,
    CloseRsp = 3,
    Data = 4,
    DialCls = 5,
    Drain = 6,
}

/// As it is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    #[prost(enumeration = "PacketType", tag = "1")]
    pub r#type: i32,
    #[prost(oneof = "Payload", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Payload {
    #[prost(message, tag = "2")]
    DialRequest(DialRequest),
    #[prost(message, tag = "3")]
    DialResponse(DialResponse),
    #[prost(message, tag = "4")]
    Data(Data),
    #[prost(message, tag = "5")]
    CloseRequest(CloseRequest),
    #[prost(message, tag = "6")]
    CloseResponse(CloseResponse),
    #[prost(message, tag = "7")]
    CloseDial(CloseDial),
    #[prost(message, tag = "8")]
    Drain(Drain),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DialRequest {
    /// What Go's `net.Dial` takes: `tcp`.
    #[prost(string, tag = "1")]
    pub protocol: String,
    /// `host:port`
    #[prost(string, tag = "2")]
    pub address: String,
    /// The dial's id, chosen by who asks.
    #[prost(int64, tag = "3")]
    pub random: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DialResponse {
    /// Empty when the dial succeeded.
    #[prost(string, tag = "1")]
    pub error: String,
    /// The tunnel's id, chosen by the agent; never 0 on success.
    #[prost(int64, tag = "2")]
    pub connect_id: i64,
    #[prost(int64, tag = "3")]
    pub random: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CloseRequest {
    #[prost(int64, tag = "1")]
    pub connect_id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CloseResponse {
    #[prost(string, tag = "1")]
    pub error: String,
    #[prost(int64, tag = "2")]
    pub connect_id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CloseDial {
    #[prost(int64, tag = "1")]
    pub random: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Drain {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Data {
    #[prost(int64, tag = "1")]
    pub connect_id: i64,
    /// Neither set nor read by anybody.
    #[prost(string, tag = "2")]
    pub error: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub data: Bytes,
    /// Ours: so many more bytes of this tunnel may be sent the other way.
    #[prost(uint64, tag = "15")]
    pub credit: u64,
}

/// A packet as its receiver understands it.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    DialRequest(DialRequest),
    DialResponse(DialResponse),
    CloseRequest { id: i64 },
    CloseResponse { id: i64, error: String },
    Data(Data),
    CloseDial { random: i64 },
    Drain,
    Unknown,
}

impl Message {
    pub fn data(id: i64, data: Bytes) -> Self {
        Self::Data(Data { connect_id: id, data, ..Data::default() })
    }

    pub fn credit(id: i64, credit: u64) -> Self {
        Self::Data(Data { connect_id: id, credit, ..Data::default() })
    }

    pub fn dialled(random: i64, connect_id: i64) -> Self {
        Self::DialResponse(DialResponse { random, connect_id, error: String::new() })
    }

    pub fn not_dialled(random: i64, error: impl Into<String>) -> Self {
        Self::DialResponse(DialResponse { random, connect_id: 0, error: error.into() })
    }

    /// The name metrics have for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DialRequest(_) => "DIAL_REQ",
            Self::DialResponse(_) => "DIAL_RSP",
            Self::CloseRequest { .. } => "CLOSE_REQ",
            Self::CloseResponse { .. } => "CLOSE_RSP",
            Self::Data(_) => "DATA",
            Self::CloseDial { .. } => "DIAL_CLS",
            Self::Drain => "DRAIN",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<Packet> for Message {
    fn from(packet: Packet) -> Self {
        let payload = packet.payload;
        match (PacketType::try_from(packet.r#type), payload) {
            (Ok(PacketType::DialReq), Some(Payload::DialRequest(dial))) => Self::DialRequest(dial),
            (Ok(PacketType::DialReq), _) => Self::DialRequest(DialRequest::default()),
            (Ok(PacketType::DialRsp), Some(Payload::DialResponse(answer))) => Self::DialResponse(answer),
            (Ok(PacketType::DialRsp), _) => Self::DialResponse(DialResponse::default()),
            (Ok(PacketType::CloseReq), Some(Payload::CloseRequest(close))) => {
                Self::CloseRequest { id: close.connect_id }
            }
            (Ok(PacketType::CloseReq), _) => Self::CloseRequest { id: 0 },
            (Ok(PacketType::CloseRsp), Some(Payload::CloseResponse(close))) => {
                Self::CloseResponse { id: close.connect_id, error: close.error }
            }
            (Ok(PacketType::CloseRsp), _) => Self::CloseResponse { id: 0, error: String::new() },
            (Ok(PacketType::Data), Some(Payload::Data(data))) => Self::Data(data),
            (Ok(PacketType::Data), _) => Self::Data(Data::default()),
            (Ok(PacketType::DialCls), Some(Payload::CloseDial(close))) => {
                Self::CloseDial { random: close.random }
            }
            (Ok(PacketType::DialCls), _) => Self::CloseDial { random: 0 },
            (Ok(PacketType::Drain), _) => Self::Drain,
            (Err(_), _) => Self::Unknown,
        }
    }
}

impl From<Message> for Packet {
    fn from(message: Message) -> Self {
        let (kind, payload) = match message {
            Message::DialRequest(dial) => (PacketType::DialReq, Some(Payload::DialRequest(dial))),
            Message::DialResponse(answer) => (PacketType::DialRsp, Some(Payload::DialResponse(answer))),
            Message::CloseRequest { id: connect_id } => {
                (PacketType::CloseReq, Some(Payload::CloseRequest(CloseRequest { connect_id })))
            }
            Message::CloseResponse { id: connect_id, error } => {
                (PacketType::CloseRsp, Some(Payload::CloseResponse(CloseResponse { error, connect_id })))
            }
            Message::Data(data) => (PacketType::Data, Some(Payload::Data(data))),
            Message::CloseDial { random } => {
                (PacketType::DialCls, Some(Payload::CloseDial(CloseDial { random })))
            }
            Message::Drain => (PacketType::Drain, Some(Payload::Drain(Drain {}))),
            // Of a type nobody has: it is read again as what it was.
            Message::Unknown => return Self { r#type: i32::MAX, payload: None },
        };
        Self { r#type: kind as i32, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn bytes(message: Message) -> Vec<u8> {
        Packet::from(message).encode_to_vec()
    }

    #[test]
    fn packets_have_upstreams_bytes() {
        let dial = DialRequest { protocol: "tcp".into(), address: "a:1".into(), random: 5 };
        // The type of a dial is 0 and so not on the wire.
        assert_eq!(
            bytes(Message::DialRequest(dial)),
            [&[0x12, 12, 0x0a, 3][..], b"tcp", &[0x12, 3], b"a:1", &[0x18, 5]].concat()
        );
        assert_eq!(bytes(Message::dialled(5, 7)), [8, 1, 0x1a, 4, 0x10, 7, 0x18, 5]);
        assert_eq!(
            bytes(Message::not_dialled(5, "no")),
            [&[8, 1, 0x1a, 6, 0x0a, 2][..], b"no", &[0x18, 5]].concat()
        );
        let data = Message::data(3, Bytes::from_static(b"hi"));
        assert_eq!(bytes(data), [&[8, 4, 0x22, 6, 8, 3, 0x1a, 2][..], b"hi"].concat());
        assert_eq!(bytes(Message::credit(3, 300)), [8, 4, 0x22, 5, 8, 3, 0x78, 0xac, 2]);
        assert_eq!(bytes(Message::CloseRequest { id: 3 }), [8, 2, 0x2a, 2, 8, 3]);
        let close = Message::CloseResponse { id: 3, error: "x".into() };
        assert_eq!(bytes(close), [8, 3, 0x32, 5, 0x0a, 1, b'x', 0x10, 3]);
        assert_eq!(bytes(Message::CloseDial { random: 9 }), [8, 5, 0x3a, 2, 8, 9]);
        assert_eq!(bytes(Message::Drain), [8, 6, 0x42, 0]);
    }

    #[test]
    fn a_payload_that_is_missing_or_of_another_type_reads_as_zeros() {
        for (kind, zero) in [
            (0, Message::DialRequest(DialRequest::default())),
            (1, Message::DialResponse(DialResponse::default())),
            (2, Message::CloseRequest { id: 0 }),
            (3, Message::CloseResponse { id: 0, error: String::new() }),
            (4, Message::Data(Data::default())),
            (5, Message::CloseDial { random: 0 }),
            (6, Message::Drain),
            (7, Message::Unknown),
        ] {
            assert_eq!(Message::from(Packet { r#type: kind, payload: None }), zero);
            let wrong = if kind == 4 {
                Payload::CloseRequest(CloseRequest { connect_id: 1 })
            } else {
                Payload::Data(Data { connect_id: 1, ..Data::default() })
            };
            assert_eq!(Message::from(Packet { r#type: kind, payload: Some(wrong) }), zero);
        }
    }

    #[test]
    fn what_is_written_is_read_and_broken_bytes_never_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let (number, length) = (next() as i64, (next() % 40) as usize);
            let text: String = (0..length).map(|_| char::from(b'a' + (next() % 26) as u8)).collect();
            let message = match next() % 7 {
                0 => Message::DialRequest(DialRequest {
                    protocol: "tcp".into(),
                    address: text,
                    random: number,
                }),
                1 => Message::dialled(number, next() as i64),
                2 => Message::CloseRequest { id: number },
                3 => Message::CloseResponse { id: number, error: text },
                4 => Message::data(number, Bytes::from(text)),
                5 => Message::CloseDial { random: number },
                _ => Message::Drain,
            };
            let mut wire = bytes(message.clone());
            assert_eq!(Message::from(Packet::decode(&wire[..]).unwrap()), message);
            // Any damage is an error or another packet.
            if !wire.is_empty() {
                let at = next() as usize % wire.len();
                wire[at] ^= next() as u8;
                let _ = Packet::decode(&wire[..]).map(Message::from);
                let _ = Packet::decode(&wire[..at]).map(Message::from);
            }
        }
    }
}
