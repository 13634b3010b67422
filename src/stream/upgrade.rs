//! The HTTP side of an upgrade: which protocol a request asks for, and upstream's refusals.
//!
//! Stands for `httpstream.Handshake`, the SPDY `UpgradeResponse` and the handshake of `x/net/websocket`,
//! which the kubelet's streaming server uses; their texts, status codes and headers are kept.

use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// One line per protocol a SPDY client or server can speak.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// The value of `Upgrade` both ways.
pub const SPDY: &str = "SPDY/3.1";

/// A request that is not upgraded: the whole answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: String,
}

impl Refusal {
    /// What Go's `http.Error` writes.
    pub fn error(status: StatusCode, text: impl Into<String>) -> Self {
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        Self { status, headers, body: format!("{}\n", text.into()) }
    }

    /// What the WebSocket library writes: a status line, perhaps a text, no content type.
    fn bare(status: StatusCode, text: &str) -> Self {
        Self { status, headers: Vec::new(), body: text.to_owned() }
    }

    pub fn response<B: From<String>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body));
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// Whether the client wants to leave HTTP (`httpstream.IsUpgradeRequest`).
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| lower(value).contains("upgrade"))
}

/// Whether it wants a WebSocket (`wsstream.IsWebSocketRequest`).
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| lower(value) == "websocket") && is_upgrade(headers)
}

/// The subprotocols a WebSocket client offers, in its order.
pub fn websocket_protocols(headers: &HeaderMap) -> Vec<&str> {
    let offered = headers.get(WS_PROTOCOL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    offered.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// Chooses a subprotocol as `x/net/websocket` and `wsstream` do together. `None` in `supported` terms
/// is the empty name: a client that offers nothing.
pub fn negotiate_websocket(
    parts: &Parts,
    supported: &[&'static str],
) -> Result<(&'static str, Response<()>), Refusal> {
    if parts.method != Method::GET {
        return Err(Refusal::bare(StatusCode::METHOD_NOT_ALLOWED, "bad method"));
    }
    let Some(key) = parts.headers.get(WS_KEY).filter(|key| !key.is_empty()) else {
        return Err(Refusal::bare(StatusCode::BAD_REQUEST, "mismatch challenge/response"));
    };
    if parts.headers.get(WS_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = Refusal::bare(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
        refusal.headers.push((WS_VERSION, HeaderValue::from_static("13")));
        return Err(refusal);
    }
    let mut offered = websocket_protocols(&parts.headers);
    if offered.is_empty() {
        offered.push("");
    }
    let chosen = offered.iter().find_map(|name| supported.iter().find(|known| *known == name));
    let Some(chosen) = chosen.copied() else {
        return Err(Refusal::bare(StatusCode::FORBIDDEN, ""));
    };
    let mut response = switching("websocket");
    let accept = derive_accept_key(key.as_bytes());
    response
        .headers_mut()
        .insert(WS_ACCEPT, HeaderValue::from_str(&accept).expect("base64 is a header value"));
    if !chosen.is_empty() {
        response.headers_mut().insert(WS_PROTOCOL, HeaderValue::from_static(chosen));
    }
    Ok((chosen, response))
}

/// Chooses a stream protocol for SPDY; the server's order decides nothing, the client's does.
pub fn negotiate_spdy(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<(&'static str, Response<()>), Refusal> {
    let lines: Vec<&str> =
        headers.get_all(PROTOCOL_VERSION).iter().filter_map(|value| value.to_str().ok()).collect();
    let offered: Vec<&str> = lines
        .iter()
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if offered.is_empty() {
        return Err(Refusal::error(StatusCode::BAD_REQUEST, no_protocol(headers, &lines)));
    }
    let chosen = offered.iter().find_map(|name| supported.iter().find(|known| *known == name));
    let Some(chosen) = chosen.copied() else {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            supported.join(" ")
        );
        let mut refusal = Refusal::error(StatusCode::FORBIDDEN, text);
        for name in supported {
            refusal.headers.push((ACCEPTED_VERSIONS, HeaderValue::from_static(name)));
        }
        return Err(refusal);
    };
    let upgrade = headers.get(UPGRADE).map(lower).unwrap_or_default();
    let connection = headers.get(CONNECTION).map(lower).unwrap_or_default();
    if !connection.contains("upgrade") || !upgrade.contains("spdy/3.1") {
        let text = format!("unable to upgrade: missing upgrade headers in request: {}", go_syntax(headers));
        let mut refusal = Refusal::error(StatusCode::BAD_REQUEST, text);
        refusal.headers.push((PROTOCOL_VERSION, HeaderValue::from_static(chosen)));
        return Err(refusal);
    }
    let mut response = switching(SPDY);
    response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(chosen));
    Ok((chosen, response))
}

/// Why the header that offers protocols is of no use.
fn no_protocol(headers: &HeaderMap, lines: &[&str]) -> String {
    let name = "X-Stream-Protocol-Version";
    if lines.is_empty() {
        // Go counts names, and keeps Host elsewhere.
        let count = headers.keys().filter(|name| *name != http::header::HOST).count();
        return format!("unable to upgrade: header {name} does not exist in request with {count} headers");
    }
    format!("unable to upgrade: header {name} contains [{}], but no valid protocols", lines.join(" "))
}

fn switching(protocol: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

fn lower(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase()
}

/// Headers as Go's `%#v` prints an `http.Header`: canonical names, sorted, `Host` not among them.
fn go_syntax(headers: &HeaderMap) -> String {
    let mut entries: Vec<(String, String)> = headers
        .keys()
        .filter(|name| *name != http::header::HOST)
        .map(|name| {
            let values: Vec<String> = headers
                .get_all(name)
                .iter()
                .map(|value| format!("{:?}", String::from_utf8_lossy(value.as_bytes())))
                .collect();
            (canonical(name.as_str()), values.join(", "))
        })
        .collect();
    entries.sort();
    let entries: Vec<String> =
        entries.iter().map(|(name, values)| format!("{name:?}:[]string{{{values}}}")).collect();
    format!("http.Header{{{}}}", entries.join(", "))
}

/// `content-type` becomes `Content-Type`.
fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().method("GET").uri("/exec/a/b/c");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    const WEBSOCKET: [(&str, &str); 4] = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn a_websocket_is_answered_with_the_key_of_the_rfc() {
        let mut headers = WEBSOCKET.to_vec();
        headers.push(("Sec-WebSocket-Protocol", "v5.channel.k8s.io, v4.channel.k8s.io"));
        let parts = request(&headers);
        assert!(is_websocket(&parts.headers));
        let (chosen, response) =
            negotiate_websocket(&parts, &["", "v4.channel.k8s.io", "v5.channel.k8s.io"]).unwrap();
        assert_eq!(chosen, "v5.channel.k8s.io");
        assert_eq!(response.headers()[WS_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[WS_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(response.status(), 101);
    }

    #[test]
    fn a_websocket_without_a_known_protocol_version_or_key_is_refused() {
        let mut headers = WEBSOCKET.to_vec();
        headers.push(("Sec-WebSocket-Protocol", "v9.channel.k8s.io"));
        let refusal = negotiate_websocket(&request(&headers), &["", "v4.channel.k8s.io"]).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.body.as_str()), (403, ""));
        let refusal = negotiate_websocket(&request(&WEBSOCKET[..2]), &[""]).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.body.as_str()), (400, "mismatch challenge/response"));
        let refusal = negotiate_websocket(&request(&WEBSOCKET[..2]), &[""]).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert!(negotiate_websocket(&request(&WEBSOCKET), &[""]).is_ok(), "no protocol is one too");
        assert!(negotiate_websocket(&request(&WEBSOCKET), &["v5.channel.k8s.io"]).is_err());
    }

    #[test]
    fn spdy_is_refused_in_upstreams_words() {
        let v4 = &["v4.channel.k8s.io", "v3.channel.k8s.io"];
        let refusal = negotiate_spdy(&request(&[]).headers, v4).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert_eq!(
            refusal.body,
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 0 headers\n"
        );
        let empty = request(&[("X-Stream-Protocol-Version", ",")]);
        let refusal = negotiate_spdy(&empty.headers, v4).unwrap_err();
        assert!(refusal.body.ends_with("contains [,], but no valid protocols\n"), "{}", refusal.body);
        let nine = request(&[("X-Stream-Protocol-Version", "v9, v8")]);
        let refusal = negotiate_spdy(&nine.headers, v4).unwrap_err();
        assert_eq!(refusal.status, 403);
        assert_eq!(
            refusal.body,
            "unable to upgrade: unable to negotiate protocol: client supports [v9 v8], \
             server accepts [v4.channel.k8s.io v3.channel.k8s.io]\n"
        );
        let response = refusal.response::<String>();
        assert_eq!(response.headers().get_all(ACCEPTED_VERSIONS).iter().count(), 2);
        let plain = request(&[("X-Stream-Protocol-Version", "v4.channel.k8s.io"), ("Host", "node-1")]);
        let refusal = negotiate_spdy(&plain.headers, v4).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert_eq!(
            refusal.body,
            "unable to upgrade: missing upgrade headers in request: \
             http.Header{\"X-Stream-Protocol-Version\":[]string{\"v4.channel.k8s.io\"}}\n"
        );
    }

    #[test]
    fn spdy_takes_the_clients_first_choice() {
        let parts = request(&[
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", "v5.channel.k8s.io"),
            ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
        ]);
        let (chosen, response) =
            negotiate_spdy(&parts.headers, &["v3.channel.k8s.io", "v4.channel.k8s.io"]).unwrap();
        assert_eq!(chosen, "v4.channel.k8s.io");
        assert_eq!(response.headers()[UPGRADE], "SPDY/3.1");
    }
}
