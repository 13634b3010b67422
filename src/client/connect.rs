//! The connection under every kube-rs client of ours.
//!
//! One HTTP/2 connection a role carries all its watches and writes, as client-go's does; it has
//! keepalive and a user timeout, verifies by the kubeconfig, and is left for a new one when the
//! credential files change (rotation).

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, Uri, header, uri};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::Client;
use kube::client::Body;
use tokio_rustls::client::TlsStream;
use tower::{BoxError, Service};
use tracing::{info, warn};

use super::kubeconfig::{Cluster, User};
use super::{Access, ClientError, Kubeconfig};
use crate::net::{BoxStream, DialError, Direct, Protocols, TlsDialer, client_config};

/// Where every pod has its account's token.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How often credential files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// An answer, or a watch, begins sooner. A pool that waits for a connection which nobody makes any more would
/// wait for ever: it is left for a new one.
const SILENCE: Duration = Duration::from_secs(30);

/// A client for the current context of a kubeconfig. Call it inside the role's runtime.
///
/// Rotated files (client certificate, key, token, CA, or the kubeconfig itself) are noticed at the next
/// request and from then on new connections are made with them.
pub fn from_kubeconfig(path: impl AsRef<Path>) -> Result<Client, ClientError> {
    let path = path.as_ref().to_owned();
    rotating(move || Access::read(&path))
}

/// A client for a pod: the service's address from the environment, the account's token and CA from the
/// files every pod is given; the token is read again when the kubelet renews it.
pub fn in_cluster() -> Result<Client, ClientError> {
    in_cluster_trusting(Some(&Path::new(ACCOUNT).join("ca.crt")))
}

/// The same with a CA of the caller's choice.
///
/// # Warning
/// Without one, whoever answers at the service's address is shown the token. The safe sibling is [`in_cluster`].
pub fn in_cluster_trusting(ca: Option<&Path>) -> Result<Client, ClientError> {
    let of = |name: &str| std::env::var(name).map_err(|_| ClientError::NotInCluster);
    let (host, port) = (of("KUBERNETES_SERVICE_HOST")?, of("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let cluster = Cluster {
        server: format!("https://{host}:{port}"),
        certificate_authority: ca.map(|ca| ca.display().to_string()),
        insecure_skip_tls_verify: ca.is_none(),
        ..Cluster::default()
    };
    let user = User { token_file: Some(format!("{ACCOUNT}/token")), ..User::default() };
    let kubeconfig = Kubeconfig::single("in-cluster", "in-cluster", "in-cluster", cluster, user);
    rotating(move || kubeconfig.access(Path::new("")))
}

fn rotating(
    read: impl Fn() -> Result<Access, ClientError> + Send + Sync + 'static,
) -> Result<Client, ClientError> {
    let access = read()?;
    let namespace = access.namespace.clone();
    let state = State { current: Arc::new(Link::new(access)?), looked: Instant::now() };
    Ok(Client::new(Rotating { read: Arc::new(read), state: Arc::new(Mutex::new(state)) }, namespace))
}

/// A client that never changes: for what comes from no file.
pub fn from_parts(access: Access) -> Result<Client, ClientError> {
    rotating(move || Ok(access.clone()))
}

/// One set of credentials and the connections made with it.
struct Link {
    http: HyperClient<Connector, Body>,
    base: Uri,
    bearer: Option<HeaderValue>,
    access: Access,
}

impl Link {
    fn new(access: Access) -> Result<Self, ClientError> {
        let base: Uri = access.server.parse().map_err(|_| ClientError::Server(access.server.clone()))?;
        if base.host().is_none() || base.scheme() != Some(&uri::Scheme::HTTPS) {
            return Err(ClientError::Server(access.server));
        }
        let config = client_config(&access.verify, access.identity.as_ref(), Protocols::H2)?;
        let dialer = TlsDialer { road: Arc::new(Direct), config };
        let connector = Connector { dialer, name: access.tls_server_name.clone() };
        let bearer = access.token.as_ref().and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        // With HTTP/2 alone the pool makes one connection and lets everybody else wait for it.
        let http = HyperClient::builder(TokioExecutor::new())
            .http2_only(true)
            .http2_initial_stream_window_size(1 << 20)
            .http2_initial_connection_window_size(8 << 20)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // As client-go: a peer that says nothing for this long is asked, and given up.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_keep_alive_timeout(Duration::from_secs(15))
            .build(connector);
        Ok(Self { http, base, bearer, access })
    }

    /// The request as it goes out: absolute, with our token.
    fn address(&self, request: Request<Body>) -> Result<Request<Body>, http::Error> {
        let (mut parts, body) = request.into_parts();
        let below = self.base.path().trim_end_matches('/');
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = Uri::builder()
            .scheme(uri::Scheme::HTTPS)
            .authority(self.base.authority().map_or("", |authority| authority.as_str()))
            .path_and_query(format!("{below}{path}"))
            .build()?;
        if let Some(bearer) = &self.bearer {
            parts.headers.entry(header::AUTHORIZATION).or_insert_with(|| bearer.clone());
        }
        parts.headers.entry(header::USER_AGENT).or_insert_with(agent);
        Ok(Request::from_parts(parts, body))
    }
}

/// The component's name and version: the API server keeps it as the manager of what this client writes.
fn agent() -> HeaderValue {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or("minilab").to_owned();
    HeaderValue::try_from(format!("{name}/v1.36.2 (linux) kubernetes/minilab"))
        .unwrap_or(HeaderValue::from_static("minilab"))
}

struct State {
    current: Arc<Link>,
    looked: Instant,
}

/// Picks the newest credentials for each request.
#[derive(Clone)]
struct Rotating {
    read: Arc<dyn Fn() -> Result<Access, ClientError> + Send + Sync>,
    state: Arc<Mutex<State>>,
}

impl Rotating {
    fn link(&self) -> Arc<Link> {
        let mut state = self.state.lock().expect("nothing panics while holding the lock");
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            if state.current.access.is_stale() {
                match (self.read)().and_then(Link::new) {
                    Ok(link) => {
                        info!(
                            "Certificate rotation detected, shutting down client connections to start using new credentials"
                        );
                        state.current = Arc::new(link);
                    }
                    // Caught between two files being written; the old ones still work.
                    Err(error) => warn!(%error, "Credentials changed but cannot be used yet"),
                }
            }
        }
        Arc::clone(&state.current)
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Incoming>, BoxError>> + Send>>;

impl Service<Request<Body>> for Rotating {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let (link, state) = (self.link(), Arc::clone(&self.state));
        Box::pin(async move {
            let request = link.address(request)?;
            // One request makes the connection that all wait for. It must be driven even while nobody polls
            // whoever asked first: a watch whose reader waits for an answer to something else.
            let http = link.http.clone();
            let driven = Driven(tokio::spawn(async move { http.request(request).await }));
            match tokio::time::timeout(SILENCE, driven).await {
                Ok(answer) => Ok(answer??),
                Err(_) => {
                    let mut state = state.lock().expect("nothing panics while holding the lock");
                    if Arc::ptr_eq(&state.current, &link) {
                        state.current = Arc::new(Link::new(link.access.clone())?);
                    }
                    Err("no answer from the API server".into())
                }
            }
        })
    }
}

/// A request on a task of its own, which ends when nobody wants the answer any more.
struct Driven<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Driven<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Driven<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes verified connections for hyper's pool.
#[derive(Clone)]
struct Connector {
    dialer: TlsDialer,
    name: Option<String>,
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let host = target.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = target.port_u16().unwrap_or(443);
            let stream = this.dialer.connect(&host, port, this.name.as_deref()).await?;
            Ok(Wire(TokioIo::new(stream)))
        })
    }
}

/// A TLS connection as hyper's pool wants it.
struct Wire(TokioIo<TlsStream<BoxStream>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<Result<(), std::io::Error>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::kubeconfig::{Cluster, Kubeconfig, User};
    use crate::net::{Identity, Peer, Server, ServingCert, go_text};
    use crate::pki::{Authority, LeafSpec};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use tokio_util::sync::CancellationToken;

    /// A server that answers every request with a ConfigMap holding the client certificate's name.
    async fn server(ca: &Authority, host: &str) -> (std::net::SocketAddr, CancellationToken) {
        let ips: Vec<std::net::IpAddr> = host.parse().into_iter().collect();
        let issued = ca.issue(&LeafSpec::server("kube-apiserver", &["kubernetes"], &ips)).unwrap();
        let identity = Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() };
        let cert = ServingCert::new(&identity).unwrap();
        let listener = crate::net::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let whoami = axum::Router::new().fallback(|request: axum::extract::Request| async move {
            let peer = request.extensions().get::<Peer>().unwrap();
            let name = crate::pki::Facts::from_der(&peer.certificates[0]).unwrap().cn;
            axum::Json(
                serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}),
            )
        });
        let server = Server::new(cert, Protocols::H2AndH1, "secure").unwrap();
        tokio::spawn(server.serve(listener, whoami, stop.clone()));
        (address, stop)
    }

    fn client(trusted: &Authority, signer: &Authority, address: std::net::SocketAddr) -> Client {
        let issued = signer.issue(&LeafSpec::client("system:kube-scheduler", &[])).unwrap();
        let cluster = Cluster {
            server: format!("https://{address}"),
            certificate_authority_data: Some(STANDARD.encode(trusted.cert_pem())),
            ..Cluster::default()
        };
        let user = User {
            client_certificate_data: Some(STANDARD.encode(issued.cert_pem)),
            client_key_data: Some(STANDARD.encode(issued.key_pem)),
            ..User::default()
        };
        let file = Kubeconfig::single("a", "b", "c", cluster, user);
        from_parts(file.access(Path::new("")).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_client_is_known_by_its_certificate_over_http2() {
        let ca = Authority::new("kubernetes").unwrap();
        let (address, _stop) = server(&ca, "127.0.0.1").await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client(&ca, &ca, address));
        assert_eq!(maps.get("any").await.unwrap().metadata.name.as_deref(), Some("system:kube-scheduler"));
    }

    #[tokio::test]
    async fn a_server_of_another_authority_is_refused_in_gos_words() {
        let (ca, fake) = (Authority::new("kubernetes").unwrap(), Authority::new("fake").unwrap());
        let (address, _stop) = server(&fake, "127.0.0.1").await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client(&ca, &ca, address));
        let error = maps.get("any").await.unwrap_err();
        assert_eq!(
            go_text(&error),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        );
    }

    #[tokio::test]
    async fn the_name_is_checked_before_the_chain_and_a_refused_port_says_so() {
        let (ca, fake) = (Authority::new("kubernetes").unwrap(), Authority::new("fake").unwrap());
        let (address, stop) = server(&fake, "none").await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client(&ca, &ca, address));
        assert_eq!(
            go_text(&maps.get("any").await.unwrap_err()),
            "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it \
             doesn't contain any IP SANs"
        );
        stop.cancel();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let maps: Api<ConfigMap> = Api::default_namespaced(client(&ca, &ca, free));
        let text = go_text(&maps.get("any").await.unwrap_err());
        assert_eq!(text, format!("dial tcp {free}: connect: connection refused"));
    }
}
