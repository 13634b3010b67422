//! Any bytes from either end: no panic, an end in good time, no memory without bound.
//!
//! Every parser is fed the corpus (`corpus/*.bin`: conversations as client-go has them, made with another
//! implementation of zlib, and known tricks), mutations of it, and noise. The generator is seeded, so a
//! failure comes again; it names its round.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::spdy::Session;
use super::websocket::{Codec, Mux, Tunnel};
use super::{IDLE, portforward, remotecommand};

/// xorshift64*, so that rounds repeat without a crate.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    fn noise(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest)).map(|_| self.roll() as u8).collect()
    }

    /// A few changes: bits, lengths, cuts, repeats, splices with another seed.
    fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => bytes.truncate(at),
                4 => drop(bytes.drain(at..(at + self.below(20)).min(bytes.len()))),
                5 => {
                    let noise = self.noise(20);
                    bytes.splice(at..at, noise);
                }
                6 => bytes.extend_from_within(at..),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    bytes.splice(at.., other[from..].iter().copied());
                }
            }
            bytes.truncate(1 << 20);
        }
        bytes
    }
}

fn corpus(prefix: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stream/corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix));
    files.sort();
    assert!(files.len() >= 10, "the corpus is in the repository");
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// The corpus itself, then `rounds` inputs made from it or from nothing.
fn inputs(prefix: &str, seed: u64, rounds: usize) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let (seeds, mut dice) = (corpus(prefix), Dice(seed));
    let count = seeds.len();
    (0..count + rounds).map(move |round| {
        let bytes = match round {
            _ if round < count => seeds[round].clone(),
            _ if round % 8 == 0 => dice.noise(400),
            _ => dice.mutate(&seeds),
        };
        (round, bytes)
    })
}

/// Sends `bytes`, reads whatever comes back, and hangs up.
async fn throw(io: DuplexStream, bytes: Vec<u8>) {
    let (mut from, mut to) = tokio::io::split(io);
    let reading = tokio::spawn(async move {
        let mut sink = tokio::io::sink();
        let _ = tokio::io::copy(&mut from, &mut sink).await;
    });
    let _ = to.write_all(&bytes).await;
    let _ = to.shutdown().await;
    drop(to);
    let _ = reading.await;
}

async fn ends<T>(round: usize, what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), what).await.unwrap_or_else(|_| panic!("round {round} never ends"))
}

#[tokio::test]
async fn spdy_sessions_survive_any_bytes() {
    for (round, bytes) in inputs("spdy", 1, 3000) {
        let (near, far) = duplex(4096);
        let serving = async {
            let mut session = if round % 3 == 0 { Session::client(far) } else { Session::server(far) };
            while let Some(incoming) = session.accept().await {
                let mut stream = incoming.accept();
                tokio::spawn(async move {
                    let _ = stream.write_all(&[0; 1000]).await;
                    let mut heard = Vec::new();
                    let _ = stream.read_to_end(&mut heard).await;
                    assert!(heard.len() <= 2 << 20);
                });
            }
            session.closed().cancelled().await;
        };
        ends(round, async { tokio::join!(serving, throw(near, bytes)) }).await;
    }
}

#[tokio::test]
#[allow(clippy::redundant_async_block, reason = "an async closure's future is not the one the bound names")]
async fn port_forwarding_survives_any_bytes() {
    let target = portforward::Target { pod: "pod".into(), uid: "uid".into() };
    let spdy = http::Request::builder()
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", portforward::PROTOCOL);
    let parts = spdy.body(()).unwrap().into_parts().0;
    let connect = async |port: u16| match port % 2 {
        0 => Ok(duplex(100).0),
        _ => Err("refused"),
    };
    for (round, bytes) in inputs("spdy", 2, 1000) {
        let (near, far) = duplex(4096);
        let serving = portforward::negotiate(&parts).unwrap().serve(far, target.clone(), move |port| {
            let connecting = connect(port);
            async move { connecting.await }
        });
        let (served, ()) = ends(round, async { tokio::join!(serving, throw(near, bytes)) }).await;
        let _ = served;
    }
}

#[tokio::test]
async fn channels_survive_any_bytes() {
    for (round, bytes) in inputs("ws", 3, 3000) {
        let (near, far) = duplex(4096);
        let codec = if round % 2 == 0 { Codec::Binary } else { Codec::Base64 };
        let serving = async {
            let mut mux =
                Mux::server(far, codec, round % 3 == 0, &[true, false, false, false, true], IDLE).await;
            let (mut stdin, mut stdout) = (mux.reader(0).unwrap(), mux.writer(1));
            let _ = stdout.write_all(b"hello").await;
            let mut heard = Vec::new();
            let _ = stdin.read_to_end(&mut heard).await;
            mux.closed().cancelled().await;
            mux.finish(Some((3, Bytes::from_static(b"{}")))).await;
        };
        ends(round, async { tokio::join!(serving, throw(near, bytes)) }).await;
    }
}

#[tokio::test]
async fn tunnels_survive_any_bytes() {
    for (round, bytes) in inputs("ws", 4, 2000) {
        let (near, far) = duplex(4096);
        let serving = async {
            let mut session = Session::server(Tunnel::server(far).await);
            while let Some(incoming) = session.accept().await {
                drop(incoming.accept());
            }
        };
        ends(round, async { tokio::join!(serving, throw(near, bytes)) }).await;
    }
}

/// The other direction: a kubelet that answers the API server with anything.
#[tokio::test]
async fn the_asking_end_survives_any_bytes() {
    let options = remotecommand::Options { stdin: true, stdout: true, stderr: true, tty: false };
    for (round, bytes) in inputs("spdy", 5, 1000) {
        let (near, far) = duplex(4096);
        let asking = async {
            if let Ok(command) = remotecommand::connect(far, Some("v4.channel.k8s.io"), options).await {
                command.end.outcome().await;
            }
        };
        ends(round, async { tokio::join!(asking, throw(near, bytes)) }).await;
    }
}

#[test]
fn texts_and_headers_survive_anything() {
    let seeds: Vec<Vec<u8>> = [
        "input=1&output=1&error=1&tty=1&port=80,81&port=",
        "{\"metadata\":{},\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{}]}}",
        "v5.channel.k8s.io, v4.channel.k8s.io,SPDY/3.1+portforward.k8s.io",
        "Upgrade",
        "websocket",
    ]
    .map(|seed| seed.as_bytes().to_vec())
    .to_vec();
    let mut dice = Dice(6);
    let names =
        ["connection", "upgrade", "sec-websocket-protocol", "sec-websocket-key", "x-stream-protocol-version"];
    for _ in 0..5000 {
        let bytes = dice.mutate(&seeds);
        let _ = remotecommand::Outcome::decode(&bytes);
        let mut parts = http::Request::new(()).into_parts().0;
        for name in names {
            if let Ok(value) = HeaderValue::from_bytes(&dice.mutate(&seeds)) {
                parts.headers.append(HeaderName::from_static(name), value);
            }
        }
        let _ = remotecommand::negotiate(&parts);
        let _ = portforward::negotiate(&parts);
    }
}

/// What client-go sends, compressed by another zlib than ours.
#[tokio::test]
async fn conversations_of_another_implementation_are_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stream/corpus");
    let bytes = std::fs::read(folder.join("spdy-exec.bin")).unwrap();
    let (near, far) = duplex(4096);
    let mut session = Session::server(far);
    let (mut from, mut to) = tokio::io::split(near);
    to.write_all(&bytes).await.unwrap();
    let mut kinds = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let incoming = session.accept().await.unwrap();
        kinds.push(incoming.header("streamtype").unwrap().to_owned());
        streams.push(incoming.accept());
    }
    assert_eq!(kinds, ["error", "stdin", "stdout", "stderr"]);
    let mut input = String::new();
    streams[1].read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "echo hello\nexit 3\n");
    let mut answered = vec![0; 12];
    from.read_exact(&mut answered).await.unwrap();
}
