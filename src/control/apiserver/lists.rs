//! Encoded lists, kept while their bucket does not change: a list of 500 pods is then a pointer copy.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::response::Response;
use bytes::Bytes;
use http::header;

use super::encode;
use super::registry::Resource;
use super::respond::{self, Pieces};
use crate::api::status::{Result, Status};
use crate::control::store::{Entry, Revision, Store};

/// Upstream compresses answers larger than this.
const GZIP_FROM: usize = 128 * 1024;
/// A list may be sent with the revision it was encoded at while the store is at most this far on:
/// a client that watches from it must not find it compacted.
const STILL_FRESH: Revision = 256;

/// The items of a list, and the list compressed when somebody asked for that.
pub struct Encoded {
    pub items: Bytes,
    pub count: usize,
    /// The revision all of it is at.
    pub revision: Revision,
    compressed: OnceLock<Bytes>,
}

impl Encoded {
    pub fn new(entries: &[Entry], revision: Revision) -> Self {
        let items = encode::items(entries.iter()).into();
        Self { items, count: entries.len(), revision, compressed: OnceLock::new() }
    }
}

/// One list, and the bucket's last change when it was made.
struct Kept {
    last_change: Revision,
    list: Arc<Encoded>,
}

/// The lists by bucket and key prefix.
#[derive(Default)]
pub struct Lists {
    kept: RwLock<HashMap<String, HashMap<String, Kept>>>,
}

impl Lists {
    /// All objects below a prefix, as they are now.
    pub fn whole(&self, store: &Store, row: &Resource, prefix: &str) -> Result<Arc<Encoded>> {
        // Read before the list: a change in between only makes the next request encode again.
        let last_change = store.bucket_revision(&row.bucket);
        let now = store.revision();
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let hit = kept.get(&row.bucket).and_then(|prefixes| prefixes.get(prefix));
        if let Some(hit) =
            hit.filter(|kept| kept.last_change == last_change && kept.list.revision + STILL_FRESH > now)
        {
            return Ok(hit.list.clone());
        }
        drop(kept);
        let page = store.list(&row.bucket, prefix, None, None, None).map_err(Status::internal)?;
        let list = Arc::new(Encoded::new(&page.entries, page.revision));
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let prefixes = kept.entry(row.bucket.clone()).or_default();
        // What was encoded for an older state of the bucket is of no more use to anybody.
        prefixes.retain(|_, kept| kept.last_change == last_change);
        prefixes.insert(prefix.to_owned(), Kept { last_change, list: list.clone() });
        Ok(list)
    }
}

/// Sends a complete list.
pub fn send(list: &Encoded, row: &Resource, gzip: bool) -> Response {
    let head = head(row, &format!("\"resourceVersion\":\"{}\"", list.revision));
    if !gzip || list.items.len() < GZIP_FROM {
        return respond::pieces(Pieces::new([head, list.items.clone(), Bytes::from_static(b"]}")]));
    }
    let compressed = list.compressed.get_or_init(|| encode::gzip(&[&head, &list.items, b"]}"]));
    let response = respond::pieces(Pieces::new([compressed.clone()]));
    let response = respond::header(response, header::CONTENT_ENCODING, "gzip");
    respond::header(response, header::VARY, "Accept-Encoding")
}

/// A list's beginning, up to its items; `metadata` is the inside of that object.
pub fn head(row: &Resource, metadata: &str) -> Bytes {
    format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{{{metadata}}},\"items\":[",
        row.list_kind,
        row.api_version()
    )
    .into()
}
