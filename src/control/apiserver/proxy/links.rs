//! A backend's links, in `Location` and in pages, as a client can follow them through the proxy
//! (`proxy.Transport.rewriteURL`).

use super::path::{Path, escaped, of_bytes, to_bytes};
use crate::api::go_path::clean;
use crate::api::percent::unescape_bytes;

/// Turns a backend's link into one through the proxy.
pub struct Rewrite<'a> {
    pub path: &'a Path,
    /// The backend's `host:port`.
    pub backend: String,
    /// The `Host` the client asked for.
    pub host: &'a str,
}

/// A link's parts, as Go's `url.Parse` sees them.
struct Link<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
    /// With its `?`.
    query: &'a str,
    /// With its `#`.
    fragment: &'a str,
}

impl<'a> Link<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        let (rest, fragment) = text.split_at(text.find('#').unwrap_or(text.len()));
        let (rest, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let (scheme, rest) = match rest.split_once(':') {
            Some((scheme, after)) if is_scheme(scheme) => (scheme, after),
            _ => ("", rest),
        };
        let named = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"));
        let (host, path) = match named {
            Some(named) => named.split_at(named.find('/').unwrap_or(named.len())),
            None => ("", rest),
        };
        Some(Self { scheme, host, path, query, fragment })
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|one| one.is_ascii_alphanumeric() || matches!(one, '+' | '-' | '.'))
}

impl Rewrite<'_> {
    /// A path of the same host gets the proxy's prefix; another host and a relative path stay.
    pub fn link(&self, target: &[u8]) -> Vec<u8> {
        match Link::parse(&of_bytes(target)).and_then(|link| self.through(&link)) {
            Some(rewritten) => to_bytes(&rewritten),
            None => target.to_owned(),
        }
    }

    fn through(&self, link: &Link<'_>) -> Option<String> {
        let foreign = !link.host.is_empty() && link.host != self.backend && link.host != self.host;
        if foreign || !link.path.starts_with('/') {
            return None;
        }
        let head = match link.host == self.host && !link.scheme.is_empty() {
            true => format!("{}://{}", link.scheme, link.host),
            false => String::new(),
        };
        let path = of_bytes(&unescape_bytes(&to_bytes(link.path)));
        let prefix = self.path.prefix();
        let path = match path.starts_with(prefix) {
            true => link.path.to_owned(),
            false => {
                let mut joined = clean(&format!("{prefix}/{path}"));
                if path.ends_with('/') {
                    joined.push('/');
                }
                escaped(&joined)
            }
        };
        Some(format!("{head}{path}{}{}", link.query, link.fragment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_on_the_same_host_leads_through_the_proxy() {
        const BASE: &str = "/api/v1/namespaces/a/pods/web/proxy";
        let path = Path::below(&format!("{BASE}/x/y"), 7, None);
        let rewrite = Rewrite { path: &path, backend: "10.0.0.1:80".into(), host: "localhost:8001" };
        for (target, want) in [
            ("/login?next=x#top", format!("{BASE}/login?next=x#top")),
            ("http://10.0.0.1:80/login/", format!("{BASE}/login/")),
            ("//10.0.0.1:80/login", format!("{BASE}/login")),
            ("http://localhost:8001/login", format!("http://localhost:8001{BASE}/login")),
            ("http://10.0.0.1:80", "http://10.0.0.1:80".into()),
            ("http://elsewhere/login", "http://elsewhere/login".into()),
            ("//other/login", "//other/login".into()),
            ("/a b", format!("{BASE}/a%20b")),
            ("/é", format!("{BASE}/%C3%A9")),
            ("/a/../b", format!("{BASE}/b")),
            ("login", "login".into()),
            ("../login", "../login".into()),
            ("mailto:a@b", "mailto:a@b".into()),
            ("#top", "#top".into()),
            (&format!("{BASE}/login"), format!("{BASE}/login")),
        ] {
            assert_eq!(rewrite.link(target.as_bytes()), want.as_bytes(), "{target}");
        }
    }
}
