//! A server of ours, an agent of ours, and scripted peers that say and expect packets one by one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Streaming};

use crate::net::{self, Clients, Direct, Identity, Protocols, ServingCert, TlsDialer, Verify};
use crate::pki::{Authority, LeafSpec};
use crate::tunnel::konnectivity::flow::Credits;
use crate::tunnel::konnectivity::packet::{Data, DialRequest, Message, Packet};
use crate::tunnel::konnectivity::rpc::{self, Answering, Connection, Outgoing};
use crate::tunnel::konnectivity::{agent, header, server};

/// Generous: a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Keys and a directory for one test.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new("test").unwrap();
        let leaf = ca.issue(&LeafSpec::server("s", &["localhost"], &[[127, 0, 0, 1].into()])).unwrap();
        for (name, text) in [("ca.crt", ca.cert_pem()), ("s.crt", &leaf.cert_pem), ("s.key", &leaf.key_pem)] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A server of ours with its frontend on `frontend.socket`.
    pub async fn server(&self, more: &str) -> Server {
        let (dir, stop) = (self.dir.path().display(), CancellationToken::new());
        let line = format!(
            "--uds-name={dir}/frontend.socket --server-port=0 --cluster-cert={dir}/s.crt --cluster-key={dir}/s.key \
             --agent-port=0 --agent-bind-address=127.0.0.1 --health-port=0 --health-bind-address=127.0.0.1 \
             --admin-port=0 {more}"
        );
        let flags = server::Flags::read(line.split_whitespace().map(str::to_owned).collect()).unwrap();
        let serving = server::serve(&flags, &stop).await.unwrap();
        Server { port: serving.agents.port(), shared: serving.shared, stop }
    }

    /// An agent of ours, connecting to a port.
    pub async fn agent(&self, port: u16) -> Arc<agent::Servers> {
        self.agent_with(port, "").await
    }

    /// The same with more flags.
    pub async fn agent_with(&self, port: u16, more: &str) -> Arc<agent::Servers> {
        let dir = self.dir.path().display();
        let line = format!(
            "--ca-cert={dir}/ca.crt --proxy-server-host=127.0.0.1 --proxy-server-port={port} --sync-interval=10ms \
             --health-server-host=127.0.0.1 --health-server-port=0 --admin-server-port=0 {more}"
        );
        let flags = agent::Flags::read(line.split_whitespace().map(str::to_owned).collect()).unwrap();
        let servers = agent::serve(&flags).await.unwrap();
        tokio::spawn(Arc::clone(&servers).keep());
        servers
    }

    /// A scripted agent that joins a server as upstream's does, without a word of ours.
    pub async fn upstream_agent(&self, port: u16, id: &str, identifiers: &str) -> Peer {
        let verify = Verify::Bundle(self.text("ca.crt"));
        let config = net::client_config(&verify, None, Protocols::H2).unwrap();
        let dialer = TlsDialer { road: Arc::new(Direct), config };
        let io = dialer.connect("127.0.0.1", port, None).await.unwrap();
        let (say, outgoing) = mpsc::channel(64);
        let mut request = Request::new(Outgoing::of(outgoing));
        request.metadata_mut().insert(header::AGENT_ID, id.parse().unwrap());
        request.metadata_mut().insert(header::AGENT_IDENTIFIERS, identifiers.parse().unwrap());
        let opened = rpc::open(io, "127.0.0.1", rpc::CONNECT, None, request).await.unwrap();
        let answer = header::server(&opened.metadata).unwrap();
        assert_eq!(answer.credits, Credits::Unknown, "who did not ask is promised nothing");
        Peer { say, incoming: opened.incoming, _connection: Some(opened.connection) }
    }

    /// A scripted server as upstream's; gives the stream of the first agent that comes.
    pub async fn upstream_server(&self) -> (u16, mpsc::Receiver<Peer>) {
        let identity = Identity { cert_pem: self.text("s.crt"), key_pem: self.text("s.key") };
        let cert = ServingCert::new(&identity).unwrap();
        let tls = TlsAcceptor::from(cert.server_config_for(Protocols::H2, &Clients::Anonymous).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, agents) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let (tls, tell) = (tls.clone(), tell.clone());
                tokio::spawn(async move {
                    let Ok(io) = tls.accept(io).await else { return };
                    let handler = move |request: rpc::Asked| {
                        let tell = tell.clone();
                        async move {
                            let (say, outgoing) = mpsc::channel(64);
                            let incoming = request.into_inner();
                            let _ = tell.send(Peer { say, incoming, _connection: None }).await;
                            let mut response = Response::new(Answering(Outgoing::of(outgoing)));
                            header::answer(response.metadata_mut(), "upstreams", 1, Credits::Unknown);
                            Ok(response)
                        }
                    };
                    let hour = Duration::from_secs(3600);
                    rpc::serve(io, rpc::CONNECT, hour, CancellationToken::new(), handler).await;
                });
            }
        });
        (port, agents)
    }

    /// A scripted frontend: one stream on a connection of its own.
    pub async fn frontend(&self) -> Peer {
        let io = net::connect_unix(&self.path("frontend.socket")).await.unwrap();
        let (say, outgoing) = mpsc::channel(64);
        let request = Request::new(Outgoing::of(outgoing));
        let opened = rpc::open(io, "localhost", rpc::PROXY, None, request).await.unwrap();
        Peer { say, incoming: opened.incoming, _connection: Some(opened.connection) }
    }
}

/// A server of ours.
pub struct Server {
    pub port: u16,
    pub shared: Arc<server::Shared>,
    pub stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Waits until the metrics page has this line.
    pub async fn shows(&self, line: &str) {
        eventually(line, || self.shared.metrics().lines().any(|own| own == line)).await;
    }

    pub async fn has_agents(&self, count: usize) {
        self.shows(&format!("konnectivity_network_proxy_server_ready_backend_connections {count}")).await;
    }
}

pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One end of a stream of packets, told what to say.
pub struct Peer {
    say: mpsc::Sender<Message>,
    incoming: Streaming<Packet>,
    _connection: Option<Connection>,
}

impl Peer {
    pub async fn say(&self, message: Message) {
        self.say.send(message).await.unwrap();
    }

    /// Says it so often, unless nobody listens any more; how often that was.
    pub async fn say_while_heard(&self, message: &Message, limit: usize) -> usize {
        for said in 0..limit {
            if timeout(PATIENCE, self.say.send(message.clone())).await.is_err() {
                return said;
            }
        }
        limit
    }

    pub async fn hears(&mut self) -> Message {
        let packet = timeout(PATIENCE, self.incoming.message()).await.expect("a packet in time");
        packet.unwrap().expect("the stream goes on").into()
    }

    /// Nothing comes for a moment.
    pub async fn hears_nothing(&mut self) {
        let heard = timeout(Duration::from_millis(100), self.incoming.message()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

pub fn dial(random: i64, address: &str) -> Message {
    Message::DialRequest(DialRequest { protocol: "tcp".into(), address: address.into(), random })
}

pub fn data(id: i64, text: &'static str) -> Message {
    Message::data(id, bytes::Bytes::from_static(text.as_bytes()))
}

/// Data whose bytes do not matter here.
pub fn bytes_of(message: Message) -> Data {
    match message {
        Message::Data(data) => data,
        other => panic!("{other:?} is no data"),
    }
}
