//! Sessions against each other, and against a peer that behaves as Go's library does.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::frame::{self, Control, HEAD, Head, Status};
use super::headers::{Deflater, Inflater};
use super::state::WINDOW;
use super::{Session, Stream};
use crate::stream::StreamError;

const MB: usize = 1 << 20;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("this should not take long")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn sessions() -> (Session, Session) {
    let (a, b) = duplex(64 * 1024);
    (Session::client(a), Session::server(b))
}

async fn open(client: &Session, server: &mut Session, kind: &str) -> (Stream, Stream) {
    let headers = [("streamtype", kind)];
    let accepting = async { server.accept().await.expect("a stream").accept() };
    let (opened, accepted) = soon(async { tokio::join!(client.open(&headers), accepting) }).await;
    (opened.unwrap(), accepted)
}

/// A peer that writes and reads frames itself and knows no windows.
struct Raw {
    io: DuplexStream,
    deflater: Deflater,
    inflater: Inflater,
}

impl Raw {
    fn against(start: impl FnOnce(DuplexStream) -> Session) -> (Self, Session) {
        let (io, other) = duplex(16 * 1024);
        (Self { io, deflater: Deflater::new(), inflater: Inflater::new() }, start(other))
    }

    async fn put(&mut self, put: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        put(&mut out);
        soon(self.io.write_all(&out)).await.unwrap();
    }

    async fn syn(&mut self, id: u32) {
        let block = self.deflater.block(&[("streamtype", "data")]);
        self.put(|out| frame::put_syn_stream(out, id, &block)).await;
    }

    /// The next frame that is not about windows: its kind (0 for data), and what is in it.
    async fn next(&mut self) -> (u16, u32, bool, Vec<u8>) {
        loop {
            let mut head = [0; HEAD];
            soon(self.io.read_exact(&mut head)).await.unwrap();
            let (kind, mut id, fin, len) = match Head::parse(head).unwrap() {
                Head::Data { id, fin, len } => (0, id, fin, len),
                Head::Control { kind, flags, len } => (kind, 0, flags == 1, len),
            };
            let mut payload = vec![0; len];
            soon(self.io.read_exact(&mut payload)).await.unwrap();
            if kind != 0 {
                match Control::parse(kind, 0, &payload).unwrap() {
                    Control::Settings { .. } | Control::WindowUpdate { .. } => continue,
                    Control::SynReply { id: replied, block, .. } => {
                        assert!(self.inflater.headers(block).unwrap().is_empty());
                        id = replied;
                    }
                    Control::Reset { id: other } | Control::Ping { id: other } => id = other,
                    _ => {}
                }
            }
            return (kind, id, fin, payload);
        }
    }
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_and_close_by_halves() {
    let (client, mut server) = sessions();
    let sent = pattern(5 * MB);
    let mut exchanges = Vec::new();
    for kind in ["one", "two", "three"] {
        let (mut here, mut there) = open(&client, &mut server, kind).await;
        let sent = sent.clone();
        exchanges.push(tokio::spawn(async move {
            let (question, answer) = (&sent[..3 * MB], &sent[MB..]);
            let asking = async {
                here.write_all(question).await.unwrap();
                here.shutdown().await.unwrap();
                let mut heard = Vec::new();
                here.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let answering = async {
                let mut heard = Vec::new();
                there.read_to_end(&mut heard).await.unwrap();
                there.write_all(answer).await.unwrap();
                drop(there);
                heard
            };
            let (answered, asked) = tokio::join!(asking, answering);
            assert!(asked == question && answered == answer);
        }));
    }
    for exchange in exchanges {
        soon(exchange).await.unwrap();
    }
}

#[tokio::test]
async fn a_stalled_reader_holds_no_other_stream_back_and_little_waits_for_it() {
    let (client, mut server) = sessions();
    let (mut stalled, mut unread) = open(&client, &mut server, "stalled").await;
    let (mut lively, mut echo) = open(&client, &mut server, "lively").await;
    let written = tokio::spawn(async move {
        let mut written = 0;
        while let Ok(done) = timeout(Duration::from_secs(1), stalled.write_all(&[7; 65536])).await {
            done.unwrap();
            written += 65536;
        }
        (written, stalled)
    });
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(&mut echo);
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let sent = pattern(20 * MB);
    let (mut from, mut to) = tokio::io::split(&mut lively);
    let sending = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, read) = soon(async { tokio::join!(sending, from.read_to_end(&mut heard)) }).await;
    read.unwrap();
    assert!(heard == sent);
    let (written, stalled) = soon(written).await.unwrap();
    assert!((WINDOW..=2 * WINDOW).contains(&written), "{written} bytes wait for nobody");
    let mut some = vec![0; MB];
    soon(unread.read_exact(&mut some)).await.unwrap();
    drop(stalled);
    let mut rest = Vec::new();
    soon(unread.read_to_end(&mut rest)).await.unwrap();
    assert!(MB + rest.len() >= written);
}

#[tokio::test]
async fn a_peer_without_windows_is_sent_everything_and_stopped_only_by_a_full_inbox() {
    let (mut raw, mut server) = Raw::against(Session::server);
    raw.syn(1).await;
    let mut stream = soon(server.accept()).await.unwrap().accept();
    let sent = pattern(6 * MB);
    let expected = sent.clone();
    let (mut from, mut to) = tokio::io::split(&mut stream);
    let sending = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let hearing = async {
        assert_eq!(raw.next().await.0, 2, "SYN_REPLY before any data");
        let mut heard = Vec::new();
        loop {
            let (kind, id, fin, data) = raw.next().await;
            assert_eq!((kind, id), (0, 1));
            heard.extend(data);
            if fin {
                return heard;
            }
        }
    };
    let (_, heard) = soon(async { tokio::join!(sending, hearing) }).await;
    assert!(heard == expected);

    let mut piece = BytesMut::new();
    frame::put_data(&mut piece, 1, false, &[9; 65536]);
    let mut written = 0usize;
    while timeout(Duration::from_millis(500), raw.io.write_all(&piece)).await.is_ok() {
        written += 65536;
        assert!(written < 8 * MB, "an inbox without end");
    }
    assert!(written >= 4 * MB - 65536);
    // What a stalled write had already put on the wire is a frame's beginning; reading makes room for it.
    let reading = async {
        let mut got = vec![0; written];
        from.read_exact(&mut got).await.unwrap();
        got
    };
    assert!(soon(reading).await.iter().all(|byte| *byte == 9));
}

#[tokio::test]
async fn pings_are_answered_and_answers_are_not() {
    let (mut raw, server) = Raw::against(Session::server);
    raw.put(|out| frame::put_ping(out, 2)).await;
    raw.put(|out| frame::put_ping(out, 7)).await;
    assert_eq!(raw.next().await, (6, 7, false, vec![0, 0, 0, 7]));
    server.pinger().send();
    assert_eq!(raw.next().await.1, 2, "the server's pings are even");
}

#[tokio::test]
async fn a_peer_that_asks_and_never_listens_is_read_no_more() {
    let (mut raw, _server) = Raw::against(Session::server);
    let mut pings = BytesMut::new();
    (0..1000).for_each(|number| frame::put_ping(&mut pings, number * 2 + 1));
    let mut written = 0;
    while timeout(Duration::from_millis(300), raw.io.write_all(&pings)).await.is_ok() {
        written += pings.len();
        assert!(written < MB, "answers without end");
    }
}

#[tokio::test]
async fn a_reset_reaches_both_directions_of_its_stream_and_no_other() {
    let (client, mut server) = sessions();
    let (here, mut there) = open(&client, &mut server, "one").await;
    let (mut other, mut same) = open(&client, &mut server, "two").await;
    here.reset();
    let error = soon(there.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let error = soon(there.write_all(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    other.write_all(b"x").await.unwrap();
    assert_eq!(soon(same.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn a_stream_nobody_accepts_is_refused() {
    let (client, mut server) = sessions();
    let headers = [("streamtype", "odd"), ("port", "80")];
    let refusing = async {
        let incoming = server.accept().await.unwrap();
        assert_eq!(incoming.header("streamtype"), Some("odd"));
        assert_eq!(incoming.header("port"), Some("80"));
        assert_eq!(incoming.header("requestid"), None);
        drop(incoming);
    };
    let (opened, ()) = soon(async { tokio::join!(client.open(&headers), refusing) }).await;
    assert!(matches!(opened, Err(StreamError::Reset)), "{opened:?}");
}

#[tokio::test]
async fn stream_numbers_out_of_order_are_reset() {
    let (mut raw, mut server) = Raw::against(Session::server);
    raw.syn(5).await;
    raw.syn(3).await;
    raw.syn(2).await;
    assert_eq!(soon(server.accept()).await.unwrap().id(), 5);
    let resets = [raw.next().await, raw.next().await];
    assert!(resets.iter().all(|(kind, ..)| *kind == 3));
    let mut ids: Vec<u32> = resets.iter().map(|(_, id, ..)| *id).collect();
    ids.sort_unstable();
    assert!(ids.contains(&2) || ids.contains(&3), "{ids:?}");
}

#[tokio::test]
async fn closing_sends_everything_then_goaway_and_lets_the_other_end_close() {
    let (mut raw, mut server) = Raw::against(Session::server);
    raw.syn(1).await;
    let mut stream = soon(server.accept()).await.unwrap().accept();
    soon(stream.write_all(&pattern(100_000))).await.unwrap();
    drop(stream);
    let closing = tokio::spawn(server.close());
    let mut heard = Vec::new();
    assert_eq!(raw.next().await.0, 2);
    loop {
        match raw.next().await {
            (0, 1, fin, data) => {
                heard.extend(data);
                if fin {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(heard == pattern(100_000));
    let (kind, _, _, payload) = raw.next().await;
    assert_eq!((kind, &payload[..]), (7, &[0, 0, 0, 1, 0, 0, 0, 0][..]), "the last good stream, status OK");
    // Go's library drops what it has queued when it reads the end, so it must be the one that closes.
    assert!(timeout(Duration::from_millis(200), raw.io.read_u8()).await.is_err());
    assert!(!closing.is_finished());
    drop(raw);
    soon(closing).await.unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_told_to_everyone() {
    let (client, mut server) = sessions();
    let (mut here, mut there) = open(&client, &mut server, "one").await;
    let closed = server.closed();
    let opening = async {
        let opened = client.open(&[]).await;
        assert!(matches!(opened, Err(StreamError::Closed)), "{opened:?}");
    };
    let losing = async {
        let _pending = server.accept().await.unwrap();
        drop(server);
    };
    soon(async { tokio::join!(opening, losing) }).await;
    soon(closed.cancelled()).await;
    assert_eq!(soon(there.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(soon(here.read_u8()).await.is_err());
    assert!(soon(here.write_all(b"x")).await.is_err());
}

#[tokio::test]
async fn data_for_streams_that_are_gone_is_ignored() {
    let (mut raw, mut server) = Raw::against(Session::server);
    raw.syn(1).await;
    let stream = soon(server.accept()).await.unwrap().accept();
    drop(stream);
    assert_eq!(raw.next().await.0, 2);
    assert_eq!(raw.next().await, (0, 1, true, vec![]));
    let mut data = BytesMut::new();
    frame::put_data(&mut data, 1, false, &[0; 65536]);
    frame::put_data(&mut data, 77, true, &[0; 65536]);
    for _ in 0..400 {
        soon(raw.io.write_all(&data)).await.unwrap();
    }
    raw.put(|out| frame::put_reset(out, 1, Status::Cancel)).await;
    raw.put(|out| frame::put_ping(out, 1)).await;
    assert_eq!(raw.next().await.0, 6, "the session goes on");
}
