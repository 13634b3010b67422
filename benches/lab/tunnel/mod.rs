//! Konnectivity on the machine's loopback: server and agent as processes, measured by either frontend, beside
//! a plain connection to the same destination in the same run.

mod pair;
mod roads;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::figures::{Report, median, ms, percentile};
use super::lab::Lab;
use pair::Pair;
use roads::{Road, Stream};

/// How long one frontend's rows may take together.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much a single stream carries for its figure.
const VOLUME: usize = 256 << 20;
const PING: usize = 64;

/// Every row, for both frontends.
pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for mode in ["grpc", "http-connect"] {
        let measured = async { tokio::time::timeout(PATIENCE, of_mode(lab, mode, rounds, report)).await };
        runtime.block_on(measured).with_context(|| format!("{mode} takes too long"))??;
    }
    Ok(())
}

async fn of_mode(lab: &Lab, mode: &str, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut pair = Pair::start(lab, mode).await?;
    let port = destination().await?;
    let (road, direct) = (Road::through(&pair, mode, port), Road::Direct(port));
    road.first().await?;
    let row = |report: &mut Report, what: &str, figure: String, floor: String, reach: &str| {
        report.row(&format!("tunnel, {mode}: {what}"), figure, floor, reach);
    };
    row(report, "both processes to a usable tunnel", ms(begun.elapsed()), "-".into(), "-");
    // Idle is what they are once their start is behind them.
    tokio::time::sleep(Duration::from_secs(3)).await;
    row(report, "RSS idle, server + agent", pair.memory(), "-".into(), "20 MB");

    let (mut dials, mut plain) = (dial(&road, rounds * 20).await?, dial(&direct, rounds * 20).await?);
    let figures = format!("p50 {} p99 {}", ms(median(&mut dials)), ms(percentile(&mut dials, 0.99)));
    row(report, "dial", figures, ms(median(&mut plain)), "p50 0.4 ms");

    for (what, order) in [("one stream down", b'd'), ("one stream up", b'u')] {
        let (own, floor) = (rate(&road, order).await?, rate(&direct, order).await?);
        row(report, what, format!("{own:.0} MB/s"), format!("{floor:.0} MB/s"), "400 MB/s");
    }
    for tunnels in [1, 16, 256] {
        let own = requests(&road, tunnels).await?;
        let floor = requests(&direct, tunnels).await?;
        row(
            report,
            &format!("requests, {tunnels} tunnels"),
            format!("{own:.0}/s"),
            format!("{floor:.0}/s"),
            "-",
        );
    }
    for (what, order) in [
        ("one saturated stream", b'd'),
        ("a client that stopped reading", b'D'),
        ("a destination that did", b'U'),
    ] {
        let busy = Busy::start(&road, order).await?;
        let mut samples = pings(&road, rounds * 50).await?;
        drop(busy);
        let figures = format!("p50 {} p99 {}", ms(median(&mut samples)), ms(percentile(&mut samples, 0.99)));
        row(report, &format!("small request beside {what}"), figures, "-".into(), "p99 3 ms");
    }
    let held = hold(&road, 1000).await?;
    row(report, "RSS with 1,000 tunnels", pair.memory(), "-".into(), "-");
    drop(held);
    let mut starts = Vec::new();
    for _ in 0..rounds {
        starts.push(pair.restart_agent(&road).await?);
    }
    row(report, "agent started: usable", ms(median(&mut starts)), "-".into(), "30 ms");
    let again = pair.restart_server(&road).await?;
    row(report, "server killed and back: usable again", ms(again), "-".into(), "200 ms");
    Ok(())
}

/// Answers pings, sends, swallows, or does nothing, as its client's first byte says.
async fn destination() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(port)
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    match stream.read_u8().await? {
        b'd' | b'D' => loop {
            stream.write_all(&buffer).await?;
        },
        b'u' => {
            let mut total = 0;
            while total < VOLUME {
                total += stream.read(&mut buffer).await?.max(1);
            }
            stream.write_all(&[1]).await
        }
        b'U' => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        }
        _ => loop {
            stream.read_exact(&mut buffer[..PING]).await?;
            stream.write_all(&buffer[..PING]).await?;
        },
    }
}

async fn dial(road: &Road, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut samples = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        drop(road.dial().await?);
        samples.push(begun.elapsed());
    }
    Ok(samples)
}

async fn rate(road: &Road, order: u8) -> anyhow::Result<f64> {
    let mut stream = road.dial().await?;
    stream.write_all(&[order]).await?;
    stream.flush().await?;
    let begun = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    if order == b'd' {
        while total < VOLUME {
            match stream.read(&mut buffer).await? {
                0 => bail!("the stream ended after {total} bytes"),
                length => total += length,
            }
        }
    } else {
        while total < VOLUME {
            stream.write_all(&buffer).await?;
            total += buffer.len();
        }
        stream.flush().await?;
        stream.read_u8().await?;
    }
    Ok(total as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

async fn ping(stream: &mut Stream, buffer: &mut [u8; PING]) -> anyhow::Result<()> {
    stream.write_all(buffer).await?;
    stream.flush().await?;
    stream.read_exact(buffer).await?;
    Ok(())
}

async fn pings(road: &Road, count: usize) -> anyhow::Result<Vec<Duration>> {
    let (mut stream, mut buffer, mut samples) = (road.dial().await?, [b'p'; PING], Vec::new());
    stream.write_all(b"p").await?;
    for _ in 0..count {
        let begun = Instant::now();
        ping(&mut stream, &mut buffer).await?;
        samples.push(begun.elapsed());
    }
    Ok(samples)
}

/// Requests a second over so many tunnels at once.
async fn requests(road: &Road, tunnels: usize) -> anyhow::Result<f64> {
    let mut held = hold(road, tunnels).await?;
    let until = Instant::now() + Duration::from_secs(2);
    let begun = Instant::now();
    let tasks: Vec<_> = held
        .drain(..)
        .map(|mut stream| {
            tokio::spawn(async move {
                let (mut done, mut buffer) = (0u64, [b'p'; PING]);
                while Instant::now() < until && ping(&mut stream, &mut buffer).await.is_ok() {
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await?;
    }
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}

async fn hold(road: &Road, tunnels: usize) -> anyhow::Result<Vec<Stream>> {
    let mut held = Vec::new();
    for _ in 0..tunnels {
        let mut stream = road.dial().await?;
        stream.write_all(b"p").await?;
        held.push(stream);
    }
    Ok(held)
}

/// A tunnel that somebody keeps full: reading it, or not reading it.
struct Busy(tokio::task::JoinHandle<()>);

impl Busy {
    async fn start(road: &Road, order: u8) -> anyhow::Result<Self> {
        let mut stream = road.dial().await?;
        stream.write_all(&[order]).await?;
        stream.flush().await?;
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            match order {
                b'd' => while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {},
                b'U' => while stream.write_all(&buffer).await.is_ok() {},
                _ => tokio::time::sleep(Duration::from_secs(3600)).await,
            }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(Self(task))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.abort();
    }
}
