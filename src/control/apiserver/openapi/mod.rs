//! OpenAPI: what `kubectl explain` reads, and what `kubectl apply` merges by.
//!
//! Stands for `k8s.io/kube-openapi`. The schemas are those of the typed API crate under upstream's names,
//! one document a group and version, made when first asked for and kept compressed.

mod atomic;
mod enums;
mod gnostic;
mod paths;
pub mod schemas;
mod v2;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::registry::{self, Resource};
use super::{aggregate, custom, encode};

/// One document, compressed, and the hash of its text.
#[derive(Clone)]
pub struct Document {
    pub compressed: Bytes,
    pub hash: String,
}

impl Document {
    fn new(document: &Value) -> Self {
        Self::of(document.to_string().as_bytes())
    }

    fn of(text: &[u8]) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, text);
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Self { compressed: encode::gzip(&[text]), hash }
    }

    /// The document as text, for clients that do not take gzip.
    pub fn text(&self) -> Bytes {
        use std::io::Read;
        let mut text = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(&self.compressed[..]);
        reader.read_to_end(&mut text).expect("we compressed it ourselves");
        text.into()
    }
}

/// The version 3 documents by path: `api/v1`, `apis/apps/v1`.
pub fn v3() -> &'static BTreeMap<String, Document> {
    static DOCUMENTS: OnceLock<BTreeMap<String, Document>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let of = |(path, rows): (String, Vec<&Resource>)| (path, Document::new(&document(&rows)));
        by_version().into_iter().map(of).collect()
    })
}

/// A version 3 document, also of users' own kinds: theirs are made when asked for.
pub fn third(path: &str) -> Option<Cow<'static, Document>> {
    let own = v3().get(path).map(Cow::Borrowed);
    own.or_else(|| {
        let rows = versions(custom::rows()).remove(path)?;
        Some(Cow::Owned(Document::new(&document(&rows))))
    })
}

/// The list of version 3 documents.
pub fn index() -> Value {
    let entry = |path: &str, hash: &str| {
        (path.to_owned(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
    };
    let mut paths: Map<String, Value> =
        v3().iter().map(|(path, document)| entry(path, &document.hash)).collect();
    for (path, rows) in versions(custom::rows()) {
        let document = Document::new(&document(&rows));
        paths.extend([entry(&path, &document.hash)]);
    }
    for remote in aggregate::remotes() {
        let path = format!("apis/{}/{}", remote.group, remote.version);
        match &remote.described {
            Some(place) => drop(paths.insert(path, json!({"serverRelativeURL": place}))),
            None => drop(paths.remove(&path)),
        }
    }
    json!({"paths": paths})
}

/// The one version 2 document, for clients older than version 3.
pub fn v2() -> Arc<Document> {
    static KEPT: Kept = Kept::new(None);
    kept(&KEPT, || Document::new(&second()))
}

/// The same in protobuf.
pub fn v2_protobuf() -> Arc<Document> {
    static KEPT: Kept = Kept::new(None);
    kept(&KEPT, || Document::of(&gnostic::document(&second())))
}

/// A document, and how often users' own kinds had changed when it was made.
type Kept = Mutex<Option<(u64, Arc<Document>)>>;

fn kept(place: &Kept, make: impl FnOnce() -> Document) -> Arc<Document> {
    let now = *custom::served::changes().borrow();
    let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
    match &*kept {
        Some((then, document)) if *then == now => Arc::clone(document),
        _ => {
            let document = Arc::new(make());
            *kept = Some((now, Arc::clone(&document)));
            document
        }
    }
}

fn second() -> Value {
    let every = versions(registry::every());
    v2::document(every.into_values().map(|rows| {
        let mut document = document(&rows);
        for custom in rows.iter().filter_map(|row| row.custom()) {
            if let Some(schema) = document["components"]["schemas"].get_mut(custom.definition()) {
                custom::publish::plain(schema);
            }
        }
        document
    }))
}

/// The built-in rows by the path of their group and version.
fn by_version() -> BTreeMap<String, Vec<&'static Resource>> {
    versions(registry::all().iter().collect())
}

fn versions(rows: Vec<&'static Resource>) -> BTreeMap<String, Vec<&'static Resource>> {
    let mut all: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
    for row in rows {
        let prefix = if row.group.is_empty() { "api" } else { "apis" };
        all.entry(format!("{prefix}/{}", row.api_version())).or_default().push(row);
    }
    all
}

fn document(rows: &[&Resource]) -> Value {
    let (schemas, names) = schemas::of(rows);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": super::health::VERSION},
        "paths": paths::of(rows, &names),
        "components": {"schemas": schemas, "securitySchemes": {"BearerToken": {
            "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
        }}},
    })
}

#[cfg(test)]
mod tests;
