//! Hostile input at the front door: what is too long, half open or broken is turned away and nobody else notices.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::kit::server::ApiServer;
use crate::kit::{eventually, rounds};

const JANE: (&str, &str) = ("Authorization", "Bearer jane-token");

/// A good request, which must be answered whatever else goes on.
#[track_caller]
fn serves(server: &ApiServer) {
    let began = Instant::now();
    let answer = server.ask(None, "GET", "/version", &[JANE], "");
    assert_eq!(answer.code, 200, "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[test]
fn what_is_too_long_is_refused_with_upstreams_code() {
    let server = ApiServer::start(&[], &["--authorization-mode=RBAC"]);
    let root = ("Authorization", "Bearer root-token");
    let body =
        format!("{{\"metadata\":{{\"name\":\"big\"}},\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(4 << 20));
    let answer = server.ask(None, "POST", "/api/v1/namespaces/default/configmaps", &[root], &body);
    assert_eq!(answer.code, 413, "{}", &answer.text[..answer.text.len().min(200)]);
    assert_eq!(answer.json()["reason"], "RequestEntityTooLarge");
    serves(&server);
    let long = "a".repeat(2 << 20);
    let answer = server.ask(None, "GET", "/version", &[JANE, ("X-Long", &long)], "");
    assert_eq!(answer.code, 431, "{}", answer.head);
    let answer = server.ask(None, "GET", &format!("/{long}"), &[JANE], "");
    assert!(matches!(answer.code, 414 | 431), "{}", answer.head);
    let many: String = (0..5000).map(|number| format!("X-{number}: y\r\n")).collect();
    let answer = server.raw(None, format!("GET /version HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes());
    assert_eq!(answer.code, 431, "{}", answer.head);
    serves(&server);
}

#[test]
fn broken_requests_are_400_and_plain_http_is_told_so() {
    let server = ApiServer::start(&[], &["--authorization-mode=RBAC"]);
    for bytes in [
        &b"GET / HTTP/9.9\r\n\r\n"[..],
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET  /version HTTP/1.1\r\n\r\n",
    ] {
        let answer = server.raw(None, bytes);
        assert!(matches!(answer.code, 0 | 400 | 505), "{:?} {answer:?}", String::from_utf8_lossy(bytes));
    }
    let answer = server.raw(None, b"GET /version HTTP/1.1\r\n\r\n");
    let said = "400 Bad Request: missing required Host header";
    assert_eq!((answer.code, answer.text.as_str()), (400, said), "{answer:?}");
    let mut plain = TcpStream::connect(server.address).unwrap();
    plain.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut plain, &mut said).unwrap();
    assert!(said.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{said}");
    serves(&server);
}

#[test]
fn bodies_that_are_no_object_of_their_kind_are_refused() {
    let server = ApiServer::start(&[], &["--authorization-mode=RBAC"]);
    let root = ("Authorization", "Bearer root-token");
    let deep = "[".repeat(100_000);
    for body in ["{", "[]", "null", "\"x\"", "{\"kind\":\"Pod\"}", "{\"metadata\":7}", deep.as_str()] {
        let answer = server.ask(None, "POST", "/api/v1/namespaces/default/configmaps", &[root], body);
        assert!(matches!(answer.code, 400 | 422), "{} for {}", answer.code, &body[..body.len().min(40)]);
    }
    serves(&server);
}

#[test]
fn thousands_of_half_open_connections_leave_others_alone() {
    let server = ApiServer::start(&[], &["--authorization-mode=RBAC"]);
    let count = rounds(10_000);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let before = descriptors();
    let mut open = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = TcpStream::connect(server.address).unwrap();
        // Some say nothing, some begin a record and stop.
        if number % 2 == 0 {
            stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
        }
        open.push(stream);
        if number % 500 == 0 {
            serves(&server);
        }
    }
    serves(&server);
    // They do not stay for ever either.
    let deadline = Instant::now() + Duration::from_secs(30);
    let stream = &mut open[0];
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let read = std::io::Read::read(stream, &mut [0; 16]);
    assert!(matches!(read, Ok(0) | Err(_)) && Instant::now() < deadline, "{read:?}");
    serves(&server);
    drop(open);
    eventually(Duration::from_secs(60), "their descriptors are given back", || {
        let now = descriptors();
        if now <= before + 8 { Ok(()) } else { Err(format!("{before} before, {now} now")) }
    });
    serves(&server);
}
