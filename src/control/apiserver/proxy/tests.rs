//! Real clients, this server and a kubelet of our own making, over real TLS on both sides.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};
use tokio_util::sync::CancellationToken;

use super::museum::{Exhibit, Museum};
use super::streams::Streams;
use super::*;
use crate::control::apiserver::authn::tests::put;
use crate::control::apiserver::features::FeatureFlags;
use crate::control::apiserver::kubelet::{KubeletClient, KubeletFlags};
use crate::control::apiserver::request::Query;
use crate::control::store::Store;
use crate::net::{BoxStream, Direct, Identity, Server, ServingCert, TlsDialer};
use crate::pki::{Authority, Issued, LeafSpec};
use crate::stream::{portforward, remotecommand};

const NO_IP: &str = "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because \
                     it doesn't contain any IP SANs";
const OTHER_IP: &str =
    "tls: failed to verify certificate: x509: certificate is valid for 127.0.0.2, not 127.0.0.1";
const STRANGER: &str = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
const PENDING: &str = "remote error: tls: internal error";

/// What a kubelet serves with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cert {
    /// The default: signed by itself, with its host name alone.
    Own,
    /// Its request was not approved yet.
    Pending,
    /// By the right authority, for another address.
    Other,
    /// By the right authority, for a name alone.
    NameOnly,
    /// By another authority, for the right address.
    Stranger,
    Good,
}

fn cert(kind: Cert, ca: &Authority) -> ServingCert {
    let issue = |ca: &Authority, ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        ca.issue(&LeafSpec::server("system:node:node-1", &["node-1"], &ips)).unwrap()
    };
    let pair: Issued = match kind {
        Cert::Pending => return ServingCert::pending(),
        Cert::Own => crate::pki::self_signed_serving("node-1").unwrap(),
        Cert::Other => issue(ca, &["127.0.0.2"]),
        Cert::NameOnly => issue(ca, &[]),
        Cert::Stranger => issue(&Authority::new("stranger").unwrap(), &["127.0.0.1"]),
        Cert::Good => issue(ca, &["127.0.0.1"]),
    };
    ServingCert::new(&Identity { cert_pem: pair.cert_pem.into(), key_pem: pair.key_pem.into() }).unwrap()
}

struct Serving<'a>(&'a AtomicUsize);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A kubelet whose commands repeat their input, or end at once with the code that is their name.
async fn kubelet(
    request: Request<Incoming>,
    serving: Arc<AtomicUsize>,
) -> std::result::Result<Response, Infallible> {
    let (mut parts, _) = request.into_parts();
    let plain = |code: StatusCode, text: String| Ok(respond::text(code, text));
    let path = parts.uri.path().to_owned();
    if path.contains("/moved") {
        let moved = respond::text(StatusCode::FOUND, "");
        return Ok(respond::header(moved, header::LOCATION, "https://elsewhere/exec"));
    }
    if path.contains("/denied") {
        return plain(StatusCode::FORBIDDEN, "Forbidden (user=x, verb=create)".into());
    }
    if !upgrade::is_wanted(&parts.headers) {
        return plain(StatusCode::OK, format!("{} {}", parts.method, parts.uri));
    }
    let upgraded = parts.extensions.remove::<OnUpgrade>().unwrap();
    if path.starts_with("/portForward") {
        let negotiated = portforward::negotiate(&parts).unwrap();
        let response = negotiated.response().map(|()| axum::body::Body::empty());
        let target = portforward::Target { pod: "web".into(), uid: String::new() };
        tokio::spawn(async move {
            let io = TokioIo::new(upgraded.await.unwrap());
            let connect =
                |_: u16| async { std::result::Result::<tokio::io::DuplexStream, String>::Ok(echo()) };
            let _ = negotiated.serve(io, target, connect).await;
        });
        return Ok(response);
    }
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let options = match remotecommand::Options::from_query(&query) {
        Ok(options) => options,
        Err(refusal) => return Ok(refusal.response()),
    };
    let negotiated = remotecommand::negotiate(&parts).unwrap();
    let response = negotiated.response().map(|()| axum::body::Body::empty());
    tokio::spawn(async move {
        serving.fetch_add(1, Ordering::SeqCst);
        let _serving = Serving(&serving);
        let Ok(io) = upgraded.await else { return };
        let mut streams = negotiated.serve(TokioIo::new(io), options).await.unwrap();
        let code = query.split('&').find_map(|pair| pair.strip_prefix("command=")?.parse().ok());
        if let (None, Some(mut from), Some(to)) = (code, streams.stdin.take(), streams.stdout.as_mut()) {
            tokio::select! {
                _ = tokio::io::copy(&mut from, to) => {}
                () = streams.closed.cancelled() => return,
            }
        }
        streams.finish(remotecommand::Outcome::exited(code.unwrap_or(0), &["x".to_owned()])).await;
    });
    Ok(response)
}

fn echo() -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(far);
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    near
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    kubelet: KubeletFlags,
    #[command(flatten)]
    features: FeatureFlags,
}

/// What a test may choose.
#[derive(Clone)]
struct Choice {
    cert: Cert,
    verified: bool,
    declares: bool,
    museum: Vec<Exhibit>,
}

impl Default for Choice {
    fn default() -> Self {
        Self { cert: Cert::Good, verified: true, declares: true, museum: Vec::new() }
    }
}

struct World {
    _dir: tempfile::TempDir,
    kubelets: KubeletClient,
    /// The kubelet's port and this server's.
    port: u16,
    api: u16,
    serving: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listen<S>(cert: ServingCert, stop: &CancellationToken, service: S) -> u16
where
    S: tower::Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let listener = crate::net::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::new(cert, Protocols::H2AndH1, "secure").unwrap();
    tokio::spawn(server.serve(listener, service, stop.clone()));
    port
}

async fn world(choice: Choice) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let (ca, stop, serving) =
        (Authority::new("kubernetes").unwrap(), CancellationToken::new(), Arc::default());
    let count: Arc<AtomicUsize> = Arc::clone(&serving);
    let service = tower::service_fn(move |request| kubelet(request, Arc::clone(&count)));
    let port = listen(cert(choice.cert, &ca), &stop, service).await;
    fill(&store, port, choice.declares).await;
    let file = dir.path().join("ca.crt");
    std::fs::write(&file, ca.cert_pem()).unwrap();
    let mut argv = vec!["x".to_owned(), "--kubelet-preferred-address-types=InternalIP".to_owned()];
    if choice.verified {
        argv.push(format!("--kubelet-certificate-authority={}", file.display()));
    }
    let flags = Flags::parse_from(argv);
    let kubelets = flags.kubelet.build(store, Arc::new(Direct)).unwrap();
    let (features, reach) = (flags.features.build(), kubelets.clone());
    let museum = MuseumFlags { minilab_museum: choice.museum };
    let service = tower::service_fn(move |request| {
        let (kubelets, features, museum) = (reach.clone(), features.clone(), museum.on("secure"));
        async move { Ok(serve(kubelets, features, museum, request).await) }
    });
    let api = listen(cert(Cert::Good, &ca), &stop, service).await;
    World { _dir: dir, kubelets, port, api, serving, stop }
}

async fn fill(store: &Store, port: u16, declares: bool) {
    let mut node = json!({
        "metadata": {"name": "node-1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    });
    if declares {
        node["status"]["declaredFeatures"] = json!(["ExtendWebSocketsToKubelet"]);
    }
    put(store, "", "nodes", node).await;
    for (name, containers) in
        [("web", &["web"][..]), ("two", &["a", "b"]), ("moved", &["moved"]), ("denied", &["denied"])]
    {
        let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
        let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
            "nodeName": "node-1", "containers": containers, "initContainers": [{"name": "init"}],
            "ephemeralContainers": [{"name": "debug"}]}});
        put(store, "", "pods", pod).await;
    }
    let waits = json!({"metadata": {"name": "waits", "namespace": "default"}, "spec": {"containers": [{"name": "a"}]}});
    put(store, "", "pods", waits).await;
}

/// What the chain does around the streams, without its doors.
async fn serve(
    kubelets: KubeletClient,
    features: Features,
    museum: Museum,
    request: Request<Incoming>,
) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let request = match museum::pipelined(peer.as_ref(), request).await {
        Ok(answered) => return answered,
        Err(request) => request,
    };
    let (mut head, body) = request.into_parts();
    let query = Query::parse(head.uri.query());
    let info = RequestInfo::parse(&head.method, head.uri.path(), &query);
    let upgrade = head.extensions.remove();
    let client = Client { method: head.method, uri: head.uri, headers: head.headers, body, upgrade, peer };
    let commands = commands::Commands::default();
    let streams = Streams { kubelets: &kubelets, features: &features, museum, commands: &commands };
    let answer = streams.answer(info.resource.as_ref().unwrap(), &query, client).await;
    answer.unwrap_or_else(|status| respond::failure(&status))
}

/// What a client learned.
#[derive(Debug, PartialEq)]
enum Learned {
    Worked,
    /// A Status before any upgrade.
    Status(u16, String),
    /// A message on the error channel.
    Channel(String),
}

impl World {
    async fn dial(&self) -> BoxStream {
        let config = client_config(&Verify::Unverified, None, Protocols::H1).unwrap();
        let dialer = TlsDialer { road: Arc::new(Direct), config };
        Box::new(dialer.connect("127.0.0.1", self.api, None).await.unwrap())
    }

    fn path(pod: &str, what: &str) -> String {
        format!("/api/v1/namespaces/default/pods/{pod}/{what}")
    }

    /// A WebSocket as kubectl opens one.
    async fn websocket(
        &self,
        path: &str,
        protocol: &str,
    ) -> std::result::Result<tokio_tungstenite::WebSocketStream<BoxStream>, Learned> {
        let mut request = format!("wss://127.0.0.1:{}{path}", self.api).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        match tokio_tungstenite::client_async(request, self.dial().await).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let text = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
                Err(learned(response.status().as_u16(), &text))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn exec_by_websocket(&self, pod: &str, protocol: &str) -> Learned {
        let path = Self::path(pod, "exec?command=0&stdout=true&stdin=true");
        let mut socket = match self.websocket(&path, protocol).await {
            Ok(socket) => socket,
            Err(learned) => return learned,
        };
        let mut outcome = Value::Null;
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(bytes) if bytes.first() == Some(&3) => {
                    outcome = serde_json::from_slice(&bytes[1..]).unwrap();
                }
                Message::Close(close) => {
                    assert_eq!(close.map(|frame| u16::from(frame.code)), Some(1000));
                }
                _ => {}
            }
        }
        match outcome["status"].as_str() {
            Some("Success") => Learned::Worked,
            _ => Learned::Channel(outcome["message"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// An upgrade by POST, as kubectl falls back to.
    async fn by_spdy(&self, path: &str, protocol: &str) -> Learned {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.dial().await)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::post(path)
            .header(header::HOST, "127.0.0.1")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "SPDY/3.1")
            .header("X-Stream-Protocol-Version", protocol)
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Learned::Worked;
        }
        let code = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        learned(code, &String::from_utf8_lossy(&text))
    }

    async fn logs(&self) -> Learned {
        match self.kubelets.log("default", "web", &Query::default()).await {
            Ok(_) => Learned::Worked,
            Err(status) => Learned::Status(status.code, status.message),
        }
    }
}

fn learned(code: u16, body: &str) -> Learned {
    let status: Value = serde_json::from_str(body).unwrap_or_default();
    Learned::Status(code, status["message"].as_str().unwrap_or(body).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_serving_certificate_gives_its_text_in_each_shape() {
    let table = [
        (Cert::Own, false, None),
        (Cert::Own, true, Some(NO_IP)),
        (Cert::Pending, false, Some(PENDING)),
        (Cert::Pending, true, Some(PENDING)),
        (Cert::Other, false, None),
        (Cert::Other, true, Some(OTHER_IP)),
        (Cert::NameOnly, false, None),
        (Cert::NameOnly, true, Some(NO_IP)),
        (Cert::Stranger, false, None),
        (Cert::Stranger, true, Some(STRANGER)),
        (Cert::Good, false, None),
        (Cert::Good, true, None),
    ];
    for (cert, verified, text) in table {
        for declares in [true, false] {
            check(&world(Choice { cert, verified, declares, ..Choice::default() }).await, declares, text)
                .await
                .unwrap_or_else(|why| panic!("{cert:?}, authority {verified}, declared {declares}: {why}"));
        }
    }
}

/// Every verb and every shape against one kubelet; `text` is what TLS has against it.
async fn check(world: &World, declares: bool, text: Option<&str>) -> std::result::Result<(), String> {
    let host = format!("https://127.0.0.1:{}", world.port);
    let expect = |shape: &dyn Fn(&str) -> Learned| text.map_or(Learned::Worked, shape);
    let dialing = |text: &str| Learned::Status(500, format!("error dialing backend: {text}"));
    let translated = |text: &str| {
        let url = format!("{host}/exec/default/web/web?command=0&input=1&output=1");
        Learned::Channel(format!("Internal error occurred: error sending request: Post {url:?}: {text}"))
    };
    let logs =
        |text: &str| Learned::Status(500, format!("Get \"{host}/containerLogs/default/web/web\": {text}"));
    let by_websocket: &dyn Fn(&str) -> Learned = if declares { &dialing } else { &translated };
    let tunnel = world.websocket(&World::path("web", "portforward"), "SPDY/3.1+portforward.k8s.io").await;
    let results = [
        ("logs", world.logs().await, expect(&logs)),
        ("exec v5", world.exec_by_websocket("web", "v5.channel.k8s.io").await, expect(by_websocket)),
        ("exec v4", world.exec_by_websocket("web", "v4.channel.k8s.io").await, expect(&dialing)),
        (
            "attach SPDY",
            world.by_spdy(&World::path("web", "attach?stdout=1"), "v4.channel.k8s.io").await,
            expect(&dialing),
        ),
        (
            "exec SPDY",
            world.by_spdy(&World::path("web", "exec?command=0&stdout=1"), "v4.channel.k8s.io").await,
            expect(&dialing),
        ),
        (
            "port-forward SPDY",
            world.by_spdy(&World::path("web", "portforward"), "portforward.k8s.io").await,
            expect(&dialing),
        ),
        ("port-forward tunnel", tunnel.map_or_else(|learned| learned, |_| Learned::Worked), expect(&dialing)),
    ];
    for (what, got, want) in results {
        if got != want {
            return Err(format!("{what}: got {got:?}, want {want:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_are_answered_before_any_kubelet_is_asked() {
    let world = world(Choice::default()).await;
    for (path, code, message) in [
        (
            "two/exec?command=x",
            400,
            "a container name must be specified for pod two, choose one of: [a b] or one of the init containers: [init]",
        ),
        ("two/exec?command=x&container=c", 400, "container c is not valid for pod two"),
        ("waits/exec?command=x", 400, "pod waits does not have a host assigned"),
        ("waits/portforward", 400, "pod waits does not have a host assigned"),
        ("gone/attach", 404, "pods \"gone\" not found"),
        ("web/portforward?ports=http", 400, "strconv.ParseInt: parsing \"http\": invalid syntax"),
    ] {
        let (pod, what) = path.split_once('/').unwrap();
        let got = world.by_spdy(&World::path(pod, what), "v4.channel.k8s.io").await;
        assert_eq!(got, Learned::Status(code, message.into()), "{path}");
    }
    for container in ["init", "debug"] {
        let path = World::path("two", &format!("exec?command=0&stdout=1&container={container}"));
        assert_eq!(world.by_spdy(&path, "v4.channel.k8s.io").await, Learned::Worked, "{container}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelets_refusal_reaches_the_client_in_each_shape() {
    let forbidden = "Forbidden (user=x, verb=create)";
    let spdy = world(Choice::default()).await;
    let path = World::path("denied", "exec?command=0&stdout=1");
    assert_eq!(spdy.by_spdy(&path, "v4.channel.k8s.io").await, Learned::Status(403, forbidden.into()));
    let translating = world(Choice { declares: false, ..Choice::default() }).await;
    assert_eq!(
        translating.exec_by_websocket("denied", "v5.channel.k8s.io").await,
        Learned::Channel(format!("Internal error occurred: unable to upgrade connection: {forbidden}")),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_never_passed_on_but_by_the_museum() {
    let world_now = world(Choice::default()).await;
    let path = World::path("moved", "exec?command=0&stdout=1");
    let got = world_now.by_spdy(&path, "v4.channel.k8s.io").await;
    assert_eq!(got, Learned::Status(500, "invalid upgrade response: status code 302".into()));
    let translating = world(Choice { declares: false, ..Choice::default() }).await;
    assert_eq!(
        translating.exec_by_websocket("moved", "v5.channel.k8s.io").await,
        Learned::Channel("Internal error occurred: error sending request: Post \"https://elsewhere/exec\": redirect not allowed".into()),
    );
    let then = world(Choice { museum: vec![Exhibit::Redirects], ..Choice::default() }).await;
    assert_eq!(then.by_spdy(&path, "v4.channel.k8s.io").await, Learned::Status(302, String::new()));
}

/// Sends one request on a connection and reads one answer, head and body.
async fn raw(stream: &mut BoxStream, head: &str) -> String {
    if stream.write_all(head.as_bytes()).await.is_err() {
        return String::new();
    }
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    loop {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.unwrap();
        match read {
            Ok(0) | Err(_) => return text,
            Ok(size) => text.push_str(&String::from_utf8_lossy(&chunk[..size])),
        }
        let lower = text.to_lowercase();
        let length =
            lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if let (Some((_, body)), Some(length)) = (text.split_once("\r\n\r\n"), length)
            && body.len() >= length
        {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_upgrade_nothing_more_is_passed_on_but_by_the_museum() {
    let failing = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
        World::path("web", "exec")
    );
    let pipelined = "GET /runningpods/ HTTP/1.1\r\nHost: x\r\n\r\n";
    for (museum, passes) in [(Vec::new(), false), (vec![Exhibit::Pipelining], true)] {
        let world = world(Choice { museum, ..Choice::default() }).await;
        let mut stream = world.dial().await;
        let first = raw(&mut stream, &failing).await;
        assert!(
            first.starts_with("HTTP/1.1 400")
                && first.ends_with("you must specify at least 1 of stdin, stdout, stderr\n"),
            "{first}"
        );
        assert_eq!(first.to_lowercase().contains("connection: close"), !passes, "{first}");
        let second = raw(&mut stream, pipelined).await;
        match passes {
            true => assert!(second.ends_with("GET /runningpods/"), "{second}"),
            false => assert_eq!(second, ""),
        }
        if passes {
            let third = raw(&mut stream, &pipelined.replace("GET", "POST")).await;
            assert!(third.ends_with("POST /runningpods/"), "{third}");
        }
    }
    assert!(!MuseumFlags { minilab_museum: vec![Exhibit::Pipelining] }.on("host").shows(Exhibit::Pipelining));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_back_as_they_went_and_nothing_is_left_when_clients_vanish() {
    for declares in [true, false] {
        let world = world(Choice { declares, ..Choice::default() }).await;
        let path = World::path("web", "exec?command=cat&stdin=1&stdout=1");
        let mut open = Vec::new();
        for number in 0..20u8 {
            let mut socket = world.websocket(&path, "v5.channel.k8s.io").await.unwrap();
            let mut message = vec![0u8; 4000];
            message.fill(number);
            message[0] = 0;
            socket.send(Message::Binary(message.clone().into())).await.unwrap();
            let mut heard = Vec::new();
            while heard.len() < 3999 {
                if let Message::Binary(bytes) = socket.next().await.unwrap().unwrap()
                    && bytes.first() == Some(&1)
                {
                    heard.extend_from_slice(&bytes[1..]);
                }
            }
            assert_eq!(heard, message[1..]);
            open.push(socket);
        }
        assert_eq!(world.serving.load(Ordering::SeqCst), 20);
        drop(open);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while world.serving.load(Ordering::SeqCst) > 0 {
            assert!(tokio::time::Instant::now() < deadline, "declared {declares}: streams are left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_carries_spdy_to_a_kubelet_that_reads_no_websockets() {
    for declares in [true, false] {
        let world = world(Choice { declares, ..Choice::default() }).await;
        let path = World::path("web", "portforward");
        let socket = world.websocket(&path, "SPDY/3.1+portforward.k8s.io").await.unwrap();
        let mut tunnel = crate::stream::websocket::Tunnel::client(socket.into_inner()).await;
        // A SPDY ping (type 6, id 1) is answered by the far end with the same frame.
        let ping = [0x80, 0x03, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        tunnel.write_all(&ping).await.unwrap();
        tunnel.flush().await.unwrap();
        let answered = async {
            loop {
                let mut head = [0; 8];
                tunnel.read_exact(&mut head).await.unwrap();
                let mut rest = vec![0; usize::from(head[7])];
                tunnel.read_exact(&mut rest).await.unwrap();
                // Before it may come what the far end says of its windows (types 4 and 9).
                if !matches!(head[3], 4 | 9) {
                    return [&head[..], &rest].concat();
                }
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), answered).await.unwrap(), ping);
    }
}
