//! A kubelet of our own making at the other end of a real connection.

use axum::extract::Request;
use axum::http::StatusCode;
use clap::Parser;
use http_body_util::BodyExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::control::apiserver::authn::tests::put;
use crate::control::apiserver::request::Query;
use crate::net::{Direct, Identity, Protocols, Server, ServingCert};
use crate::pki::{Authority, LeafSpec};

struct World {
    dir: tempfile::TempDir,
    store: Store,
    ca: Authority,
    stop: CancellationToken,
    port: u16,
}

/// A kubelet that answers with the path it was asked, and 401 to whoever asks for `denied`.
async fn kubelet(cert: ServingCert, stop: CancellationToken) -> u16 {
    let listener = crate::net::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().fallback(|request: Request| async move {
        match request.uri().path().ends_with("/denied") {
            true => (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
            false => (StatusCode::OK, request.uri().to_string()),
        }
    });
    tokio::spawn(Server::new(cert, Protocols::H2AndH1, "kubelet").unwrap().serve(listener, app, stop));
    port
}

async fn world(cert: impl Fn(&Authority) -> ServingCert) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let ca = Authority::new("kubernetes").unwrap();
    let stop = CancellationToken::new();
    let port = kubelet(cert(&ca), stop.clone()).await;
    let node = json!({
        "metadata": {"name": "node-1"},
        "status": {
            "addresses": [{"type": "Hostname", "address": "node-1"}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    });
    let pod = |name: &str, containers: serde_json::Value| json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"nodeName": "node-1", "containers": containers}});
    put(&store, "", "nodes", node).await;
    put(&store, "", "pods", pod("web", json!([{"name": "web"}]))).await;
    put(&store, "", "pods", pod("two", json!([{"name": "a"}, {"name": "b"}]))).await;
    put(&store, "", "pods", pod("shy", json!([{"name": "denied"}]))).await;
    World { dir, store, ca, stop, port }
}

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    flags: KubeletFlags,
}

impl World {
    fn client(&self, verified: bool) -> KubeletClient {
        let path = self.dir.path().join("ca.crt");
        std::fs::write(&path, self.ca.cert_pem()).unwrap();
        let authority = format!("--kubelet-certificate-authority={}", path.display());
        let types = "--kubelet-preferred-address-types=InternalIP,Hostname";
        let flags =
            Only::parse_from(["x", types].into_iter().chain(verified.then_some(authority.as_str()))).flags;
        flags.build(self.store.clone(), Arc::new(Direct)).unwrap()
    }

    async fn log(&self, verified: bool, pod: &str, query: &str) -> std::result::Result<String, Status> {
        let response = self.client(verified).log("default", pod, &Query::parse(Some(query))).await?;
        Ok(String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }
}

fn own_pair(_: &Authority) -> ServingCert {
    let pair = crate::pki::self_signed_serving("node-1").unwrap();
    ServingCert::new(&Identity { cert_pem: pair.cert_pem.into(), key_pem: pair.key_pem.into() }).unwrap()
}

fn signed(ca: &Authority) -> ServingCert {
    let pair = ca
        .issue(&LeafSpec::server("system:node:node-1", &["node-1"], &["127.0.0.1".parse().unwrap()]))
        .unwrap();
    ServingCert::new(&Identity { cert_pem: pair.cert_pem.into(), key_pem: pair.key_pem.into() }).unwrap()
}

#[tokio::test]
async fn without_an_authority_any_kubelet_is_believed_and_the_query_goes_along() {
    let world = world(own_pair).await;
    let path = world.log(false, "web", "follow=true&tailLines=5&container=web&pretty=1").await.unwrap();
    assert_eq!(path, "/containerLogs/default/web/web?follow=true&tailLines=5");
}

#[tokio::test]
async fn with_an_authority_a_self_signed_kubelet_is_refused_in_gos_words() {
    let world = world(own_pair).await;
    let status = world.log(true, "web", "").await.unwrap_err();
    assert_eq!((status.code, status.reason), (500, ""));
    assert_eq!(
        status.message,
        format!(
            "Get \"https://127.0.0.1:{}/containerLogs/default/web/web\": tls: failed to verify certificate: x509: \
             cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
            world.port
        )
    );
    let skipped = world.log(true, "web", "insecureSkipTLSVerifyBackend=true").await.unwrap();
    assert_eq!(skipped, "/containerLogs/default/web/web");
}

#[tokio::test]
async fn with_an_authority_and_its_certificate_logs_arrive() {
    let world = world(signed).await;
    assert_eq!(world.log(true, "web", "").await.unwrap(), "/containerLogs/default/web/web");
}

#[tokio::test]
async fn a_kubelet_without_a_certificate_yet_says_internal_error() {
    let world = world(|_| ServingCert::pending()).await;
    let status = world.log(false, "web", "").await.unwrap_err();
    assert!(status.message.ends_with("remote error: tls: internal error"), "{}", status.message);
}

#[tokio::test]
async fn wrong_questions_and_refusals_read_as_upstreams() {
    let world = world(own_pair).await;
    let said = async |pod: &str, query: &str| world.log(false, pod, query).await.unwrap_err().message;
    assert_eq!(said("two", "").await, "a container name must be specified for pod two, choose one of: [a b]");
    assert_eq!(said("two", "container=c").await, "container c is not valid for pod two");
    assert_eq!(said("gone", "").await, "pods \"gone\" not found");
    assert_eq!(
        said("shy", "").await,
        "the server has asked for the client to provide credentials ( pods/log shy)"
    );
    world.stop.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let refused = said("web", "").await;
    assert!(
        refused.ends_with(&format!("dial tcp 127.0.0.1:{}: connect: connection refused", world.port)),
        "{refused}"
    );
}
