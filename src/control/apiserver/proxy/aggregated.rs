//! Passing a request on to an aggregated API server (`kube-aggregator/pkg/apiserver/handler_proxy.go`).
//!
//! The server believes the front proxy's certificate and reads in headers who asks; the client's own credential
//! never goes along.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Client, Streamed, backend, headers, upgrade};
use crate::api::status::{Result, Status};
use crate::control::apiserver::aggregate::Remote;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::respond;
use crate::control::apiserver::user::UserInfo;
use crate::net::TlsDialer;

/// Longer discovery documents are refused.
const LONGEST_DOCUMENT: usize = 8 * 1024 * 1024;

/// Passes an authorized request on.
pub async fn answer(call: &Call, remote: &Remote, client: Client) -> Response {
    if !remote.available {
        return plainly(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    let dialer = match remote.dialer(&call.api) {
        Ok(dialer) => dialer,
        Err(why) => return plainly(StatusCode::INTERNAL_SERVER_ERROR, &why),
    };
    match passed(call, remote, &dialer, client).await {
        Ok(response) => response,
        Err(status) => plainly(StatusCode::SERVICE_UNAVAILABLE, &status.message),
    }
}

/// `http.Error`: plain text.
fn plainly(code: StatusCode, text: &str) -> Response {
    respond::text(code, format!("{text}\n"))
}

async fn passed(call: &Call, remote: &Remote, dialer: &TlsDialer, client: Client) -> Result<Response> {
    let unreachable = |why: String| Status::internal(format!("error trying to reach service: {why}"));
    let upgrading = upgrade::is_wanted(&client.headers);
    let mut onward = headers::onward(&client);
    if !upgrading {
        headers::remove_hop_by_hop(&mut onward);
    }
    speak_for(&mut onward, &call.user);
    host(&mut onward, remote);
    let path = match &remote.described {
        Some(place) if client.uri.path().starts_with("/openapi/") => place.as_str(),
        _ => client.uri.path_and_query().map_or("/", |asked| asked.as_str()),
    };
    let mut request = Request::builder()
        .method(client.method.clone())
        .uri(path)
        .body(Body::empty())
        .map_err(|error| Status::bad_request(error.to_string()))?;
    *request.headers_mut() = onward;
    let stream =
        dialer.connect(&remote.host(), 443, None).await.map_err(|error| unreachable(error.to_string()))?;
    if upgrading {
        return upgrade::pass(stream, request, client, &call.api.proxy.museum.on(call.listener)).await;
    }
    *request.body_mut() = Body::new(client.body);
    let answer = backend::ask(stream, request).await.map_err(unreachable)?;
    let (mut head, body) = answer.response.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    headers::remove_cors(&mut head.headers);
    head.version = http::Version::HTTP_11;
    Ok(Response::from_parts(head, Body::new(Streamed::new(body, answer.connection))))
}

/// One document of a server's, as somebody.
///
/// # Errors
/// In Go's words.
pub async fn get(
    dialer: &TlsDialer,
    remote: &Remote,
    path: &str,
    asker: (&str, &str),
) -> std::result::Result<(u16, Value), String> {
    let mut request = Request::builder().uri(path).body(Body::empty()).map_err(|error| error.to_string())?;
    let user = UserInfo { name: asker.0.into(), groups: vec![asker.1.into()], ..UserInfo::default() };
    speak_for(request.headers_mut(), &user);
    host(request.headers_mut(), remote);
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let failed = |why: String| format!("Get \"https://{}:{}{path}\": {why}", remote.host(), remote.port);
    let stream =
        dialer.connect(&remote.host(), 443, None).await.map_err(|error| failed(error.to_string()))?;
    let answer = backend::ask(stream, request).await.map_err(failed)?;
    let code = answer.response.status().as_u16();
    let body = Limited::new(answer.response.into_body(), LONGEST_DOCUMENT).collect().await;
    let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
    Ok((code, serde_json::from_slice(&body).unwrap_or_default()))
}

fn host(headers: &mut HeaderMap, remote: &Remote) {
    if let Ok(value) = HeaderValue::from_str(&format!("{}:{}", remote.host(), remote.port)) {
        headers.insert(header::HOST, value);
    }
}

/// Says who asks (`transport.SetAuthProxyHeaders`); what the client said of that does not go on.
fn speak_for(headers: &mut HeaderMap, user: &UserInfo) {
    let theirs: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    theirs.into_iter().for_each(|name| drop(headers.remove(name)));
    let mut say = |name: &str, value: &str| {
        let name = HeaderName::try_from(name.to_ascii_lowercase());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    say("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        say("x-remote-uid", &user.uid);
    }
    user.groups.iter().for_each(|group| say("x-remote-group", group));
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        values.iter().for_each(|value| say(&name, value));
    }
}

/// A key as a header's name may have it (`headerKeyEscape`).
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'%' => text += "%25",
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
            | b'~' => {
                text.push(byte as char);
            }
            byte if byte.is_ascii_alphanumeric() => text.push(byte as char),
            byte => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_named_by_us_alone() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scope", HeaderValue::from_static("all"));
        let extra = [("a.io/b".to_owned(), vec!["1".to_owned(), "2".to_owned()])].into();
        let user =
            UserInfo { name: "jane".into(), groups: vec!["devs".into()], extra, ..UserInfo::default() };
        speak_for(&mut headers, &user);
        assert_eq!(headers["x-remote-user"], "jane");
        assert_eq!(headers.get_all("x-remote-extra-a.io%2fb").iter().count(), 2);
        assert!(headers.get("x-remote-extra-scope").is_none());
    }
}
