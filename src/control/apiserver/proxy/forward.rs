//! The `proxy` subresource: any request to a node, pod or service, plain or upgraded
//! (`UpgradeAwareHandler.ServeHTTP`, `httputil.ReverseProxy`, `proxy.Transport`).
//!
//! The wire has what the name asked for: plain HTTP by default, with `https:` TLS to whoever answers. No
//! credential of the client's or of ours goes along, but the client certificate to a kubelet's own port.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::Body as _;

use super::links::Rewrite;
use super::location::{self, Target, service_unavailable};
use super::page;
use super::path::Path;
use super::streams::dialing;
use super::{Client, Proxy, Streamed, backend, headers, upgrade};
use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::kubelet::Backend;
use crate::net::{BoxStream, Records, TlsDialer};

const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Passes a request on.
pub async fn answer(call: &Call, client: Client) -> Result<Response> {
    let asked = call.asked();
    let namespaced = asked.resource != "nodes";
    if !METHODS.contains(&client.method) || namespaced == asked.namespace.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let target = location::find(&call.api.kubelets, asked).await?;
    // `/api/v1/namespaces/NS/pods/NAME/proxy`, `/api/v1/nodes/NAME/proxy`.
    let parts = if namespaced { 7 } else { 5 };
    let path = Path::below(client.uri.path(), parts, client.uri.query());
    if upgrade::is_wanted(&client.headers) {
        let request = request(&client, &path, headers::onward(&client))?;
        let stream = dial(call, &target).await.map_err(|error| dialing(&error))?;
        return upgrade::pass(stream, request, client, &call.api.proxy.museum.on(call.listener)).await;
    }
    if path.is_bare() && matches!(client.method, Method::GET | Method::HEAD) {
        return Ok(with_slash(&path));
    }
    forward(call, client, &target, &path).await
}

async fn forward(call: &Call, client: Client, target: &Target, path: &Path) -> Result<Response> {
    let mut onward = headers::onward(&client);
    headers::remove_hop_by_hop(&mut onward);
    if let Some(value) = path.forwarded() {
        onward.insert("x-forwarded-uri", value);
    }
    let host = onward.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if !client.body.is_end_stream() && client.body.size_hint().exact().is_none() {
        // A body whose length nobody said goes on in chunks, whatever the method: also with a GET.
        onward.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut request = request(&client, path, onward)?;
    *request.body_mut() = Body::new(client.body);
    let unreachable = |error| service_unavailable(format!("error trying to reach service: {error}"));
    let stream = dial(call, target).await.map_err(|error| unreachable(of_http(error)))?;
    let answer = backend::ask(stream, request).await.map_err(unreachable)?;
    let rewrite = Rewrite { path, backend: authority(target), host: &host };
    let (mut head, body) = answer.response.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    headers::remove_cors(&mut head.headers);
    headers::forbid_caching(&mut head.headers);
    let elsewhere = head.headers.get(header::LOCATION).map(|value| rewrite.link(value.as_bytes()));
    if let Some(Ok(own)) = elsewhere.map(|elsewhere| HeaderValue::from_bytes(&elsewhere)) {
        head.headers.insert(header::LOCATION, own);
    }
    head.version = http::Version::HTTP_11;
    let streamed = Streamed::new(body, answer.connection);
    let body = match page::is_page(&head.headers) && !streamed.is_end_stream() {
        true => page::rewritten(&mut head.headers, streamed, &rewrite).await.map_err(unreachable)?,
        false => Body::new(streamed),
    };
    Ok(Response::from_parts(head, body))
}

/// The way to a target. Errors are in Go's words.
async fn dial(call: &Call, target: &Target) -> std::result::Result<BoxStream, String> {
    let proxy = &call.api.proxy;
    match target {
        Target::Kubelet(location) => {
            let stream = call.api.kubelets.connect(location, Backend::AsConfigured).await;
            stream.map(|stream| Box::new(stream) as BoxStream).map_err(|error| error.to_string())
        }
        Target::Plaintext { host, port } => {
            proxy.road.dial(host, number(port)?).await.map_err(|error| error.to_string())
        }
        Target::TlsUnverified { host, port } => {
            let stream = proxy.blind().connect(host, number(port)?, None).await;
            stream.map(|stream| Box::new(Records(stream)) as BoxStream).map_err(|error| error.to_string())
        }
    }
}

impl Proxy {
    fn blind(&self) -> TlsDialer {
        TlsDialer { road: self.road.clone(), config: self.blind.clone() }
    }
}

fn number(port: &str) -> std::result::Result<u16, String> {
    port.parse().map_err(|_| match port.parse::<u64>() {
        Ok(_) => format!("dial tcp: address {port}: invalid port"),
        Err(_) if port.parse::<i64>().is_ok() => format!("dial tcp: address {port}: invalid port"),
        Err(_) => format!("dial tcp: lookup tcp/{port}: unknown port"),
    })
}

/// Go's HTTP client knows a plain answer on a TLS port when it sees one.
fn of_http(error: String) -> String {
    match error.as_str() {
        "tls: first record does not look like a TLS handshake" => {
            "http: server gave HTTP response to HTTPS client".into()
        }
        _ => error,
    }
}

/// `host:port` as a URL has it.
fn authority(target: &Target) -> String {
    match target {
        Target::Kubelet(location) => location.to_string(),
        Target::Plaintext { host, port } | Target::TlsUnverified { host, port } => match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        },
    }
}

fn request(client: &Client, path: &Path, headers: http::HeaderMap) -> Result<Request<Body>> {
    let invalid = |error: http::Error| Status::bad_request(error.to_string());
    let uri: Uri = path.backend().parse().map_err(|error: http::uri::InvalidUri| invalid(error.into()))?;
    let mut request =
        Request::builder().method(client.method.clone()).uri(uri).body(Body::empty()).map_err(invalid)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A page's relative links need the slash.
fn with_slash(path: &Path) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(value) = HeaderValue::from_str(&path.with_slash()) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}
