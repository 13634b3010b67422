//! Which headers go on, and which do not.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Client;

/// Of one connection only (`httputil.ReverseProxy`); trailers go on, and with them the names of them.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const CORS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// How a browser's WebSocket brings its token, which has no headers of its own.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The client's headers as a backend may see them: without the credentials that were meant for us.
pub fn onward(client: &Client) -> HeaderMap {
    let mut headers = client.headers.clone();
    headers.remove(header::AUTHORIZATION);
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    ours.into_iter().for_each(|name| drop(headers.remove(name)));
    without_bearer_protocol(&mut headers);
    if !headers.contains_key(header::HOST)
        && let Some(authority) =
            client.uri.authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok())
    {
        // HTTP/2 has the name in its pseudo header.
        headers.insert(header::HOST, authority);
    }
    if let Some(peer) = &client.peer {
        forwarded_for(&mut headers, peer.address.ip());
    }
    headers
}

/// Takes out what concerns one connection alone, named by the standard or by the message itself.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let trailers = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    let trailers =
        trailers.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case("trailers"));
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Every answer of an API server's says so first (`WithCacheControl`); a backend's own words follow.
pub fn forbid_caching(headers: &mut HeaderMap) {
    let theirs: Vec<HeaderValue> = headers.get_all(header::CACHE_CONTROL).iter().cloned().collect();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    for value in theirs {
        headers.append(header::CACHE_CONTROL, value);
    }
}

/// A backend does not decide which origins may read through the API server.
pub fn remove_cors(headers: &mut HeaderMap) {
    CORS.iter().for_each(|name| drop(headers.remove(name)));
}

fn forwarded_for(headers: &mut HeaderMap, address: IpAddr) {
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let own = address.to_canonical().to_string();
    let all = before.into_iter().chain([own.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&all) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn without_bearer_protocol(headers: &mut HeaderMap) {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    let offered: Vec<String> =
        headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    if !offered.iter().any(|value| value.contains(BEARER_PROTOCOL)) {
        return;
    }
    headers.remove(&name);
    let kept = offered.iter().flat_map(|value| value.split(',')).map(str::trim);
    let kept: Vec<&str> = kept.filter(|protocol| !protocol.starts_with(BEARER_PROTOCOL)).collect();
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join(", "))) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_connections_own_headers_stay_behind_also_those_it_names() {
        let mut headers = of(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("te", "gzip, trailers"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, of(&[("accept", "*/*"), ("te", "trailers")]));
    }

    #[test]
    fn each_proxy_adds_the_client_it_saw() {
        let mut headers = of(&[("x-forwarded-for", "10.0.0.1")]);
        forwarded_for(&mut headers, "::ffff:10.0.0.2".parse().unwrap());
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2");
    }

    #[test]
    fn a_token_among_the_subprotocols_is_not_passed_on() {
        let mut headers = of(&[(
            "sec-websocket-protocol",
            "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io",
        )]);
        without_bearer_protocol(&mut headers);
        assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    }
}
