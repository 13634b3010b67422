//! A body told in WebSocket messages: what a WebSocket client that asks for a watch or a log hears.
//!
//! Stands for `wsstream.Reader` (logs) and the watch handler's `HandleWS`. What the client says is read,
//! so that its pings are answered and its close is noticed, and means nothing else.

use std::error::Error;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, Stream, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::super::Connection;

/// How a body is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A line a text message: the events of a watch.
    Lines,
    /// Pieces as they come, after an empty message that says the connection stands.
    Binary,
    /// The same as text.
    Base64,
}

/// Sends a body to its end, or until the client goes.
pub async fn tell<C, B, E>(io: C, body: B, framing: Framing)
where
    C: Connection,
    B: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Error,
{
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(super::config())).await;
    if framing != Framing::Lines && socket.send(message(framing, Bytes::new())).await.is_err() {
        return;
    }
    let mut cut = Cut { framing, rest: BytesMut::new() };
    let mut body = body.fuse();
    loop {
        tokio::select! {
            piece = body.next() => {
                let (pieces, last) = match piece {
                    Some(Ok(bytes)) => (cut.take(&bytes), false),
                    _ => (cut.end(), true),
                };
                for piece in pieces {
                    if socket.send(piece).await.is_err() {
                        return;
                    }
                }
                if last {
                    break;
                }
            }
            said = socket.next() => match said {
                None | Some(Err(_) | Ok(Message::Close(_))) => return,
                Some(Ok(_)) => {}
            }
        }
    }
    let _ = socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await;
}

struct Cut {
    framing: Framing,
    /// A line that is not whole yet.
    rest: BytesMut,
}

impl Cut {
    fn take(&mut self, bytes: &Bytes) -> Vec<Message> {
        if self.framing != Framing::Lines {
            return vec![message(self.framing, bytes.clone())];
        }
        self.rest.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            whole.push(message(self.framing, self.rest.split_to(end + 1).freeze()));
        }
        whole
    }

    fn end(&mut self) -> Vec<Message> {
        match self.rest.is_empty() {
            true => Vec::new(),
            false => vec![message(self.framing, self.rest.split().freeze())],
        }
    }
}

fn message(framing: Framing, bytes: Bytes) -> Message {
    match framing {
        Framing::Binary => Message::Binary(bytes),
        Framing::Base64 => Message::Text(BASE64_STANDARD.encode(&bytes).into()),
        Framing::Lines => Message::Text(String::from_utf8_lossy(&bytes).into_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    async fn heard(framing: Framing, pieces: &'static [&'static str]) -> Vec<Message> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let body = stream::iter(
            pieces.iter().map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes()))),
        );
        let telling = tell(near, body, framing);
        let hearing = async {
            let socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            socket.filter_map(async |message| message.ok()).collect::<Vec<_>>().await
        };
        tokio::join!(telling, hearing).1
    }

    #[tokio::test]
    async fn a_watch_is_a_message_an_event_however_the_body_is_cut() {
        let heard = heard(Framing::Lines, &["{\"a\"", ":1}\n{\"b\":2}\n{", "}"]).await;
        let texts: Vec<&str> = heard.iter().filter_map(|one| one.to_text().ok()).collect();
        assert_eq!(texts[..3], ["{\"a\":1}\n", "{\"b\":2}\n", "{}"]);
        assert!(matches!(&heard[3], Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
    }

    #[tokio::test]
    async fn a_log_begins_with_an_empty_message_and_is_base64_where_asked() {
        let plain = heard(Framing::Binary, &["one\n"]).await;
        assert_eq!(plain[..2], [Message::Binary(Bytes::new()), Message::Binary("one\n".into())]);
        let coded = heard(Framing::Base64, &["one\n"]).await;
        assert_eq!(coded[..2], [Message::Text("".into()), Message::Text("b25lCg==".into())]);
    }

    #[tokio::test]
    async fn a_client_that_closes_ends_it() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let body = Box::pin(stream::pending::<Result<Bytes, Infallible>>());
        let telling = tell(near, body, Framing::Lines);
        let closing = async {
            let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            socket.close(None).await
        };
        assert!(tokio::join!(telling, closing).1.is_ok());
    }
}
