//! Paths on both sides of the proxy, and `Location` from one to the other.

use http::Uri;

use crate::api::go_path::clean;

/// The path of one proxied request.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// As the client sent it: `/api/v1/…/proxy/x/`.
    client: String,
    /// What the backend is asked for, cleaned, without the query: empty for the bare `…/proxy`.
    below: String,
    query: Option<String>,
}

impl Path {
    /// `rest` is what comes after `…/proxy/`, decoded.
    pub fn below(client: &str, rest: &str, query: Option<&str>) -> Self {
        let slash = client.ends_with('/');
        let mut below = match rest {
            "" => String::new(),
            rest => clean(rest),
        };
        if slash && !below.ends_with('/') {
            below.push('/');
        }
        Self { client: client.to_owned(), below, query: query.map(str::to_owned) }
    }

    /// Whether nothing is asked for, not even `/`.
    pub fn is_bare(&self) -> bool {
        self.below.is_empty()
    }

    pub fn client(&self) -> &str {
        &self.client
    }

    pub fn with_slash(&self) -> String {
        format!("{}/{}", self.client, self.query())
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
    fn prefix(&self) -> &str {
        self.client.strip_suffix(self.below.as_str()).unwrap_or(&self.client)
    }
}

/// Go's `URL.EscapedPath`.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
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

/// Bytes that no URL has, as Go writes them.
fn readable(target: &str) -> String {
    let mut out = String::with_capacity(target.len());
    for byte in target.bytes() {
        match byte {
            b'!'..=b'~' => out.push(char::from(byte)),
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// Turns a backend's `Location` into one the client can follow through the proxy.
pub struct Rewrite<'a> {
    pub path: &'a Path,
    /// The backend's `host:port`.
    pub backend: String,
    /// The `Host` the client asked for.
    pub host: &'a str,
}

impl Rewrite<'_> {
    /// A path of the same host gets the proxy's prefix; another host and a relative path stay.
    pub fn location(&self, target: &str) -> String {
        // Two slashes name another host.
        if target.starts_with("//") {
            return target.to_owned();
        }
        let target = &readable(target);
        let Ok(uri) = target.parse::<Uri>() else { return target.to_owned() };
        let foreign =
            uri.authority().is_some_and(|name| name.as_str() != self.backend && name.as_str() != self.host);
        if foreign || !uri.path().starts_with('/') || (uri.authority().is_none() && !target.starts_with('/'))
        {
            return target.to_owned();
        }
        let prefix = self.path.prefix();
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let fragment = target.split_once('#').map(|(_, rest)| format!("#{rest}")).unwrap_or_default();
        let own = uri.authority().filter(|name| name.as_str() == self.host);
        let head = match (own, uri.scheme_str()) {
            (Some(name), Some(scheme)) => format!("{scheme}://{name}"),
            _ => String::new(),
        };
        let path = match uri.path().starts_with(prefix) {
            true => uri.path().to_owned(),
            false => format!("{}{}", prefix.trim_end_matches('/'), uri.path()),
        };
        format!("{head}{path}{query}{fragment}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::request::unescape;

    const BASE: &str = "/api/v1/namespaces/a/pods/web/proxy";

    #[test]
    fn what_is_below_goes_on_cleaned_escaped_and_with_its_slash() {
        for (client, rest, query, want) in [
            ("", "", None, "/"),
            ("/", "", Some("a=b%20c"), "/?a=b%20c"),
            ("/x/y", "x/y", None, "/x/y"),
            ("/x/y/", "x/y", None, "/x/y/"),
            ("/x/../../../etc", "x/../../../etc", None, "/etc"),
            ("/a%20b/c%3Fd", "a b/c?d", None, "/a%20b/c%3Fd"),
        ] {
            let path = Path::below(&unescape(&format!("{BASE}{client}")), rest, query);
            assert_eq!(path.backend(), want, "{client}");
        }
        let bare = Path::below(BASE, "", Some("x=1"));
        assert!(bare.is_bare());
        assert_eq!(bare.with_slash(), format!("{BASE}/?x=1"));
    }

    #[test]
    fn a_location_on_the_same_host_leads_through_the_proxy() {
        let path = Path::below(&format!("{BASE}/x/y"), "x/y", None);
        let rewrite = Rewrite { path: &path, backend: "10.0.0.1:80".into(), host: "localhost:8001" };
        for (target, want) in [
            ("/login?next=x#top", format!("{BASE}/login?next=x#top")),
            ("http://10.0.0.1:80/login/", format!("{BASE}/login/")),
            ("http://localhost:8001/login", format!("http://localhost:8001{BASE}/login")),
            ("http://elsewhere/login", "http://elsewhere/login".into()),
            ("//other/login", "//other/login".into()),
            ("/a b", format!("{BASE}/a%20b")),
            ("login", "login".into()),
            ("../login", "../login".into()),
            (&format!("{BASE}/login"), format!("{BASE}/login")),
        ] {
            assert_eq!(rewrite.location(target), want, "{target}");
        }
    }
}
