//! `minilab wire [PATH]`: what crosses the untrusted network, live, and what of it can be read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde_json::Value;

use super::{Answer, Outcome, Output, Trouble};
use crate::attack::{watch_keys, watch_wire};
use crate::lab::paths::PATHS;
use crate::lab::plan::{BALANCER, CONTROL};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Wire {
    /// Only this path
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// Stop after so many seconds instead of at Ctrl-C
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    limit: Option<Duration>,
    /// Write every packet into a pcapng file that Wireshark opens
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Put the TLS secrets of the lab's own roles into the capture file, so that Wireshark reads inside
    ///
    /// Only of connections dialled meanwhile. An attacker on wire has none of them.
    #[arg(long, requires = "pcap")]
    with_keys: bool,
    #[command(flatten)]
    output: Output,
}

/// Between two looks for secrets.
const LOOK: Duration = Duration::from_millis(50);
/// A packet is written so much later than it was seen: the secrets that open it come before it in the file.
const BEHIND: Duration = Duration::from_millis(500);

/// `10`, `10s`, `2m`.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(['s', 'm']).len());
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no time like 10s"))?;
    Ok(Duration::from_secs(if unit == "m" { number * 60 } else { number }))
}

impl Wire {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if let Some(wanted) = &self.path
            && !PATHS.iter().any(|path| path.name == wanted)
        {
            let what = format!("there is no path {wanted:?}");
            return Err(Trouble::new(Answer::Usage, what, "`minilab paths` lists the paths"));
        }
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        let mut file = match &self.pcap {
            Some(path) => Some(Pcapng::create(path)?),
            None => None,
        };
        let keys = if self.with_keys { watch_keys(lab)? } else { Vec::new() };
        let (look, behind) = match self.with_keys {
            true => (LOOK, BEHIND),
            false => (Duration::from_millis(200), Duration::ZERO),
        };
        let until = self.limit.map(|limit| Instant::now() + limit);
        let watch = watch_wire(lab, file.is_some())?;
        let mut held: VecDeque<(Instant, Value)> = VecDeque::new();
        loop {
            let now = Instant::now();
            let over = until.is_some_and(|until| now >= until);
            if let Some(file) = &mut file {
                for key in &keys {
                    while let Some(event) = key.next_event(now) {
                        file.secret(event["line"].as_str().unwrap_or_default())?;
                    }
                }
                while let Some((_, packet)) = held.pop_front_if(|(seen, _)| over || *seen + behind <= now) {
                    file.packet(&packet)?;
                }
            }
            if over {
                // Each takes its socket's name away before it is hung up on.
                keys.into_iter().for_each(|key| drop(key.finish()));
                return Ok(Answer::Done);
            }
            let next = until.map_or(now + look, |until| until.min(now + look));
            let Some(event) = watch.next_event(next) else {
                if Instant::now() >= next {
                    continue;
                }
                return Err(anyhow::anyhow!("the capture on wire ended").into());
            };
            let kind = event["event"].as_str().unwrap_or_default().to_owned();
            match kind.as_str() {
                "packet" if file.is_some() => held.push_back((now, event)),
                "dial" | "says" => self.show(event)?,
                _ => {}
            }
        }
    }

    fn show(&self, mut event: Value) -> anyhow::Result<()> {
        let address = |name: &str| event[name].as_str().and_then(|text| text.parse::<SocketAddrV4>().ok());
        let (Some(from), Some(to)) = (address("from"), address("to")) else { return Ok(()) };
        let path = path_of(from, to).or_else(|| path_of(to, from)).unwrap_or("-");
        if self.path.as_ref().is_some_and(|wanted| wanted != path) {
            return Ok(());
        }
        if self.output.json() {
            event["path"] = path.into();
            writeln!(std::io::stdout(), "{event}")?;
            return Ok(());
        }
        let word = |name: &str| event[name].as_str().unwrap_or_default();
        let what = match (event["event"].as_str(), word("protocol")) {
            (Some("dial"), _) => "dials".to_owned(),
            (_, "plain") => format!("PLAIN TEXT {:?}", word("what")),
            (_, "tls") if !word("serverName").is_empty() => {
                format!("TLS {} for {}", word("what"), word("serverName"))
            }
            (_, protocol) => format!("{} {}", protocol.to_uppercase(), word("what")),
        };
        writeln!(std::io::stdout(), "{path:<24} {from:>21} > {to:<21} {what}")?;
        Ok(())
    }
}

/// Which path a connection from one to the other belongs to.
pub fn path_of(from: SocketAddrV4, to: SocketAddrV4) -> Option<&'static str> {
    let hub = |at: &SocketAddrV4| [BALANCER, CONTROL].contains(at.ip());
    let in_pod = |at: &Ipv4Addr| at.octets()[..2] == [10, 244];
    // An answer of a known port's goes to a port that anybody may have been given.
    if matches!(from.port(), 22 | 6443 | 8132 | 10250 | 10255 | 10257 | 10259) && to.port() > 10259 {
        return None;
    }
    match to.port() {
        6443 if hub(&to) && hub(&from) => Some("components-to-apiserver"),
        6443 if hub(&to) && in_pod(from.ip()) => Some("pod-to-apiserver"),
        6443 if hub(&to) => Some("node-to-apiserver"),
        8132 if hub(&to) => Some("apiserver-egress"),
        10257 | 10259 if hub(&to) => Some("components-to-apiserver"),
        10250 if hub(&from) => Some("apiserver-to-kubelet"),
        10250 | 10255 => Some("kubelet-access"),
        22 if hub(&from) => Some("apiserver-egress"),
        port if hub(&from) && port < 32768 => Some("apiserver-proxy"),
        _ => None,
    }
}

/// A capture file: a section, one Ethernet interface, packets.
struct Pcapng {
    out: BufWriter<File>,
}

impl Pcapng {
    fn create(path: &std::path::Path) -> anyhow::Result<Pcapng> {
        // What opens the lab's sessions is nobody else's to read.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("write {}", path.display()))?;
        let mut pcapng = Pcapng { out: BufWriter::new(file) };
        // Byte order, version 1.0, length unknown.
        let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        section.extend([1, 0, 0, 0]);
        section.extend([0xff; 8]);
        pcapng.block(0x0a0d_0d0a, &section)?;
        // Ethernet, packets of any length.
        pcapng.block(1, &[1, 0, 0, 0, 0, 0, 0, 0])?;
        Ok(pcapng)
    }

    fn packet(&mut self, event: &Value) -> anyhow::Result<()> {
        let micros = event["micros"].as_u64().unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(event["bytes"].as_str().unwrap_or_default())?;
        let mut body = 0_u32.to_le_bytes().to_vec();
        body.extend(((micros >> 32) as u32).to_le_bytes());
        body.extend((micros as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend(&bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(6, &body)?;
        // Who is stopped by Ctrl-C has every packet so far.
        Ok(self.out.flush()?)
    }

    /// A line of TLS secrets, as Wireshark takes them (a Decryption Secrets Block of type `TLSK`).
    fn secret(&mut self, line: &str) -> std::io::Result<()> {
        let mut body = 0x544c_534b_u32.to_le_bytes().to_vec();
        body.extend((line.len() as u32 + 1).to_le_bytes());
        body.extend(line.as_bytes());
        body.push(b'\n');
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(0x0a, &body)?;
        self.out.flush()
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> std::io::Result<()> {
        let length = (body.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(body)?;
        self.out.write_all(&length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_apart_by_who_dials_whom() {
        let path = |from: &str, to: &str| path_of(from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(path("192.0.2.11:40000", "198.51.100.1:6443"), Some("node-to-apiserver"));
        assert_eq!(path("10.244.1.4:40000", "198.51.100.2:6443"), Some("pod-to-apiserver"));
        assert_eq!(path("198.51.100.2:40000", "198.51.100.1:6443"), Some("components-to-apiserver"));
        assert_eq!(path("198.51.100.2:40000", "192.0.2.11:10250"), Some("apiserver-to-kubelet"));
        assert_eq!(path("198.51.100.2:40000", "10.244.1.4:8080"), Some("apiserver-proxy"));
        assert_eq!(path("10.244.1.4:40000", "10.96.0.10:53"), None);
        // An answer to a connection whose source port kube-proxy chose.
        assert_eq!(path("198.51.100.2:6443", "192.0.2.11:26922"), None);
        assert_eq!(path("192.0.2.11:26922", "198.51.100.2:6443"), Some("node-to-apiserver"));
    }

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        assert_eq!(seconds("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("2m"), Ok(Duration::from_secs(120)));
        assert!(seconds("soon").is_err());
    }
}
