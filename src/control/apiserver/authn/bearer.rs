//! Where a bearer token may stand in a request, and how it is taken off again.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};

/// Browsers cannot set headers on a WebSocket, so its subprotocol may carry the token.
const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of an `Authorization: Bearer` header.
pub(super) fn from_header(headers: &HeaderMap) -> Option<String> {
    // Bytes that are no text are somebody's wrong token, not the lack of one.
    let text = String::from_utf8_lossy(headers.get(header::AUTHORIZATION)?.as_bytes());
    let mut words = text.trim().split(' ');
    let scheme = words.next()?;
    let token = words.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The token among a WebSocket's subprotocols.
///
/// # Errors
/// Upstream's texts for one that is not encoded as it must be, and for one that stands alone: the server
/// has to select another subprotocol, or the token would be echoed back.
pub(super) fn from_subprotocol(headers: &HeaderMap) -> Result<Option<String>, String> {
    if !is_websocket(headers) {
        return Ok(None);
    }
    let offers = offers(headers);
    let mut tokens = offers.iter().filter_map(|offer| offer.strip_prefix(SUBPROTOCOL));
    let Some(encoded) = tokens.next() else { return Ok(None) };
    if tokens.next().is_some() {
        return Err("multiple base64.bearer.authorization tokens specified".into());
    }
    let bytes =
        URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "invalid base64.bearer.authorization token encoding")?;
    let token = String::from_utf8(bytes)
        .map_err(|_| "invalid base64.bearer.authorization token, contains non UTF-8-encoded runes")?;
    if offers.iter().all(|offer| offer.starts_with(SUBPROTOCOL)) {
        return Err("missing additional subprotocol".into());
    }
    Ok(Some(token))
}

/// Takes tokens off: nobody behind the door may read them.
pub(super) fn strip(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    let all = offers(headers);
    if all.iter().any(|offer| offer.starts_with(SUBPROTOCOL)) {
        let kept: Vec<&str> =
            all.iter().filter(|offer| !offer.starts_with(SUBPROTOCOL)).map(String::as_str).collect();
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join(","))) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

fn offers(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let lines: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    lines.iter().flat_map(|line| line.split(',')).map(|offer| offer.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn websocket(protocols: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
        headers
    }

    #[test]
    fn a_subprotocol_carries_a_token_and_is_taken_off() {
        let mut headers = websocket(&format!("v5.channel.k8s.io, {SUBPROTOCOL}YWJj"));
        assert_eq!(from_subprotocol(&headers), Ok(Some("abc".into())));
        strip(&mut headers);
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(from_subprotocol(&headers), Ok(None));
    }

    #[test]
    fn a_token_alone_or_badly_encoded_is_an_error() {
        assert!(from_subprotocol(&websocket(&format!("{SUBPROTOCOL}YWJj"))).is_err());
        assert!(from_subprotocol(&websocket(&format!("a,{SUBPROTOCOL}***"))).is_err());
        let twice = format!("a,{SUBPROTOCOL}YWJj,{SUBPROTOCOL}YWJj");
        assert!(from_subprotocol(&websocket(&twice)).unwrap_err().starts_with("multiple"));
        assert_eq!(from_subprotocol(&HeaderMap::new()), Ok(None));
    }
}
