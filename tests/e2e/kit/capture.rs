//! What crosses a host's links: TCP over IPv4, by a packet socket inside the host.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::Lab;
use super::lab::binary;

/// Collects until its standard input ends, then prints one line a packet.
const PROGRAM: &str = "
import select, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.setblocking(False)
print('listening', flush=True)
seen, going = [], True
while True:
    ready = select.select([s, 0] if going else [s], [], [], None if going else 0)[0]
    if not ready: break
    if 0 in ready: going = False
    if s not in ready: continue
    p, a = s.recvfrom(65535)
    if a[1] != 0x800 or p[9] != 6: continue
    h = (p[0] & 15) * 4
    data = p[h + (p[h + 12] >> 4) * 4:int.from_bytes(p[2:4], 'big')]
    ends = ['%d.%d.%d.%d:%d' % (*p[at:at + 4], int.from_bytes(p[port:port + 2], 'big')) for at, port in ((12, h), (16, h + 2))]
    seen.append(' '.join([a[0], *ends, str(p[h + 13]), data.hex() or '-']))
print('\\n'.join(seen))
";

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A capture that is running.
pub struct Capture {
    child: Child,
    end: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// One TCP segment, as one interface saw it.
#[derive(Debug)]
pub struct Segment {
    pub interface: String,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    /// The first of a connection.
    pub opens: bool,
    pub data: Vec<u8>,
}

impl Capture {
    /// Starts one; whatever comes after this returns is seen.
    pub fn start(lab: &Lab, host: &str) -> Self {
        let mut command = lab.command(binary());
        command.args(["exec", host, "--", "python3", "-u", "-c", PROGRAM]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        assert_eq!(first, "listening\n", "the capture in {host}");
        Self { end: child.stdin.take().unwrap(), child, output }
    }

    /// Everything it saw.
    pub fn stop(mut self) -> Vec<Segment> {
        drop(self.end);
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        text.lines().filter(|line| !line.is_empty()).map(segment).collect()
    }
}

fn segment(line: &str) -> Segment {
    let words: Vec<&str> = line.split(' ').collect();
    let [interface, from, to, flags, data] = words[..] else { panic!("{line}") };
    let flags: u8 = flags.parse().unwrap();
    let bytes = data.trim_matches('-').as_bytes().chunks(2);
    Segment {
        interface: interface.to_owned(),
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        opens: flags & (SYN | ACK) == SYN,
        data: bytes.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect(),
    }
}

/// Whether these bytes went to or came from a port of an address.
pub fn carried(seen: &[Segment], host: Ipv4Addr, port: u16, what: &[u8]) -> bool {
    let at = SocketAddrV4::new(host, port);
    let of = seen.iter().filter(|one| one.from == at || one.to == at);
    of.into_iter().any(|one| one.data.windows(what.len()).any(|part| part == what))
}
