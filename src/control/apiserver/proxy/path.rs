//! The path of a proxied request on both sides of the proxy.
//!
//! Paths are bytes, which need not be UTF-8: here each byte is a `char` of the same number, so that text
//! functions can be used on them and nothing is lost.

use http::HeaderValue;

use crate::api::go_path::clean;
use crate::api::percent::unescape_bytes;

/// The path of one proxied request.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// As the client sent it, unescaped: `/api/v1/…/proxy/x/`.
    client: String,
    /// What the backend is asked for, cleaned, without the query: empty for the bare `…/proxy`.
    below: String,
    query: Option<String>,
}

impl Path {
    /// `sent` is the path as the client wrote it; its first `parts` parts lead to the backend.
    pub fn below(sent: &str, parts: usize, query: Option<&str>) -> Self {
        let client = of_bytes(&unescape_bytes(sent.as_bytes()));
        let rest = client.trim_start_matches('/').splitn(parts + 1, '/').nth(parts).unwrap_or_default();
        let mut below = match rest.trim_end_matches('/') {
            "" => String::new(),
            rest => clean(rest),
        };
        if client.ends_with('/') && !below.ends_with('/') {
            below.push('/');
        }
        Self { client, below, query: query.map(str::to_owned) }
    }

    /// Whether nothing is asked for, not even `/`.
    pub fn is_bare(&self) -> bool {
        self.below.is_empty()
    }

    /// `X-Forwarded-Uri`: the client's path as it would be with what the backend is asked for.
    pub fn forwarded(&self) -> Option<HeaderValue> {
        let path = if self.is_bare() { "/" } else { &self.below };
        let mut joined = clean(&format!("{}{path}", self.prefix()));
        if path.ends_with('/') {
            joined.push('/');
        }
        HeaderValue::from_bytes(&to_bytes(&joined)).ok()
    }

    pub fn with_slash(&self) -> String {
        format!("{}/{}", escaped(&self.client), self.query())
    }

    /// Path and query for the backend.
    pub fn backend(&self) -> String {
        let path = if self.is_bare() { "/" } else { &self.below };
        format!("{}{}", escaped(path), self.query())
    }

    fn query(&self) -> String {
        self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default()
    }

    /// What stands before the backend's path in the client's.
    pub fn prefix(&self) -> &str {
        self.client.strip_suffix(self.below.as_str()).unwrap_or(&self.client)
    }
}

/// Go's `URL.EscapedPath`.
pub fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in to_bytes(path) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' => {
                out.push(char::from(byte));
            }
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// Each byte as a `char`.
pub fn of_bytes(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Each `char` as a byte again; there are none that came from no byte.
pub fn to_bytes(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/api/v1/namespaces/a/pods/web/proxy";

    #[test]
    fn what_is_below_goes_on_cleaned_escaped_and_with_its_slash() {
        for (client, query, want) in [
            ("", None, "/"),
            ("/", Some("a=b%20c"), "/?a=b%20c"),
            ("/x/y", None, "/x/y"),
            ("/x/y/", None, "/x/y/"),
            ("/x/../../../etc", None, "/etc"),
            ("/a%20b/c%3Fd", None, "/a%20b/c%3Fd"),
            ("/%ff/%C3%A9", None, "/%FF/%C3%A9"),
        ] {
            let path = Path::below(&format!("{BASE}{client}"), 7, query);
            assert_eq!(path.backend(), want, "{client}");
        }
        let bare = Path::below(BASE, 7, Some("x=1"));
        assert!(bare.is_bare());
        assert_eq!(bare.with_slash(), format!("{BASE}/?x=1"));
        assert_eq!(bare.forwarded().unwrap(), format!("{BASE}/"));
        assert_eq!(Path::below("/api/v1/nodes/n/proxy/logs/", 5, None).backend(), "/logs/");
    }
}
