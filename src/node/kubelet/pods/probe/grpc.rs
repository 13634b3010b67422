//! gRPC health checks (`pkg/probe/grpc`): one unary call of `grpc.health.v1.Health/Check`, spoken by hand.
//!
//! The two messages have one field each, so there is no need for a gRPC library. Left out on purpose: TLS
//! and compression, which upstream's probes do not use either.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::step::go_duration;
use crate::net::{Dial, Direct};

/// A health answer is a few bytes long.
const LONGEST: usize = 64 * 1024;
/// `grpc-status` of a method or service the server does not have.
const UNIMPLEMENTED: u32 = 12;

/// Whether the service is serving; if not, why, in upstream's words.
pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let at = format!("{host}:{port}");
    let until = Instant::now() + limit;
    let stream = match timeout_at(until, Direct.dial(host, port)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("error: failed to connect service at {at:?}: {error}")),
        Err(_) => {
            let within = go_duration(limit);
            return Err(format!(
                "timeout: failed to connect service {at:?} within {within}: context deadline exceeded"
            ));
        }
    };
    let left = until.saturating_duration_since(Instant::now());
    match timeout(left, call(TokioIo::new(stream), &at, service)).await {
        Err(_) => Err(format!("timeout: health rpc did not complete within {}", go_duration(limit))),
        Ok(Err(error)) => Err(format!("error: health rpc probe failed: {error}")),
        Ok(Ok(Reply { code: 0, health, .. })) => match health {
            1 => Ok(()),
            other => Err(format!("service unhealthy (responded with {:?})", health_name(other))),
        },
        Ok(Ok(Reply { code: UNIMPLEMENTED, message, .. })) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Ok(Reply { code, message, .. })) => Err(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {message}",
            code_name(code)
        )),
    }
}

/// What the server said.
struct Reply {
    code: u32,
    message: String,
    /// `HealthCheckResponse.status`.
    health: u64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn call<S>(stream: S, at: &str, service: &str) -> Result<Reply, Failure>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    let driver = tokio::spawn(connection);
    let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36 grpc-go/1.72.2")
        .body(Full::new(question(service)))?;
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LONGEST).collect().await?;
    driver.abort();
    let trailers = body.trailers().cloned();
    // An answer without a message has its status in its headers.
    let status = trailers.unwrap_or(parts.headers);
    let code = text(&status, "grpc-status").parse();
    let code =
        code.map_err(|_| format!("unexpected HTTP status code received from server: {}", parts.status))?;
    let message = unescaped(text(&status, "grpc-message"));
    Ok(Reply { code, message, health: answer(&body.to_bytes()) })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A frame with `HealthCheckRequest{service}`.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

fn varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The status in a frame with `HealthCheckResponse{status}`; 0, which is unknown, for anything else.
fn answer(frame: &[u8]) -> u64 {
    match frame {
        [0, _, _, _, _, 0x08, status, ..] if *status < 0x80 => u64::from(*status),
        _ => 0,
    }
}

/// `grpc-message` is percent-encoded.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match (bytes[at], hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn health_name(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(code as usize).copied().unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_service_and_any_answer_is_read() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("web")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']);
        assert_eq!(answer(&[0, 0, 0, 0, 2, 8, 1]), 1);
        for broken in [&[][..], &[0, 0, 0, 0, 2, 8], &[1, 0, 0, 0, 2, 8, 1], &[0; 64]] {
            assert_eq!(answer(broken), 0);
        }
        assert_eq!(unescaped("no%20such%zz%"), "no such%zz%");
    }

    /// A server that answers every call with the given status and health.
    async fn server(grpc_status: &'static str, health: &'static [u8]) -> u16 {
        use http_body_util::StreamBody;
        use hyper::body::Frame;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let trailers = HeaderMap::from_iter([(
                        header::HeaderName::from_static("grpc-status"),
                        http::HeaderValue::from_static(grpc_status),
                    )]);
                    let frames: Vec<Result<Frame<Bytes>, std::convert::Infallible>> =
                        vec![Ok(Frame::data(Bytes::from_static(health))), Ok(Frame::trailers(trailers))];
                    let body = StreamBody::new(futures_util::stream::iter(frames));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                });
            let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // The client hangs up when it knows enough.
            let _ = serve.serve_connection(TokioIo::new(stream), service).await;
        });
        port
    }

    #[tokio::test]
    async fn a_service_is_healthy_only_when_it_says_so() {
        let second = Duration::from_secs(5);
        let port = server("0", &[0, 0, 0, 0, 2, 8, 1]).await;
        assert_eq!(check("127.0.0.1", port, "web", second).await, Ok(()));
        let port = server("0", &[0, 0, 0, 0, 2, 8, 2]).await;
        let text = check("127.0.0.1", port, "web", second).await.unwrap_err();
        assert_eq!(text, "service unhealthy (responded with \"NOT_SERVING\")");
        let port = server("12", &[]).await;
        let text = check("127.0.0.1", port, "", second).await.unwrap_err();
        assert!(text.starts_with("error: this server does not implement the grpc health protocol"), "{text}");
        let text = check("127.0.0.1", 1, "", second).await.unwrap_err();
        assert!(text.starts_with("error: failed to connect service at \"127.0.0.1:1\": "), "{text}");
    }
}
