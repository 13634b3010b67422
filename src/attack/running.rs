//! A command that runs in a host of the lab while an attack does, and what it says.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::AttackError;
use crate::lab::protocol::{Control, Exec, Reply};
use crate::lab::state::LabDir;

/// How long the attacker may take to say something that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a command in a host of a lab; it ends when what this gives is dropped.
pub fn start(
    lab: &LabDir,
    host: &str,
    argv: Vec<String>,
    env: Vec<(String, String)>,
) -> Result<Running, AttackError> {
    let control = Control::connect(lab)?;
    let (input, stdin) = std::io::pipe()?;
    let (stdout, output) = std::io::pipe()?;
    let what = argv.first().cloned().unwrap_or_default();
    let fds = [input.as_fd(), output.as_fd(), output.as_fd()];
    control.exec(Exec { host: host.to_owned(), argv, env, terminal: false }, &fds)?;
    drop((input, output));
    match control.next()?.0 {
        Reply::Started { .. } => {}
        Reply::Failed { error } | Reply::NotStarted { error } => {
            return Err(AttackError::Host { host: host.to_owned(), what, why: error });
        }
        _ => {}
    }
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    Ok(Running { lines, stdin: Some(stdin.into()), _control: control })
}

/// A command that runs in a host.
pub struct Running {
    lines: Receiver<String>,
    stdin: Option<OwnedFd>,
    /// Hung up on when this connection closes.
    _control: Control,
}

impl Running {
    /// The next line by then; nothing when there is none or the command has ended.
    pub fn line(&self, until: Instant) -> Option<String> {
        self.lines.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }

    /// Waits for an event of the attacker's.
    pub fn event(&self, name: &str) -> Option<Value> {
        let until = Instant::now() + PATIENCE;
        while let Some(event) = self.next_event(until) {
            if event["event"] == name {
                return Some(event);
            }
        }
        None
    }

    /// The next event of any kind.
    pub fn next_event(&self, until: Instant) -> Option<Value> {
        while let Some(line) = self.line(until) {
            if let Some(event) = event(&line) {
                return Some(event);
            }
        }
        None
    }

    /// Tells it to end and gives what it said until then.
    pub fn finish(mut self) -> Vec<Value> {
        drop(self.stdin.take());
        let until = Instant::now() + Duration::from_secs(3);
        let mut events = Vec::new();
        events.extend(std::iter::from_fn(|| self.next_event(until)));
        events
    }
}

/// A line of the attacker's as an event; a failed handshake is what its server logs.
fn event(line: &str) -> Option<Value> {
    let Some((_, failed)) = line.split_once("TLS handshake error") else {
        return serde_json::from_str(line).ok();
    };
    let why = failed.split("error=").nth(1).unwrap_or(failed).trim_matches('"');
    Some(json!({"event": "refused", "why": why}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_attackers_server_logs_of_a_handshake_is_an_event_too() {
        let line = r#"I1 2 serve.rs:1] "http: TLS handshake error from 192.0.2.11:1" error="remote error: tls: bad""#;
        assert_eq!(event(line).unwrap()["why"], "remote error: tls: bad");
        assert_eq!(event(r#"{"event": "ready"}"#).unwrap()["event"], "ready");
        assert_eq!(event("a line of somebody's"), None);
    }
}
