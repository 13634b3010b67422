//! Both ends against bytes written down from upstream's `client.proto` and gRPC's own specification: below is no
//! code of ours but HTTP/2, so that a mistake made twice does not cancel out.

use std::convert::Infallible;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::kit::{PATIENCE, Place};
use crate::net::{self, Clients, Direct, Identity, Protocols, ServingCert, TlsDialer, Verify};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// Packets, as upstream's library encodes them.
const DIAL: &[u8] = b"\x12\x14\n\x03tcp\x12\x0b10.0.0.1:80\x18M";
const DIALLED: &[u8] = b"\x08\x01\x1a\x04\x10\x01\x18M";
const REFUSED: &[u8] = b"\x08\x01\x1a\x06\n\x02no\x18M";
const NO_AGENT: &[u8] = b"\x08\x01\x1a\x16\n\x12No agent available\x18M";
const QUESTION: &[u8] = b"\x08\x04\x22\x0a\x08\x01\x1a\x06GET / ";
const ANSWER: &[u8] = b"\x08\x04\x22\x07\x08\x01\x1a\x03200";
const CLOSE: &[u8] = b"\x08\x02*\x02\x08\x01";
const CLOSED: &[u8] = b"\x08\x03\x32\x02\x10\x01";
const CALLED_OFF: &[u8] = b"\x08\x05:\x02\x08M";
const DRAIN: &[u8] = b"\x08\x06B\x00";
/// Of a type and with a field that do not exist yet.
const LATER: &[u8] = b"\x08\x63\xa2\x06\x03abc";
/// DATA for a tunnel nobody has, and what its sender is told by the server and by the agent.
const STRAY: &[u8] = b"\x08\x04\x22\x05\x08\x09\x1a\x01x";
const CLOSE_STRAY: &[u8] = b"\x08\x02*\x02\x08\x09";
const STRAY_CLOSED: &[u8] = b"\x08\x03\x32\x1a\n\x16unrecognized connectID\x10\x09";
const TOO_SOON: &[u8] = b"\x08\x03\x32\x1b\n\x17backend not initialized\x10\x09";
const UNKNOWN: &[u8] = b"\x08\x03\x32\x15\n\x11Unknown connectID\x10\x09";

/// One end of a call: frames go in as they are, bytes come out as they came.
struct Wire {
    say: mpsc::Sender<Bytes>,
    incoming: Incoming,
    arrived: BytesMut,
    headers: HeaderMap,
    _connection: Option<tokio::task::JoinHandle<()>>,
}

/// A length-prefixed message that is not compressed.
fn framed(packet: &[u8]) -> Bytes {
    let length = u32::try_from(packet.len()).unwrap().to_be_bytes();
    [&[0][..], &length, packet].concat().into()
}

fn body() -> (mpsc::Sender<Bytes>, Body) {
    let (say, said) = mpsc::channel(16);
    let frames = futures_util::stream::unfold(said, |mut said: mpsc::Receiver<Bytes>| async {
        said.recv().await.map(|bytes| (Ok::<_, Infallible>(Frame::data(bytes)), said))
    });
    (say, BodyExt::boxed_unsync(StreamBody::new(frames)))
}

impl Wire {
    /// A call as grpc-go makes it.
    async fn call<S>(io: S, path: &str, metadata: &[(&'static str, &'static str)]) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
        let (mut sender, connection) = handshake.await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        let (say, body) = body();
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("user-agent", "grpc-go/1.72.0")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let answer = timeout(PATIENCE, sender.send_request(request.body(body).unwrap())).await;
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let headers = answer.headers().clone();
        let incoming = answer.into_body();
        Self { say, incoming, arrived: BytesMut::new(), headers, _connection: Some(connection) }
    }

    async fn agent(place: &Place, port: u16, metadata: &[(&'static str, &'static str)]) -> Self {
        let verify = Verify::Bundle(std::fs::read(place.path("ca.crt")).unwrap());
        let config = net::client_config(&verify, None, Protocols::H2).unwrap();
        let dialer = TlsDialer { road: std::sync::Arc::new(Direct), config };
        let io = dialer.connect("127.0.0.1", port, None).await.unwrap();
        Self::call(io, "/AgentService/Connect", metadata).await
    }

    async fn frontend(place: &Place) -> Self {
        let io = net::connect_unix(&place.path("frontend.socket")).await.unwrap();
        Self::call(io, "/ProxyService/Proxy", &[]).await
    }

    async fn says(&self, packet: &[u8]) {
        self.say.send(framed(packet)).await.unwrap();
    }

    async fn hears(&mut self, packet: &[u8]) {
        let wanted = framed(packet);
        while self.arrived.len() < wanted.len() {
            let frame = timeout(PATIENCE, self.incoming.frame()).await.expect("bytes in time");
            let frame = frame.expect("the stream goes on").unwrap();
            self.arrived.extend_from_slice(frame.data_ref().expect("data and no trailers"));
        }
        assert_eq!(
            self.arrived[..wanted.len()].escape_ascii().to_string(),
            wanted.escape_ascii().to_string()
        );
        self.arrived.advance(wanted.len());
    }
}

const UPSTREAM: &[(&str, &str)] = &[("agentid", "a"), ("agentidentifiers", "")];

#[tokio::test]
async fn the_server_passes_every_packet_on_byte_for_byte() {
    let place = Place::new();
    let server = place.server("--server-id=s --server-count=3").await;
    let mut early = Wire::frontend(&place).await;
    early.says(DIAL).await;
    early.hears(NO_AGENT).await;
    let mut agent = Wire::agent(&place, server.port, UPSTREAM).await;
    assert_eq!(
        (&agent.headers["serverid"], &agent.headers["servercount"]),
        (&"s".parse().unwrap(), &"3".parse().unwrap())
    );
    assert_eq!(agent.headers.len(), agent.headers.keys_len(), "each once");
    server.has_agents(1).await;
    let mut frontend = Wire::frontend(&place).await;
    frontend.says(STRAY).await;
    frontend.hears(TOO_SOON).await;
    frontend.says(DIAL).await;
    agent.hears(DIAL).await;
    agent.says(LATER).await;
    agent.says(DIALLED).await;
    frontend.hears(DIALLED).await;
    // Cut anywhere, and two at once: frames are no packets.
    let question = framed(QUESTION);
    for part in [question.slice(..3), question.slice(3..9), question.slice(9..)] {
        frontend.say.send(part).await.unwrap();
    }
    agent.hears(QUESTION).await;
    agent.say.send([framed(ANSWER), framed(STRAY)].concat().into()).await.unwrap();
    frontend.hears(ANSWER).await;
    agent.hears(CLOSE_STRAY).await;
    agent.says(DRAIN).await;
    frontend.says(CLOSE).await;
    agent.hears(CLOSE).await;
    agent.says(CLOSED).await;
    frontend.hears(CLOSED).await;
    let mut refused = Wire::frontend(&place).await;
    refused.says(DIAL).await;
    agent.hears(DIAL).await;
    agent.says(REFUSED).await;
    refused.hears(REFUSED).await;
    let off = Wire::frontend(&place).await;
    off.says(DIAL).await;
    agent.hears(DIAL).await;
    off.says(CALLED_OFF).await;
    agent.hears(CALLED_OFF).await;
    // Its answer comes late: nobody has that tunnel.
    agent.says(DIALLED).await;
    agent.hears(CLOSE).await;
}

#[tokio::test]
async fn an_agent_that_does_not_say_who_it_is_is_refused_in_the_headers() {
    let place = Place::new();
    let server = place.server("").await;
    for (metadata, text) in [
        (&[][..], "expected one agent ID in the context, got []"),
        (&[("agentid", "a"), ("agentid", "b")][..], "expected one agent ID in the context, got [a b]"),
    ] {
        let refused = Wire::agent(&place, server.port, metadata).await;
        assert_eq!(refused.headers["grpc-status"], "2");
        let message = refused.headers["grpc-message"].to_str().unwrap().to_owned();
        let plain = message.replace("%20", " ").replace("%5B", "[").replace("%5D", "]").replace("%2C", ",");
        assert_eq!(plain, text);
    }
    let refused = {
        let io = net::connect_unix(&place.path("frontend.socket")).await.unwrap();
        Wire::call(io, "/ProxyService/Other", &[]).await
    };
    assert_eq!(refused.headers["grpc-status"], "12");
}

/// What a kube-apiserver sends through the socket, down to its frames: Go's gRPC takes the socket's path for the
/// authority.
#[tokio::test]
async fn a_socket_may_be_called_by_its_path() {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let place = Place::new();
    let _server = place.server("").await;
    for authority in [&b"%2Fetc%2Fkubernetes%2Fk.socket"[..], b"/etc/kubernetes/k.socket", b"localhost"] {
        let length = u8::try_from(authority.len()).unwrap();
        let headers = [
            &b"\x83\x86\x44\x13/ProxyService/Proxy\x41"[..],
            &[length],
            authority,
            b"\x5f\x10application/grpc\x40\x02te\x08trailers",
        ]
        .concat();
        let sent = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(4, 0, 0, b""),
            &frame(1, 4, 1, &headers),
            &frame(0, 0, 1, &framed(DIAL)),
        ]
        .concat();
        let mut io = net::connect_unix(&place.path("frontend.socket")).await.unwrap();
        io.write_all(&sent).await.unwrap();
        let answer = framed(NO_AGENT);
        loop {
            let mut head = [0; 9];
            timeout(PATIENCE, io.read_exact(&mut head)).await.unwrap().unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            io.read_exact(&mut payload).await.unwrap();
            // A reset, or a word about the connection's end.
            assert!(!matches!(head[3], 3 | 7), "{head:?} {}", payload.escape_ascii());
            if head[3] == 0 {
                assert_eq!(payload.escape_ascii().to_string(), answer.escape_ascii().to_string());
                break;
            }
        }
    }
}

/// A server that is nobody's: takes one call and hands over its headers and both its bodies.
async fn server(place: &Place) -> (u16, mpsc::Receiver<Wire>) {
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    let identity = Identity { cert_pem: read("s.crt"), key_pem: read("s.key") };
    let config = ServingCert::new(&identity).unwrap().server_config_for(Protocols::H2, &Clients::Anonymous);
    let tls = TlsAcceptor::from(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, calls) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let Ok(io) = tls.accept(io).await else { continue };
            let tell = tell.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    assert_eq!(
                        (request.method().as_str(), request.uri().path()),
                        ("POST", "/AgentService/Connect")
                    );
                    let headers = request.headers().clone();
                    let (say, body) = body();
                    let incoming = request.into_body();
                    let wire = Wire { say, incoming, arrived: BytesMut::new(), headers, _connection: None };
                    let _ = tell.send(wire).await;
                    let answer = Response::builder()
                        .header("content-type", "application/grpc")
                        .header("serverid", "upstreams")
                        .header("servercount", "1");
                    Ok::<_, Infallible>(answer.body(body).unwrap())
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(io), service));
        }
    });
    (port, calls)
}

/// The dial of a port on loopback, by the same number as [`DIAL`].
fn dial(port: u16) -> Vec<u8> {
    let address = format!("127.0.0.1:{port}");
    let length = u8::try_from(address.len()).unwrap();
    [&[0x12, length + 9][..], b"\n\x03tcp\x12", &[length], address.as_bytes(), b"\x18M"].concat()
}

#[tokio::test]
async fn the_agent_hears_and_says_every_packet_byte_for_byte() {
    let place = Place::new();
    let (port, mut calls) = server(&place).await;
    place.agent_with(port, "--agent-id=a --agent-identifiers=host=n&ipv4=192.0.2.11").await;
    let mut call = timeout(PATIENCE, calls.recv()).await.unwrap().unwrap();
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("agentid", "a"),
        ("agentidentifiers", "host=n&ipv4=192.0.2.11"),
    ] {
        assert_eq!(call.headers[name], value);
        assert_eq!(call.headers.get_all(name).iter().count(), 1, "{name}");
    }
    let destination = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = destination.local_addr().unwrap().port();
    call.says(LATER).await;
    call.says(&dial(to)).await;
    let (mut stream, _) = destination.accept().await.unwrap();
    call.hears(DIALLED).await;
    call.says(QUESTION).await;
    let mut heard = [0; 6];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"GET / ");
    stream.write_all(b"200").await.unwrap();
    call.hears(ANSWER).await;
    call.says(STRAY).await;
    call.hears(STRAY_CLOSED).await;
    call.says(CLOSE_STRAY).await;
    call.hears(UNKNOWN).await;
    call.says(CLOSE).await;
    call.hears(CLOSED).await;
    assert_eq!(timeout(PATIENCE, stream.read(&mut heard)).await.unwrap().unwrap(), 0);
    // The next has the next number; its destination's end is told the same way.
    call.says(&dial(to)).await;
    let (stream, _) = destination.accept().await.unwrap();
    call.hears(b"\x08\x01\x1a\x04\x10\x02\x18M").await;
    drop(stream);
    call.hears(b"\x08\x03\x32\x02\x10\x02").await;
    drop(destination);
    call.says(&dial(to)).await;
    let text = format!("dial tcp 127.0.0.1:{to}: connect: connection refused");
    let length = u8::try_from(text.len()).unwrap();
    call.hears(&[&[8, 1, 0x1a, length + 4, 0x0a, length], text.as_bytes(), b"\x18M"].concat()).await;
}
