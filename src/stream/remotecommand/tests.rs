//! Commands over both transports, against a WebSocket client and our own SPDY client.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Options, Outcome, Streams, connect, negotiate, translate};
use crate::stream::pump;

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };
const TTY: Options = Options { stdin: true, stdout: true, stderr: false, tty: true };

type Client = WebSocketStream<DuplexStream>;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("this should not take long")
}

fn request(headers: &[(&str, &str)]) -> Parts {
    let mut builder = http::Request::builder().uri("/exec/default/web/web");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn offering(protocol: &str) -> Parts {
    request(&[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocol),
    ])
}

async fn websocket(protocol: &str, options: Options) -> (Client, Streams) {
    let parts = offering(protocol);
    let (near, far) = duplex(256 * 1024);
    let negotiated = negotiate(&parts).unwrap();
    assert_eq!(negotiated.response().headers()["sec-websocket-protocol"], protocol);
    let streams = negotiated.serve(far, options).await.unwrap();
    (WebSocketStream::from_raw_socket(near, Role::Client, None).await, streams)
}

fn spdy(protocol: &str) -> Parts {
    request(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)])
}

/// The next message that is neither empty on its channel nor a ping's answer.
async fn next(client: &mut Client) -> Message {
    loop {
        let message = soon(client.next()).await.expect("a message").unwrap();
        if message.len() > 1 || message.is_close() {
            return message;
        }
    }
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(bytes))
}

#[tokio::test]
async fn a_v5_client_is_greeted_served_and_told_the_exit_code() {
    let (mut client, mut streams) = websocket("v5.channel.k8s.io", ALL).await;
    assert_eq!(soon(client.next()).await.unwrap().unwrap(), binary(b"\x01"), "an empty frame says connected");
    client.send(binary(b"\x00question")).await.unwrap();
    client.send(binary(b"\xff\x00")).await.unwrap();
    let mut heard = String::new();
    soon(streams.stdin.as_mut().unwrap().read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "question");
    streams.stdout.as_mut().unwrap().write_all(b"answer").await.unwrap();
    streams.stderr.as_mut().unwrap().write_all(b"hm").await.unwrap();
    assert_eq!(next(&mut client).await, binary(b"\x01answer"));
    assert_eq!(next(&mut client).await, binary(b"\x02hm"));
    let closed = streams.closed.clone();
    let finishing = tokio::spawn(streams.finish(Outcome::exited(7, &["false".into()])));
    let status = next(&mut client).await.into_data();
    assert_eq!(status[0], 3);
    let status: serde_json::Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    let Message::Close(Some(frame)) = next(&mut client).await else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Normal);
    assert!(!finishing.is_finished(), "the client has not closed yet");
    assert!(soon(client.next()).await.is_none_or(|message| message.is_err()));
    drop(client);
    soon(finishing).await.unwrap();
    assert!(closed.is_cancelled());
}

#[tokio::test]
async fn a_connection_on_which_nobody_says_anything_is_closed_after_its_time() {
    const SHORT: Duration = Duration::from_millis(200);
    let (near, far) = duplex(64 * 1024);
    let idle = negotiate(&offering("v5.channel.k8s.io")).unwrap().idle(SHORT).serve(far, ALL).await.unwrap();
    let (_open, patient) = websocket("v5.channel.k8s.io", ALL).await;
    soon(idle.closed.cancelled()).await;
    assert!(!patient.closed.is_cancelled(), "four hours are not over");
    drop(near);
    let (near, far) = duplex(64 * 1024);
    let serving = negotiate(&spdy("v4.channel.k8s.io")).unwrap().idle(SHORT);
    let serving = tokio::spawn(serving.serve(far, ALL));
    let client = soon(connect(near, Some("v4.channel.k8s.io"), ALL)).await.unwrap();
    let idle = soon(serving).await.unwrap().unwrap();
    soon(idle.closed.cancelled()).await;
    drop(client);
}

#[tokio::test]
async fn base64_and_the_oldest_protocol_speak_their_own_way() {
    let (mut client, mut streams) = websocket("base64.channel.k8s.io", ALL).await;
    client.send(Message::text("0aGk=")).await.unwrap();
    let mut heard = [0; 2];
    soon(streams.stdin.as_mut().unwrap().read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hi");
    streams.stdout.as_mut().unwrap().write_all(b"hi").await.unwrap();
    assert_eq!(next(&mut client).await, Message::text("1aGk="));
    tokio::spawn(streams.finish(Outcome::Error("no".into())));
    let text = next(&mut client).await;
    assert_eq!(text, Message::text("3SW50ZXJuYWwgZXJyb3Igb2NjdXJyZWQ6IG5v"));
}

#[tokio::test]
async fn sizes_reach_a_terminal_and_the_newest_wins() {
    let (mut client, mut streams) = websocket("v4.channel.k8s.io", TTY).await;
    assert!(streams.stderr.is_none());
    let mut resize = streams.resize.take().unwrap();
    client.send(binary(b"\x04{\"Width\":80,\"Height\":24}\n")).await.unwrap();
    assert_eq!(soon(resize.recv()).await, Some((80, 24)));
    client.send(binary(b"\x04{\"Width\":1,\"Height\":1}{\"Width\":132,\"Height\":50}")).await.unwrap();
    assert_eq!(soon(resize.recv()).await, Some((132, 50)));
    drop(client);
    assert_eq!(soon(resize.recv()).await, None);
}

#[tokio::test]
async fn a_websocket_client_that_vanishes_is_noticed() {
    let (client, mut streams) = websocket("v5.channel.k8s.io", ALL).await;
    drop(client);
    soon(streams.closed.cancelled()).await;
    assert!(soon(streams.stdin.take().unwrap().read_u8()).await.is_err());
    let mut stdout = streams.stdout.take().unwrap();
    let error = soon(async {
        loop {
            if let Err(error) = stdout.write_all(b"x").await {
                return error;
            }
        }
    });
    assert_eq!(error.await.kind(), std::io::ErrorKind::BrokenPipe);
    soon(streams.finish(Outcome::Success)).await;
}

#[tokio::test]
async fn output_flows_while_input_waits_and_what_waits_is_bounded() {
    let (client, mut streams) = websocket("v5.channel.k8s.io", ALL).await;
    let (mut to_server, mut from_server) = client.split();
    let mut message = vec![0u8; 32 * 1024 + 1];
    message[0] = 0;
    let message = Message::Binary(message.into());
    let mut sent = 0;
    while timeout(Duration::from_millis(500), to_server.send(message.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "3 MB wait for nobody");
    }
    assert!(sent > 20);
    let stdout = streams.stdout.as_mut().unwrap();
    let writing = async {
        for _ in 0..200 {
            stdout.write_all(&[1; 65536]).await.unwrap();
        }
    };
    let reading = async {
        let mut heard = 0;
        while heard < 200 * 65536 {
            heard += from_server.next().await.unwrap().unwrap().len().saturating_sub(1);
        }
    };
    soon(async { tokio::join!(writing, reading) }).await;
}

/// What a kubelet does with a command that copies its input, then says something else and ends.
async fn cat(mut streams: Streams, outcome: Outcome) {
    let (mut stdin, mut stdout) = (streams.stdin.take().unwrap(), streams.stdout.take().unwrap());
    pump(&mut stdin, &mut stdout).await.unwrap();
    drop((stdin, stdout));
    if let Some(stderr) = &mut streams.stderr {
        stderr.write_all(b"done").await.unwrap();
    }
    streams.finish(outcome).await;
}

#[tokio::test]
async fn spdy_protocols_carry_input_output_and_the_outcome() {
    for (protocol, code) in [("v4.channel.k8s.io", 7), ("v3.channel.k8s.io", 0), ("channel.k8s.io", 0)] {
        let (near, far) = duplex(64 * 1024);
        let negotiated = negotiate(&spdy(protocol)).unwrap();
        assert_eq!(negotiated.response().headers()["x-stream-protocol-version"], protocol);
        let kubelet = tokio::spawn(async move {
            let streams = negotiated.serve(far, ALL).await.unwrap();
            cat(streams, Outcome::exited(code, &[])).await;
        });
        let mut command = soon(connect(near, Some(protocol), ALL)).await.unwrap();
        let input = vec![5u8; 3_000_000];
        let (mut stdin, mut stdout) = (command.stdin.take().unwrap(), command.stdout.take().unwrap());
        let sending = async {
            stdin.write_all(&input).await.unwrap();
            stdin.shutdown().await.unwrap();
        };
        let mut output = Vec::new();
        let (_, read) = soon(async { tokio::join!(sending, stdout.read_to_end(&mut output)) }).await;
        read.unwrap();
        assert!(output == input);
        let mut errors = String::new();
        soon(command.stderr.take().unwrap().read_to_string(&mut errors)).await.unwrap();
        assert_eq!(errors, "done");
        let outcome = soon(command.end.outcome()).await;
        match code {
            0 => assert_eq!(outcome, Outcome::Success),
            _ => assert!(matches!(outcome, Outcome::ExitCode { code: 7, .. }), "{outcome:?}"),
        }
        soon(kubelet).await.unwrap();
    }
}

#[tokio::test]
async fn a_kubelet_that_vanishes_is_an_error_not_a_success() {
    let (near, far) = duplex(64 * 1024);
    let negotiated = negotiate(&spdy("v4.channel.k8s.io")).unwrap();
    let serving = tokio::spawn(negotiated.serve(far, ALL));
    let command = soon(connect(near, Some("v4.channel.k8s.io"), ALL)).await.unwrap();
    drop(soon(serving).await.unwrap());
    let outcome = soon(command.end.outcome()).await;
    assert!(matches!(outcome, Outcome::Error(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_spdy_client_that_creates_no_streams_is_given_up() {
    let (near, far) = duplex(1024);
    let negotiated = negotiate(&spdy("v4.channel.k8s.io")).unwrap();
    let error = soon(negotiated.serve(far, ALL)).await.err().unwrap();
    assert_eq!(error.to_string(), "timed out waiting for client to create streams");
    drop(near);
}

/// What the API server does with a client and a kubelet's connection.
async fn translated(mut client: Streams, kubelet: DuplexStream, options: Options) {
    if let Some(outcome) = translate(&mut client, kubelet, Some("v4.channel.k8s.io"), options).await {
        client.finish(outcome).await;
    }
}

#[tokio::test]
async fn a_websocket_client_is_translated_for_a_kubelet_that_speaks_spdy() {
    for code in [0, 3] {
        let (mut client, streams) = websocket("v5.channel.k8s.io", ALL).await;
        let (near, far) = duplex(64 * 1024);
        let negotiated = negotiate(&spdy("v4.channel.k8s.io")).unwrap();
        let kubelet = tokio::spawn(async move {
            let streams = negotiated.serve(far, ALL).await.unwrap();
            cat(streams, Outcome::exited(code, &[])).await;
        });
        let translating = tokio::spawn(translated(streams, near, ALL));
        client.send(binary(b"\x00through two protocols")).await.unwrap();
        client.send(binary(b"\xff\x00")).await.unwrap();
        let mut by_channel = [const { Vec::new() }; 4];
        loop {
            match soon(client.next()).await.unwrap().unwrap() {
                Message::Binary(bytes) => by_channel[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
                Message::Close(frame) => {
                    assert_eq!(frame.unwrap().code, CloseCode::Normal);
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(by_channel[1], b"through two protocols");
        assert_eq!(by_channel[2], b"done");
        let status: serde_json::Value = serde_json::from_slice(&by_channel[3]).unwrap();
        match code {
            0 => assert_eq!(status["status"], "Success"),
            _ => assert_eq!(
                status["message"],
                "command terminated with non-zero exit code: command terminated with exit code 3"
            ),
        }
        let _ = soon(client.next()).await;
        drop(client);
        soon(translating).await.unwrap();
        soon(kubelet).await.unwrap();
    }
}

#[tokio::test]
async fn sizes_are_translated_and_a_client_that_leaves_ends_the_command() {
    let (mut client, streams) = websocket("v5.channel.k8s.io", TTY).await;
    let (near, far) = duplex(64 * 1024);
    let negotiated = negotiate(&spdy("v4.channel.k8s.io")).unwrap();
    let serving = tokio::spawn(negotiated.serve(far, TTY));
    let translating = tokio::spawn(translated(streams, near, TTY));
    let mut kubelet = soon(serving).await.unwrap().unwrap();
    client.send(binary(b"\x04{\"Width\":80,\"Height\":24}\n")).await.unwrap();
    assert_eq!(soon(kubelet.resize.as_mut().unwrap().recv()).await, Some((80, 24)));
    drop(client);
    soon(translating).await.unwrap();
    soon(kubelet.closed.cancelled()).await;
}
