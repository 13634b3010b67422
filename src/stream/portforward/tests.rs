//! Forwarding in its three forms, to sockets that are duplex pipes here.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::negotiate::{TUNNEL, wants_tunnel};
use super::{Target, negotiate};
use crate::stream::spdy::{Session, Stream};
use crate::stream::websocket::Tunnel;
use crate::stream::{Connection, StreamError};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("this should not take long")
}

fn target() -> Target {
    Target { pod: "sandbox-1".into(), uid: String::new() }
}

/// A pod: 80 echoes, 81 breaks off after a byte, anything else refuses.
async fn pod(port: u16) -> Result<DuplexStream, String> {
    let (near, mut far) = duplex(64 * 1024);
    match port {
        80 => tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(&mut far);
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
        }),
        81 => tokio::spawn(async move {
            let _ = far.read_u8().await;
        }),
        _ => return Err(format!("dial tcp4 127.0.0.1:{port}: connect: connection refused")),
    };
    Ok(near)
}

fn websocket(uri: &str, protocol: &str) -> Parts {
    let request = http::Request::builder()
        .uri(uri)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", protocol);
    request.body(()).unwrap().into_parts().0
}

fn spdy() -> Parts {
    let request = http::Request::builder()
        .uri("/portForward/default/web")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "portforward.k8s.io");
    request.body(()).unwrap().into_parts().0
}

type Serving = tokio::task::JoinHandle<Result<(), StreamError>>;

fn serve(parts: &Parts, io: impl Connection) -> Serving {
    tokio::spawn(negotiate(parts).unwrap().serve(io, target(), pod))
}

/// kubectl's half of a connection: the error stream, half-closed, then the data stream.
async fn pair(session: &Session, port: &str, request: &str) -> (Stream, Stream) {
    let error = [("streamtype", "error"), ("port", port), ("requestid", request)];
    let mut errors = soon(session.open(&error)).await.unwrap();
    errors.shutdown().await.unwrap();
    let data = [("streamtype", "data"), ("port", port), ("requestid", request)];
    (soon(session.open(&data)).await.unwrap(), errors)
}

async fn echoes(session: &Session, request: &str, len: usize) {
    let (data, mut errors) = pair(session, "80", request).await;
    let (mut from, mut to) = data.into_split();
    let sent: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
    let sending = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, read) = soon(async { tokio::join!(sending, from.read_to_end(&mut heard)) }).await;
    read.unwrap();
    assert!(heard == sent);
    let mut text = String::new();
    soon(errors.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "");
}

async fn forwards(session: Session, serving: Serving) {
    for round in 0..5 {
        let request: Vec<String> = (0..40).map(|number| (round * 40 + number).to_string()).collect();
        futures_util::future::join_all(request.iter().map(|request| echoes(&session, request, 20_000))).await;
    }
    let (mut data, mut errors) = pair(&session, "9999", "refused").await;
    let mut text = String::new();
    soon(errors.read_to_string(&mut text)).await.unwrap();
    assert_eq!(
        text,
        "error forwarding port 9999 to pod sandbox-1, uid : dial tcp4 127.0.0.1:9999: connect: connection refused"
    );
    assert_eq!(soon(data.read_u8()).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let (mut data, mut errors) = pair(&session, "81", "short").await;
    data.write_all(b"xyz").await.unwrap();
    let _ = soon(data.read_to_end(&mut Vec::new())).await;
    assert_eq!(soon(errors.read(&mut [0; 10])).await.unwrap(), 0, "nothing said");
    echoes(&session, "still alive", 3_000_000).await;
    drop(session);
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn spdy_pairs_forward_connections_and_say_what_failed() {
    let (near, far) = duplex(64 * 1024);
    let serving = serve(&spdy(), far);
    forwards(Session::client(near), serving).await;
}

#[tokio::test]
async fn the_tunnel_carries_the_same_spdy() {
    let (near, far) = duplex(64 * 1024);
    let parts = websocket("/portForward/default/web", TUNNEL);
    assert!(wants_tunnel(&parts.headers));
    let serving = serve(&parts, far);
    forwards(Session::client(Tunnel::client(near).await), serving).await;
}

#[tokio::test]
async fn streams_without_a_port_or_of_an_odd_kind_are_rejected() {
    let (near, far) = duplex(64 * 1024);
    let _serving = serve(&spdy(), far);
    let session = Session::client(near);
    let odd: [&[(&str, &str)]; 5] = [
        &[("streamtype", "data")],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "65536")],
        &[("port", "80")],
        &[("streamtype", "stdin"), ("port", "80")],
    ];
    for headers in odd {
        assert!(matches!(soon(session.open(headers)).await, Err(StreamError::Reset)), "{headers:?}");
    }
    echoes(&session, "and yet", 10).await;
}

#[tokio::test]
async fn old_clients_send_no_request_id() {
    let (near, far) = duplex(64 * 1024);
    let _serving = serve(&spdy(), far);
    let session = Session::client(near);
    let _errors = soon(session.open(&[("streamtype", "error"), ("port", "80")])).await.unwrap();
    let mut data = soon(session.open(&[("streamtype", "data"), ("port", "80")])).await.unwrap();
    data.write_all(b"x").await.unwrap();
    assert_eq!(soon(data.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn half_a_pair_is_told_that_the_other_half_never_came() {
    let (near, far) = duplex(64 * 1024);
    let _serving = serve(&spdy(), far);
    let session = Session::client(near);
    let headers = [("streamtype", "error"), ("port", "80"), ("requestid", "1")];
    let mut errors = session.open(&headers).await.unwrap();
    errors.shutdown().await.unwrap();
    let mut text = String::new();
    soon(errors.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "(request=1) timed out waiting for streams");
}

#[tokio::test]
async fn plain_channels_name_their_port_then_carry_it() {
    let (near, far) = duplex(64 * 1024);
    let parts = websocket("/portForward/default/web?port=80&port=9999", "v4.channel.k8s.io");
    let serving = serve(&parts, far);
    let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    client.send(Message::Binary(Bytes::from_static(b"\x00hello"))).await.unwrap();
    let mut channels: HashMap<u8, Vec<u8>> = HashMap::new();
    let refusal = b"error forwarding port 9999 to pod sandbox-1, uid : \
        dial tcp4 127.0.0.1:9999: connect: connection refused";
    let whole = |channels: &HashMap<u8, Vec<u8>>| {
        let len = |channel| channels.get(&channel).map_or(0, Vec::len);
        len(0) == 7 && len(1) == 2 && len(2) == 2 && len(3) == 2 + refusal.len()
    };
    while !whole(&channels) {
        let message = soon(client.next()).await.unwrap().unwrap().into_data();
        channels.entry(message[0]).or_default().extend_from_slice(&message[1..]);
    }
    assert_eq!(channels[&0], b"\x50\x00hello");
    assert_eq!(channels[&1], b"\x50\x00");
    assert_eq!(channels[&2], [0x0f, 0x27]);
    assert_eq!(&channels[&3][2..], refusal);
    drop(client);
    soon(serving).await.unwrap().unwrap();
}
