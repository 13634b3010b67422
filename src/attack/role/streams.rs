//! What a fake kubelet does with exec, attach and port-forward once somebody believes it: it notes what is
//! typed, answers what it was told to say, and feeds whatever port is asked for.
//!
//! A session lasts until somebody types `exit` or hangs up, as with a shell.

use std::convert::Infallible;
use std::sync::Arc;

use http::StatusCode;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::say;
use crate::stream::portforward::{self, Target};
use crate::stream::remotecommand::{self, Negotiated, Options, Outcome};

/// As much of a piece of input is told.
const SHOWN: usize = 400;

/// exec and attach: forged output first, then everything that is typed.
pub fn command(kind: &'static str, request: Request<Incoming>, log: Arc<str>) -> Response<Full<Bytes>> {
    let (mut parts, _) = request.into_parts();
    let options = match Options::from_query(parts.uri.query().unwrap_or_default()) {
        Ok(options) => options,
        Err(refusal) => return refusal.response(),
    };
    let chosen = match remotecommand::negotiate(&parts) {
        Ok(chosen) => chosen,
        Err(refusal) => return refusal.response(),
    };
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else { return bad_request() };
    let response = chosen.response();
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            listen(kind, upgraded, chosen, options, &log).await;
        }
    });
    response.map(|()| Full::default())
}

async fn listen(kind: &str, upgraded: Upgraded, chosen: Negotiated, options: Options, log: &str) {
    let Ok(mut streams) = chosen.serve(TokioIo::new(upgraded), options).await else { return };
    if let Some(output) = streams.stdout.as_mut() {
        // Who has gone hears nothing.
        let _ = output.write_all(log.as_bytes()).await;
        let _ = output.flush().await;
    }
    if let Some(mut input) = streams.stdin.take() {
        let mut buffer = vec![0; 4096];
        while let Ok(count) = input.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            let text = told("keystrokes", kind, &buffer[..count]);
            if text.lines().any(|line| line.trim() == "exit") {
                break;
            }
        }
    }
    streams.finish(Outcome::Success).await;
}

/// port-forward: every port of the pod is the attacker.
pub fn forward(request: Request<Incoming>, log: Arc<str>) -> Response<Full<Bytes>> {
    let (mut parts, _) = request.into_parts();
    let chosen = match portforward::negotiate(&parts) {
        Ok(chosen) => chosen,
        Err(refusal) => return refusal.response(),
    };
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else { return bad_request() };
    let response = chosen.response();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let target = Target { pod: "web".into(), uid: String::new() };
        let connect = move |_: u16| {
            let log = Arc::clone(&log);
            async move {
                let (mine, theirs) = tokio::io::duplex(8192);
                tokio::spawn(feed(mine, log));
                Ok::<_, Infallible>(theirs)
            }
        };
        let _ = chosen.serve(TokioIo::new(upgraded), target, connect).await;
    });
    response.map(|()| Full::default())
}

/// Notes what is sent and answers.
async fn feed(mut end: DuplexStream, log: Arc<str>) {
    let mut buffer = vec![0; 4096];
    let count = end.read(&mut buffer).await.unwrap_or(0);
    told("forwarded", "portForward", &buffer[..count]);
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", log.len());
    let _ = end.write_all(head.as_bytes()).await;
    let _ = end.write_all(log.as_bytes()).await;
    let _ = end.shutdown().await;
}

/// Says what somebody sent, and gives it as text.
fn told(event: &str, kind: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
    say(&json!({"event": event, "of": kind, "text": text}));
    text
}

fn bad_request() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("Upgrade request required\n"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
