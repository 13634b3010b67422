//! Where a bearer token may stand in a request.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};

/// Browsers cannot set headers on a WebSocket, so its subprotocol may carry the token.
const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of an `Authorization: Bearer` header or of a WebSocket's subprotocol.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    from_header(headers).or_else(|| from_subprotocol(headers))
}

fn from_header(headers: &HeaderMap) -> Option<String> {
    let mut words = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split(' ');
    let scheme = words.next()?;
    let token = words.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn from_subprotocol(headers: &HeaderMap) -> Option<String> {
    headers.get(header::UPGRADE)?.to_str().ok().filter(|value| value.eq_ignore_ascii_case("websocket"))?;
    let mut offers =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let encoded =
        offers.find_map(|offer| offer.split(',').find_map(|one| one.trim().strip_prefix(SUBPROTOCOL)))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}
