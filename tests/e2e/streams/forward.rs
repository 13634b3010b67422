//! port-forward: many connections over one session, much over one of them, and one that breaks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{for_all, kubectl, text};
use crate::kit::{Lab, eventually, rounds};

/// A forwarded port; ends with its kubectl.
pub struct Forward {
    child: Child,
    address: SocketAddr,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Forward {
    pub fn start(mut command: Command, to: &str, port: u16) -> Self {
        let mut child = command
            .args(["port-forward", to, &format!(":{port}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("kubectl says where it listens").unwrap();
        // "Forwarding from 127.0.0.1:40000 -> 8080"
        let address = first.split(' ').nth(2).and_then(|word| word.parse().ok());
        // kubectl goes on talking; nobody may make it wait.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.unwrap_or_else(|| panic!("{first}")) }
    }

    pub fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: web\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or("no answer")?;
        Ok(answer.split_off(end + 4))
    }
}

#[test]
fn a_forwarded_port_carries_many_connections_and_outlives_a_reset_one() {
    let lab = Lab::up();
    let size = rounds(1000) << 20;
    lab.run(
        "web",
        &format!(
            "mkdir /tmp/www && cd /tmp/www && for n in $(seq 0 99); do echo page $n > page-$n; done; \
             head -c {size} /dev/zero > big; exec python3 -m http.server 8080"
        ),
    );
    // kubectl ends when a connection it forwards is refused, so the server must be there first.
    eventually(Duration::from_secs(30), "the server listens", || {
        let connect = "import socket; socket.create_connection(('127.0.0.1', 8080))";
        let ran = lab.kubectl(&["exec", "web", "--", "python3", "-c", connect]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    for_all(&lab, |lab, version, wire| {
        let forward = Forward::start(kubectl(lab, version, wire), "pod/web", 8080);
        eventually(Duration::from_secs(20), "the first page", || forward.get("/page-0").map(drop));
        std::thread::scope(|scope| {
            for number in 0..100 {
                let forward = &forward;
                scope.spawn(move || {
                    let page = forward.get(&format!("/page-{number}")).unwrap();
                    assert_eq!(text(&page), format!("page {number}\n"));
                });
            }
        });
        // A client that asks for much and goes away without reading resets its connection.
        for _ in 0..3 {
            let mut rude = TcpStream::connect(forward.address).unwrap();
            rude.write_all(b"GET /big HTTP/1.0\r\n\r\n").unwrap();
            rude.read_exact(&mut [0; 100]).unwrap();
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&rude, nix::sys::socket::sockopt::Linger, &linger).unwrap();
        }
        assert_eq!(text(&forward.get("/page-7").unwrap()), "page 7\n");
        assert_eq!(forward.get("/big").unwrap().len(), size);
    });
}
