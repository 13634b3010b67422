//! What a WebSocket request asks for, read from its headers (`wsstream`).

use http::{HeaderMap, header};

/// The protocol that can end a command's input, which old kubelets do not know.
const CLOSES_STREAMS: &str = "v5.channel.k8s.io";
/// SPDY inside a WebSocket: `SPDY/3.1+portforward.k8s.io`.
const TUNNEL: &str = "SPDY/3.1+";

/// `IsWebSocketRequest`.
fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let connection =
        headers.get(header::CONNECTION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    upgrade.eq_ignore_ascii_case("websocket")
        && connection.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

fn offers(headers: &HeaderMap, wanted: impl Fn(&str) -> bool) -> bool {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut offered =
        offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    is_websocket(headers) && offered.any(|protocol| wanted(protocol.trim()))
}

/// `IsWebSocketRequestWithStreamCloseProtocol`.
pub fn closes_streams(headers: &HeaderMap) -> bool {
    offers(headers, |protocol| protocol.eq_ignore_ascii_case(CLOSES_STREAMS))
}

/// `IsWebSocketRequestWithTunnelingProtocol`.
pub fn tunnels(headers: &HeaderMap) -> bool {
    offers(headers, |protocol| protocol.starts_with(TUNNEL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asking(protocol: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("WebSocket")),
            (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol)),
        ])
    }

    #[test]
    fn protocols_are_found_among_those_offered() {
        assert!(closes_streams(&asking("v4.channel.k8s.io, v5.channel.k8s.io")));
        assert!(!closes_streams(&asking("v4.channel.k8s.io")));
        assert!(tunnels(&asking("SPDY/3.1+portforward.k8s.io")));
        let mut plain = asking("v5.channel.k8s.io");
        plain.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(!closes_streams(&plain));
    }
}
