//! Port forwarding over SPDY: a pair of streams a connection, one for errors and one for data.
//!
//! Stands for upstream's `httpStreamHandler`. A pair is joined by the `requestID` header; what it says
//! about an error is upstream's text. One difference: a connection of the pod's that breaks off after it
//! was made resets its data stream and says nothing, because kubectl up to 1.32 ends the whole session
//! over any text on an error stream.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tracing::{debug, info};

use super::super::spdy::{Incoming, Session, Stream};
use super::super::{CREATION, Connection, StreamError};
use super::negotiate::parse;
use super::{Target, forward};

/// A pair until both its streams are here.
struct Pair {
    error: Option<Stream>,
    data: Option<Stream>,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Data,
}

/// Serves until the client is gone; then every forwarded connection is cut.
pub async fn serve<C, F, S, E>(mut session: Session, target: Target, connect: C) -> Result<(), StreamError>
where
    C: Fn(u16) -> F + Clone + Send + 'static,
    F: Future<Output = Result<S, E>> + Send + 'static,
    S: Connection,
    E: Display + Send + 'static,
{
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut connections = JoinSet::new();
    let mut clock = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            incoming = session.accept() => {
                let Some(incoming) = incoming else { return Ok(()) };
                let (port, kind) = match check(&incoming) {
                    Ok(wanted) => wanted,
                    Err(why) => {
                        // Dropped, the stream is reset.
                        info!(why, "Stream rejected");
                        continue;
                    }
                };
                if let Some((data, error)) = join(&mut pairs, incoming, kind).await {
                    let (connect, target) = (connect.clone(), target.clone());
                    connections.spawn(async move { connection(port, data, error, &target, connect(port)).await });
                }
            }
            Some(_) = connections.join_next() => {}
            _ = clock.tick(), if !pairs.is_empty() => expire(&mut pairs).await,
        }
    }
}

/// The port and kind a stream names, or why it is rejected.
fn check(incoming: &Incoming) -> Result<(u16, Kind), String> {
    let port = incoming.header("port").filter(|port| !port.is_empty());
    let port = port.ok_or("\"port\" header is required")?;
    let number = parse(port).map_err(|why| format!("unable to parse {port:?} as a port: {why}"))?;
    if number == 0 {
        return Err(format!("port {port:?} must be > 0"));
    }
    match incoming.header("streamtype").unwrap_or_default() {
        "error" => Ok((number, Kind::Error)),
        "data" => Ok((number, Kind::Data)),
        "" => Err("\"streamType\" header is required".into()),
        other => Err(format!("invalid stream type {other:?}")),
    }
}

/// Puts a stream into its pair; the pair once it is whole.
async fn join(pairs: &mut HashMap<String, Pair>, incoming: Incoming, kind: Kind) -> Option<(Stream, Stream)> {
    let request = match incoming.header("requestid").filter(|id| !id.is_empty()) {
        Some(id) => id.to_owned(),
        // Clients before 1.1 sent none and opened the error stream first, the data stream right after.
        None if kind == Kind::Error => incoming.id().to_string(),
        None => incoming.id().saturating_sub(2).to_string(),
    };
    let stream = incoming.accept();
    let fresh = || Pair { error: None, data: None, since: Instant::now() };
    let pair = pairs.entry(request.clone()).or_insert_with(fresh);
    let (slot, name) = match kind {
        Kind::Error => (&mut pair.error, "error"),
        Kind::Data => (&mut pair.data, "data"),
    };
    if slot.is_some() {
        let text = format!("error processing stream for request {request}: {name} stream already assigned");
        say(pair.error.as_mut(), &text).await;
        return None;
    }
    *slot = Some(stream);
    if pair.error.is_none() || pair.data.is_none() {
        return None;
    }
    let pair = pairs.remove(&request)?;
    pair.data.zip(pair.error)
}

async fn expire(pairs: &mut HashMap<String, Pair>) {
    let late: Vec<String> = pairs
        .iter()
        .filter(|(_, pair)| pair.since.elapsed() >= CREATION)
        .map(|(request, _)| request.clone())
        .collect();
    for request in late {
        let mut pair = pairs.remove(&request);
        let text = format!("(request={request}) timed out waiting for streams");
        say(pair.as_mut().and_then(|pair| pair.error.as_mut()), &text).await;
    }
}

/// Puts a text on an error stream. It is new and empty, so this does not wait for the client.
async fn say(error: Option<&mut Stream>, text: &str) {
    debug!(text, "port-forward");
    if let Some(error) = error {
        let _ = error.write_all(text.as_bytes()).await;
    }
}

async fn connection<S, E>(
    port: u16,
    data: Stream,
    mut error: Stream,
    target: &Target,
    connecting: impl Future<Output = Result<S, E>>,
) where
    S: Connection,
    E: Display,
{
    match connecting.await {
        Ok(pod) => {
            let (from_client, mut to_client) = data.into_split();
            if let Err(cause) = forward::relay(from_client, &mut to_client, pod).await {
                debug!(%cause, port, "a forwarded connection was cut");
                to_client.reset();
            }
        }
        Err(cause) => {
            let text = target.failure(port, &cause);
            say(Some(&mut error), &text).await;
            data.reset();
        }
    }
}
