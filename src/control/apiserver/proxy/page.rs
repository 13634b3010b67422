//! A page on its way back: read whole, its links rewritten, sent on (`proxy.Transport.rewriteResponse`).

use std::io::{Read, Write};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use tracing::warn;

use super::Streamed;
use super::html;
use super::links::Rewrite;

/// A page of more bytes, packed or unpacked, goes on as it is. Upstream reads any length into memory.
const LARGEST: usize = 8 << 20;

/// Whether a body is a page whose links are to be rewritten.
pub fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    !headers.contains_key(header::LOCATION) && kind.split(';').next().map(str::trim) == Some("text/html")
}

/// The page with its links rewritten; its length in the headers follows.
///
/// # Errors
/// The backend broke off, in Go's words.
pub async fn rewritten(
    headers: &mut HeaderMap,
    mut body: Streamed,
    rewrite: &Rewrite<'_>,
) -> Result<Body, String> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_owned());
    let Some(packing) = Packing::of(encoding.as_deref()) else {
        let encoding = String::from_utf8_lossy(encoding.as_deref().unwrap_or_default()).into_owned();
        warn!(
            "Proxy encountered encoding {encoding} for text/html; can't understand this so not fixing links."
        );
        return Ok(Body::new(body));
    };
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "unexpected EOF".to_owned())?;
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
        if whole.len() > LARGEST {
            let rest = body.into_data_stream();
            return Ok(Body::from_stream(stream::iter([Ok(Bytes::from(whole))]).chain(rest)));
        }
    }
    let page = packing.unpacked(&whole).map(|page| html::rewrite(&page, |link| rewrite.link(link)));
    let whole = page.and_then(|page| packing.packed(&page)).unwrap_or(whole);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    Ok(Body::from(whole))
}

/// How a page is packed.
#[derive(Clone, Copy)]
enum Packing {
    None,
    Gzip,
    Deflate,
}

impl Packing {
    fn of(encoding: Option<&[u8]>) -> Option<Self> {
        match encoding {
            None | Some(b"") => Some(Self::None),
            Some(b"gzip") => Some(Self::Gzip),
            Some(b"deflate") => Some(Self::Deflate),
            Some(_) => None,
        }
    }

    /// Nothing when it is broken or too long.
    fn unpacked(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut page = Vec::new();
        let read = |reader: &mut dyn Read, page: &mut Vec<u8>| {
            reader.take(LARGEST as u64 + 1).read_to_end(page).ok().filter(|_| page.len() <= LARGEST)
        };
        match self {
            Self::None => page.extend_from_slice(bytes),
            Self::Gzip => drop(read(&mut MultiGzDecoder::new(bytes), &mut page)?),
            Self::Deflate => drop(read(&mut DeflateDecoder::new(bytes), &mut page)?),
        }
        Some(page)
    }

    fn packed(self, page: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::None => Some(page.to_owned()),
            Self::Gzip => {
                let mut writer = GzEncoder::new(Vec::new(), Compression::default());
                writer.write_all(page).ok()?;
                writer.finish().ok()
            }
            Self::Deflate => {
                let mut writer = DeflateEncoder::new(Vec::new(), Compression::best());
                writer.write_all(page).ok()?;
                writer.finish().ok()
            }
        }
    }
}
