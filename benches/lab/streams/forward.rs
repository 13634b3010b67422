//! Port-forward by SPDY/3.1, with the product's own codec at this end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::upgrade::upgrade;
use crate::figures::{median, median_of};
use crate::lab::Lab;
use crate::stream::spdy::{Session, Stream};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n";
const ANSWER: usize = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".len();
const PARALLEL: usize = 16;

/// One session; every connection through it is a pair of streams.
pub struct Forward {
    session: Session,
    next: AtomicU32,
}

impl Forward {
    pub async fn connect(lab: &Lab) -> anyhow::Result<Arc<Self>> {
        let path = "/api/v1/namespaces/default/pods/streams/portforward";
        let headers = [("x-stream-protocol-version", "portforward.k8s.io")];
        let connection = upgrade(lab, Method::POST, path, "SPDY/3.1", &headers).await?;
        Ok(Arc::new(Self { session: Session::client(connection), next: AtomicU32::new(0) }))
    }

    /// A connection to the pod's port. The error stream is held beside it.
    async fn open(&self) -> anyhow::Result<(Stream, Stream)> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let of = |kind| [("streamtype", kind), ("port", "8080"), ("requestid", &id)];
        let mut error = self.session.open(&of("error")).await?;
        error.shutdown().await?;
        Ok((self.session.open(&of("data")).await?, error))
    }

    pub async fn download(&self, size: usize) -> anyhow::Result<Duration> {
        let (mut data, _error) = self.open().await?;
        let from = Instant::now();
        data.write_all(format!("bytes {size}\n").as_bytes()).await?;
        let got = drain(&mut data).await?;
        if got != size {
            bail!("{got} of {size} bytes came");
        }
        Ok(from.elapsed())
    }

    /// Answers a second over parallel connections, and the time of one alone.
    pub async fn requests(self: &Arc<Self>, rounds: usize) -> anyhow::Result<(f64, Duration)> {
        let mut alone = Vec::new();
        let (mut data, _error) = self.open().await?;
        for _ in 0..500 {
            let from = Instant::now();
            ask(&mut data).await?;
            alone.push(from.elapsed());
        }
        let mut rates = Vec::new();
        for _ in 0..rounds {
            let (from, mut clients) = (Instant::now(), tokio::task::JoinSet::new());
            for _ in 0..PARALLEL {
                let forward = Arc::clone(self);
                clients.spawn(async move {
                    let (mut data, _error) = forward.open().await?;
                    count(&mut data, from).await
                });
            }
            rates.push(rate(clients, from).await?);
        }
        Ok((median_of(&mut rates), median(&mut alone)))
    }
}

/// Reads to the end.
pub async fn drain(from: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<usize> {
    let (mut buffer, mut got) = (vec![0; 256 * 1024], 0);
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(got),
            count => got += count,
        }
    }
}

pub async fn ask(peer: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> anyhow::Result<()> {
    peer.write_all(REQUEST).await?;
    peer.flush().await?;
    peer.read_exact(&mut [0; ANSWER]).await?;
    Ok(())
}

/// Requests on one connection until half a second after `from`.
pub async fn count(peer: &mut (impl AsyncRead + AsyncWrite + Unpin), from: Instant) -> anyhow::Result<usize> {
    let mut done = 0;
    while from.elapsed() < Duration::from_millis(500) {
        ask(peer).await?;
        done += 1;
    }
    Ok(done)
}

pub async fn rate(
    mut clients: tokio::task::JoinSet<anyhow::Result<usize>>,
    from: Instant,
) -> anyhow::Result<f64> {
    let mut done = 0;
    while let Some(count) = clients.join_next().await {
        done += count??;
    }
    Ok(done as f64 / from.elapsed().as_secs_f64())
}

pub const CLIENTS: usize = PARALLEL;
pub const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
