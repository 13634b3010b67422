//! Content negotiation: which shape of the answer a client would like best.

use http::{HeaderMap, header};

use crate::api::status::Status;

/// The shapes an object can be sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Object,
    /// `meta.k8s.io/v1` Table: what kubectl prints.
    Table,
    /// Metadata alone; for lists and watches too.
    Metadata,
    /// The object, in YAML.
    Yaml,
}

/// Picks the first shape of the Accept header that we have.
///
/// # Errors
/// 406 when there is none (a client that wants protobuf and nothing else).
pub fn shape(headers: &HeaderMap) -> Result<Shape, Status> {
    let mut accepted =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if accepted.peek().is_none() {
        return Ok(Shape::Object);
    }
    accepted.flat_map(|value| value.split(',')).find_map(one).ok_or_else(|| {
        Status::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        )
    })
}

/// One clause of the header.
fn one(clause: &str) -> Option<Shape> {
    let mut parts = clause.split(';').map(str::trim);
    let media = parts.next()?;
    let mut kind = None;
    let (mut version, mut group) = ("v1", "meta.k8s.io");
    for parameter in parts {
        match parameter.split_once('=')? {
            ("as", value) => kind = Some(value),
            ("v", value) => version = value,
            ("g", value) => group = value,
            _ => {}
        }
    }
    let plain = match media {
        "application/json" | "*/*" | "application/*" => Shape::Object,
        "application/yaml" => Shape::Yaml,
        _ => return None,
    };
    match kind {
        None => Some(plain),
        Some(_) if plain != Shape::Object || group != "meta.k8s.io" || version != "v1" => None,
        Some("Table") => Some(Shape::Table),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Shape::Metadata),
        Some(_) => None,
    }
}

/// Whether the client takes gzip.
pub fn gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|clause| clause.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_first_shape_we_have_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        for (accept, want) in [
            (table, Some(Shape::Table)),
            (metadata, Some(Shape::Metadata)),
            ("application/vnd.kubernetes.protobuf,application/json", Some(Shape::Object)),
            ("application/yaml", Some(Shape::Yaml)),
            ("*/*", Some(Shape::Object)),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(shape(&headers).ok(), want, "{accept}");
        }
    }
}
