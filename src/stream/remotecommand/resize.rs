//! The window sizes a client sends while a terminal is open.
//!
//! JSON objects one after another (`{"Width":80,"Height":24}`), as Go's decoder reads them from a
//! stream. Only the newest counts, so a slow consumer costs nothing.

use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::super::Reader;

/// No client's object comes near; beyond it the stream is taken for broken.
const LONGEST: usize = 4096;

/// Sizes as (columns, rows), the newest of those that came.
#[derive(Debug)]
pub struct Resizes(watch::Receiver<Option<(u16, u16)>>);

impl Resizes {
    /// The next size; none once the client sends no more.
    pub async fn recv(&mut self) -> Option<(u16, u16)> {
        self.0.changed().await.ok()?;
        *self.0.borrow_and_update()
    }

    /// Decodes what comes on `channel` until it ends or makes no sense.
    pub(super) fn from_channel(mut channel: Reader) -> Self {
        let (send, receive) = watch::channel(None);
        tokio::spawn(async move {
            let (mut pending, mut chunk) = (Vec::new(), [0u8; 1024]);
            loop {
                let read = tokio::select! {
                    read = channel.read(&mut chunk) => read,
                    () = send.closed() => return,
                };
                let Ok(count @ 1..) = read else { return };
                pending.extend_from_slice(&chunk[..count]);
                let Some(sizes) = decode(&mut pending) else { return };
                if let Some(last) = sizes.last() {
                    send.send_replace(Some(*last));
                }
            }
        });
        Self(receive)
    }
}

/// Takes the complete objects out of `pending`; none if what is there can never become one.
fn decode(pending: &mut Vec<u8>) -> Option<Vec<(u16, u16)>> {
    let mut sizes = Vec::new();
    let mut objects = serde_json::Deserializer::from_slice(pending).into_iter::<Map<String, Value>>();
    let mut used = 0;
    loop {
        match objects.next() {
            Some(Ok(object)) => {
                sizes.push((field(&object, "width")?, field(&object, "height")?));
                used = objects.byte_offset();
            }
            Some(Err(error)) if !error.is_eof() => return None,
            Some(Err(_)) | None => break,
        }
    }
    pending.drain(..used);
    (pending.len() <= LONGEST).then_some(sizes)
}

/// A number by its name in any case, as Go matches it; 0 if it is not there.
fn field(object: &Map<String, Value>, name: &str) -> Option<u16> {
    let found = object.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map_or(Some(0), |(_, value)| value.as_u64()?.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_may_come_in_pieces_and_many_at_once() {
        let mut pending = br#"{"Width":80,"Height":24}
{"Width":81,"Height":25}{"Wid"#
            .to_vec();
        assert_eq!(decode(&mut pending), Some(vec![(80, 24), (81, 25)]));
        pending.extend_from_slice(br#"th":1,"height":2}"#);
        assert_eq!(decode(&mut pending), Some(vec![(1, 2)]));
        assert!(pending.is_empty());
    }

    #[test]
    fn nonsense_ends_the_stream_and_nothing_grows_without_bound() {
        assert_eq!(decode(&mut b"[1,2]".to_vec()), None);
        assert_eq!(decode(&mut br#"{"Width":70000}"#.to_vec()), None);
        assert_eq!(decode(&mut vec![b' '; LONGEST + 1]), None);
        assert_eq!(decode(&mut vec![b' '; 3]), Some(vec![]));
    }
}
