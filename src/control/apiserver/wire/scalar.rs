//! Single values: plain ones, and the messages that are one value in JSON (times, quantities, ports).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::WireError;
use super::read::{Content, Fields, text};

pub fn read(name: &str, code: &str, content: Content<'_>) -> Result<Option<Value>, WireError> {
    Ok(Some(match (code, content) {
        ("s", Content::Bytes(bytes)) => json!(text(bytes)?),
        ("y", Content::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        ("i", Content::Varint(number)) => json!(number.cast_signed()),
        ("b", Content::Varint(number)) => json!(number != 0),
        ("f", Content::Fixed(bits)) => json!(f64::from_bits(bits)),
        ("q", Content::Bytes(bytes)) => json!(Inner::of(bytes)?.first_text()?),
        ("o", Content::Bytes(bytes)) => int_or_string(&Inner::of(bytes)?)?,
        ("T" | "M", Content::Bytes(bytes)) => return time(&Inner::of(bytes)?, code == "M"),
        ("d", Content::Bytes(bytes)) => json!(duration(Inner::of(bytes)?.number(1))),
        ("r", Content::Bytes(bytes)) => match Inner::of(bytes)?.bytes(1) {
            Some(raw) => serde_json::from_slice(raw)?,
            None => return Ok(None),
        },
        ("x", Content::Bytes(bytes)) => json!(Inner::of(bytes)?.texts()?),
        _ => return Err(WireError::Mismatch(name.to_owned())),
    }))
}

/// The fields of a small message.
struct Inner<'a>(Vec<(u64, Content<'a>)>);

impl<'a> Inner<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, WireError> {
        Fields::of(bytes).collect::<Result<_, _>>().map(Self)
    }

    fn number(&self, wanted: u64) -> i64 {
        let found = self.0.iter().rev().find_map(|(number, content)| match content {
            Content::Varint(value) if *number == wanted => Some(value.cast_signed()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    fn bytes(&self, wanted: u64) -> Option<&'a [u8]> {
        self.0.iter().rev().find_map(|(number, content)| match content {
            Content::Bytes(bytes) if *number == wanted => Some(*bytes),
            _ => None,
        })
    }

    fn first_text(&self) -> Result<String, WireError> {
        self.bytes(1).map_or_else(|| Ok(String::new()), text)
    }

    fn texts(&self) -> Result<Vec<String>, WireError> {
        let all = self.0.iter().filter_map(|(_, content)| match content {
            Content::Bytes(bytes) => Some(text(bytes)),
            _ => None,
        });
        all.collect()
    }
}

/// Type 0 is the number in field 2, type 1 the text in field 3.
fn int_or_string(inner: &Inner<'_>) -> Result<Value, WireError> {
    match inner.number(1) {
        1 => Ok(json!(inner.bytes(3).map_or_else(|| Ok(String::new()), text)?)),
        _ => Ok(json!(inner.number(2))),
    }
}

/// Seconds and nanoseconds; nothing at all is no time.
fn time(inner: &Inner<'_>, micro: bool) -> Result<Option<Value>, WireError> {
    let nanos = i32::try_from(inner.number(2)).map_err(|_| WireError::Overflow)?;
    if inner.0.is_empty() || (inner.number(1) == 0 && nanos == 0) {
        return Ok(None);
    }
    let time = Timestamp::new(inner.number(1), nanos).map_err(|_| WireError::Overflow)?;
    let form = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Some(json!(time.strftime(form).to_string())))
}

/// Nanoseconds as Go prints them, in seconds.
fn duration(nanos: i64) -> String {
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 { format!("{seconds}s") } else { format!("{nanos}ns") }
}
