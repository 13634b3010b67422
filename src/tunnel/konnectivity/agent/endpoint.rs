//! One destination: the connection the server asked for, its bytes both ways until either end has had enough.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::session::{Open, Session};
use crate::net::{BoxStream, Dial, DialError, Direct};
use crate::tunnel::konnectivity::packet::{DialRequest, Message};
use crate::tunnel::konnectivity::rpc::{CHUNK, Ended};

/// Upstream's agent gives up a dial after this long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what the server sent before its CLOSE_REQ may take to reach the destination.
const FLUSH: Duration = Duration::from_secs(10);

/// Dials, answers, and carries bytes until the tunnel is over.
pub async fn serve(session: Arc<Session>, request: DialRequest, open: Arc<Open>) {
    let begun = Instant::now();
    let stream = match dial(&request).await {
        Ok(stream) => stream,
        Err(error) => {
            let reason = if error.ends_with("i/o timeout") { "timeout" } else { "unknown" };
            session.counts.dial_failure(reason);
            session.forget(open.id);
            let _ = session.tell(Message::not_dialled(request.random, error));
            return;
        }
    };
    session.counts.dials.observe(begun.elapsed());
    session.connected(&request, &open);
    let _counted = session.counts.open.held();
    let _ = session.tell(Message::dialled(request.random, open.id));
    let reason = carry(&session, &open, stream).await;
    session.forget(open.id);
    // Behind the data, whose last bytes it must not overtake.
    let _ = session.say(Message::CloseResponse { id: open.id, error: reason }).await;
}

async fn dial(request: &DialRequest) -> Result<BoxStream, String> {
    let address = &request.address;
    if !request.protocol.starts_with("tcp") {
        return Err(format!("dial {}: unknown network {}", request.protocol, request.protocol));
    }
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
        .ok_or_else(|| format!("dial tcp: address {address}: missing port in address"))?;
    match timeout(DIAL_TIMEOUT, Direct.dial(host, port)).await {
        Ok(outcome) => outcome.map_err(|error: DialError| error.to_string()),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// Both ways at once. Protocol and upstream know no half-open tunnel: either direction's end ends it.
async fn carry(session: &Arc<Session>, open: &Open, stream: BoxStream) -> String {
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = async {
        let mut buffer = BytesMut::new();
        loop {
            let Some(room) = open.credit.take(CHUNK).await else { return Ok::<_, Ended>(String::new()) };
            buffer.reserve(room);
            let mut some = (&mut read).take(room as u64);
            let length = match some.read_buf(&mut buffer).await {
                Ok(0) => return Ok(String::new()),
                Ok(length) => length,
                Err(error) => return Ok(crate::net::io_text(&error)),
            };
            open.credit.give((room - length) as u64);
            session.say(Message::data(open.id, buffer.split().freeze())).await?;
        }
    };
    let writing = async {
        while let Ok(taken) = open.inbox.next().await {
            if let Err(error) = write.write_all(&taken.data).await {
                return crate::net::io_text(&error);
            }
            if taken.credit > 0 {
                let _ = session.tell(Message::credit(open.id, taken.credit as u64));
            }
        }
        String::new()
    };
    let flushed = async {
        open.closing.cancelled().await;
        tokio::time::sleep(FLUSH).await;
    };
    tokio::select! {
        reason = reading => reason.unwrap_or_default(),
        reason = writing => reason,
        () = open.inbox.stalled() => {
            session.counts.stalled();
            "the destination stopped reading".into()
        }
        () = flushed => String::new(),
    }
}
