//! One request as handlers read it, and the plain answers Go's libraries give.
//!
//! Go matches and authorizes the decoded path; so does everything here. A parameter may come several times.

use axum::body::Body;
use axum::extract::Query;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// A request without its body.
pub struct Call {
    pub parts: Parts,
    /// Decoded.
    pub path: String,
    pub query: Vec<(String, String)>,
}

impl Call {
    /// Nothing where the path is no text or the query cannot be read.
    pub fn of(parts: Parts) -> Option<Self> {
        let path = decode(parts.uri.path())?;
        let Query(query) = Query::try_from_uri(&parts.uri).ok()?;
        Some(Self { parts, path, query })
    }

    /// A parameter's first value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = name.to_owned();
        self.query.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The path's parts below a service's root.
    pub fn below(&self, root: &str) -> Vec<String> {
        let rest = self.path.strip_prefix(root.trim_end_matches('/')).unwrap_or_default();
        rest.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

/// Percent-decodes a path.
fn decode(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let (mut out, mut bytes) = (Vec::with_capacity(path.len()), path.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

/// go-restful's `WriteErrorString`: the text alone.
pub fn text(status: StatusCode, body: impl Into<String>) -> Response {
    (status, body.into()).into_response()
}

/// Go's `http.Error`: the text and a newline.
pub fn http_error(status: StatusCode, body: impl Into<String>) -> Response {
    let mut response = text(status, body.into() + "\n");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// JSON that was written already.
pub fn json(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_parameters_keep_their_order() {
        let request = http::Request::get("/exec/a/b%2fc/d?command=ls&command=-l%20x&input=1&tty=true");
        let call = Call::of(request.body(()).unwrap().into_parts().0).unwrap();
        assert_eq!(call.path, "/exec/a/b/c/d");
        assert_eq!(call.below("/exec"), ["a", "b", "c", "d"]);
        assert_eq!(call.all("command").collect::<Vec<_>>(), ["ls", "-l x"]);
        assert_eq!((call.parameter("input"), call.parameter("output")), (Some("1"), None));
        assert!(decode("/%zz").is_none() && decode("/%ff").is_none() && decode("/%4").is_none());
    }
}
