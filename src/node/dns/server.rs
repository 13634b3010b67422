//! The sockets of the DNS server: UDP and TCP questions, forwarding, health, readiness, metrics.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::answer::{Reply, Transport, answer, joined};
use super::connections::{Connections, Seat};
use super::corefile::Block;
use super::zone::Index;
use crate::net;

/// Questions under way at other servers, and TCP connections, at once.
const MOST_FORWARDED: usize = 1000;
const MOST_CONNECTIONS: usize = 256;
/// How long another server may take, and a silent TCP client be borne.
const PATIENCE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);

/// What every question is answered from.
pub struct Shared {
    index: Mutex<Arc<Index>>,
    blocks: Mutex<Arc<Vec<Block>>>,
    synced: AtomicBool,
    counts: Counts,
    forwarding: Semaphore,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    answers: [AtomicU64; 16],
}

impl Shared {
    pub fn new(blocks: Vec<Block>) -> Arc<Self> {
        Arc::new(Self {
            index: Mutex::default(),
            blocks: Mutex::new(Arc::new(blocks)),
            synced: AtomicBool::new(false),
            counts: Counts::default(),
            forwarding: Semaphore::new(MOST_FORWARDED),
        })
    }

    /// Takes a newer view of the cluster.
    pub fn learn(&self, index: Index) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        self.synced.store(true, Ordering::Release);
    }

    /// Takes a newer configuration; the ports stay what they were.
    pub fn configure(&self, blocks: Vec<Block>) {
        *self.blocks.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(blocks);
    }

    fn blocks(&self) -> Arc<Vec<Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reply(&self, bytes: &[u8], from: SocketAddr, transport: Transport) -> Option<Vec<u8>> {
        let started = Instant::now();
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (bytes, asked, logged) = match answer(&self.blocks(), &index, bytes, transport) {
            Reply::Nothing => return None,
            Reply::Answer { bytes, asked, logged, .. } => (bytes, asked, logged),
            Reply::Forward { failure, to, asked, logged } => {
                (self.forward(bytes, &to).await.unwrap_or(failure), asked, logged)
            }
            Reply::Chase { alias, question, to, asked, logged } => match self.forward(&question, &to).await {
                Some(theirs) => (joined(alias, &theirs, transport), asked, logged),
                None => (alias, asked, logged),
            },
        };
        let code = bytes.get(3).map_or(2, |byte| byte & 15);
        self.counts.answers[usize::from(code)].fetch_add(1, Ordering::Relaxed);
        if logged {
            let (size, took) = (bytes.len(), started.elapsed().as_secs_f64());
            println!("[INFO] {from} - {asked} {} {size} {took:.9}s", rcode_name(code));
        }
        Some(bytes)
    }

    /// The first answer of another server, tried in their order.
    async fn forward(&self, question: &[u8], to: &[String]) -> Option<Vec<u8>> {
        let _turn = self.forwarding.try_acquire().ok()?;
        for server in to.iter().flat_map(|one| servers(one)) {
            let asking = async {
                let socket = net::bind_udp(SocketAddr::from(([0, 0, 0, 0], 0))).await.ok()?;
                socket.connect(server).await.ok()?;
                socket.send(question).await.ok()?;
                let mut buffer = vec![0; 4096];
                loop {
                    let length = socket.recv(&mut buffer).await.ok()?;
                    // Somebody else's answer to another question.
                    if length >= 12 && buffer[..2] == question[..2] {
                        buffer.truncate(length);
                        return Some(buffer);
                    }
                }
            };
            if let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, asking).await {
                return Some(answer);
            }
        }
        None
    }
}

/// An address, with or without a port; or the servers in a resolv.conf.
fn servers(text: &str) -> Vec<SocketAddr> {
    if text.starts_with('/') {
        let text = std::fs::read_to_string(text).unwrap_or_default();
        let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        return named.filter_map(|ip| Some(SocketAddr::new(ip.trim().parse().ok()?, 53))).collect();
    }
    let text = text.trim_start_matches("dns://");
    let bare = || text.parse().map(|ip| SocketAddr::new(ip, 53));
    text.parse().or_else(|_| bare()).into_iter().collect()
}

fn rcode_name(code: u8) -> &'static str {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "OTHER",
    }
}

/// Answers UDP questions for ever.
pub async fn udp(shared: Arc<Shared>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        // A client's port that was closed shows as an error of the next receive.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let (shared, socket, question) = (shared.clone(), socket.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = shared.reply(&question, from, Transport::Udp).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

/// Answers TCP questions for ever.
pub async fn tcp(shared: Arc<Shared>, listener: TcpListener) {
    let connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                connections.make_room(MOST_CONNECTIONS);
                let (shared, seat) = (shared.clone(), connections.seat());
                tokio::spawn(async move {
                    let evicted = seat.evicted();
                    tokio::select! {
                        // An error ends the connection, which is all there is to do.
                        _ = conversation(&shared, stream, from, &seat) => {}
                        () = evicted.cancelled() => {}
                    }
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn conversation(
    shared: &Shared,
    mut stream: TcpStream,
    from: SocketAddr,
    seat: &Seat,
) -> std::io::Result<()> {
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(length) => usize::from(length?),
            Err(_) => return Ok(()),
        };
        let mut question = vec![0; length];
        match tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await {
            Ok(read) => read?,
            Err(_) => return Ok(()),
        };
        seat.used();
        let Some(answer) = shared.reply(&question, from, Transport::Tcp).await else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(answer);
        stream.write_all(&framed).await?;
    }
}

/// `/health`, `/ready` and `/metrics`, each at its port.
pub async fn ports(shared: &Arc<Shared>) -> Result<(), net::NetError> {
    let blocks = shared.blocks();
    let find = |of: fn(&Block) -> Option<SocketAddr>| blocks.iter().find_map(of);
    if let Some(address) = find(|block| block.health.as_ref().map(|health| health.address)) {
        serve(address, Router::new().route("/health", get(async || "OK"))).await?;
    }
    if let Some(address) = find(|block| block.ready) {
        let shared = shared.clone();
        let ready = move || {
            let synced = shared.synced.load(Ordering::Acquire);
            async move {
                if synced { (StatusCode::OK, "OK") } else { (StatusCode::SERVICE_UNAVAILABLE, "kubernetes") }
            }
        };
        serve(address, Router::new().route("/ready", get(ready))).await?;
    }
    if let Some(address) = find(|block| block.prometheus) {
        let shared = shared.clone();
        let metrics = move || {
            let text = shared.counts.text();
            async move { text }
        };
        serve(address, Router::new().route("/metrics", get(metrics))).await?;
    }
    Ok(())
}

async fn serve(address: SocketAddr, routes: Router) -> Result<(), net::NetError> {
    let listener = net::bind(address).await?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(())
}

impl Counts {
    fn text(&self) -> String {
        let mut text = format!(
            "# TYPE coredns_dns_requests_total counter\ncoredns_dns_requests_total {}\n\
             # TYPE coredns_dns_responses_total counter\n",
            self.requests.load(Ordering::Relaxed)
        );
        for (code, count) in (0..).zip(&self.answers) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                text += &format!("coredns_dns_responses_total{{rcode=\"{}\"}} {count}\n", rcode_name(code));
            }
        }
        text
    }
}
