//! Whether the control plane's roles are alive: the probes of their static-pod manifests, run as the
//! kubelet of a control-plane host runs them (`pkg/kubelet/prober`, `pkg/probe/http`).
//!
//! A process that hangs holds its port and answers nothing; nobody but a probe notices. What is probed, how
//! often and how patiently is read from the manifest, so an administrator's change counts. Readiness is not
//! probed: roles say themselves when they serve. A startup probe becomes the time a start may take.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::events::{Event, Supervisor};
use super::role::{Input, State};
use crate::net::{self, BoxStream, Dial, Given, Protocols, TlsDialer, Verify};

/// One probe of a manifest.
#[derive(Debug, Clone, PartialEq)]
struct Probe {
    at: SocketAddr,
    ask: Ask,
    delay: Duration,
    period: Duration,
    timeout: Duration,
    failures: u32,
}

/// What counts as an answer.
#[derive(Debug, Clone, PartialEq)]
enum Ask {
    Tcp,
    Http { path: String, tls: bool },
}

/// A role's probes and how they went in its present run.
#[derive(Debug, Default)]
pub struct Liveness {
    live: Option<Probe>,
    start: Option<Probe>,
    /// When to ask next; nothing while an answer is awaited.
    next: Option<Instant>,
    /// Failures one after another.
    failures: u32,
}

/// What is due.
enum Due {
    Nothing,
    Ask(Probe),
    /// It is not coming up, or does not answer any more.
    Hung(String),
}

impl Liveness {
    /// For a run that begins now from this manifest.
    pub fn new(manifest: Option<&[u8]>, now: Instant) -> Self {
        let pod: Value = manifest.and_then(|text| serde_yaml_ng::from_slice(text).ok()).unwrap_or_default();
        let container = &pod["spec"]["containers"][0];
        let live = Probe::read(container, "livenessProbe");
        let next = live.as_ref().map(|probe| now + probe.delay);
        Self { live, start: Probe::read(container, "startupProbe"), next, failures: 0 }
    }

    /// Some of the latest probes failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// When there is something to do.
    pub fn wakes(&self, state: State) -> Option<Instant> {
        match state {
            State::Starting { since } => self.start.as_ref().map(|probe| since + probe.whole()),
            State::Ready { .. } => self.next,
            _ => None,
        }
    }

    fn due(&mut self, state: State, now: Instant) -> Due {
        if self.wakes(state).is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        match (state, &self.live) {
            (State::Starting { .. }, _) => Due::Hung("it did not start in time".into()),
            (_, Some(probe)) => {
                let probe = probe.clone();
                self.next = None;
                Due::Ask(probe)
            }
            _ => Due::Nothing,
        }
    }

    /// Counts an answer; true when there were too many failures.
    fn heard(&mut self, outcome: &Result<(), String>, asked: Instant, now: Instant) -> bool {
        let Some(probe) = &self.live else { return false };
        self.next = Some((asked + probe.period).max(now));
        self.failures = if outcome.is_ok() { 0 } else { self.failures + 1 };
        self.failures >= probe.failures
    }
}

impl Probe {
    fn read(container: &Value, field: &str) -> Option<Self> {
        let probe = container.get(field)?;
        let seconds = |field: &str, default: u64| {
            Duration::from_secs(probe[field].as_u64().filter(|seconds| *seconds > 0).unwrap_or(default))
        };
        let (action, ask) = match (&probe["httpGet"], &probe["tcpSocket"]) {
            (action @ Value::Object(_), _) => {
                let path = action["path"].as_str().unwrap_or("/").to_owned();
                (action, Ask::Http { path, tls: action["scheme"] == "HTTPS" })
            }
            (_, action @ Value::Object(_)) => (action, Ask::Tcp),
            _ => return None,
        };
        let host = action["host"].as_str().and_then(|host| host.parse::<IpAddr>().ok());
        let host = host.unwrap_or(Ipv4Addr::LOCALHOST.into());
        Some(Self {
            at: SocketAddr::new(host, port(container, &action["port"])?),
            ask,
            delay: Duration::from_secs(probe["initialDelaySeconds"].as_u64().unwrap_or(0)),
            period: seconds("periodSeconds", 10),
            timeout: seconds("timeoutSeconds", 1),
            failures: probe["failureThreshold"]
                .as_u64()
                .and_then(|most| u32::try_from(most).ok())
                .unwrap_or(3),
        })
    }

    /// How long it may fail.
    fn whole(&self) -> Duration {
        self.delay + self.period * self.failures
    }

    /// Asks once, by a socket of the role's host.
    async fn ask(&self, socket: OwnedFd) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.answer(socket)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
            }
        }
    }

    async fn answer(&self, socket: OwnedFd) -> Result<(), String> {
        let (host, road) = (self.at.ip().to_string(), Given::new(socket));
        let Ask::Http { path, tls } = &self.ask else {
            return road.dial(&host, self.at.port()).await.map(drop).map_err(|error| error.to_string());
        };
        let stream: BoxStream = if *tls {
            // A kubelet's probes ask nobody who they are.
            let config = net::client_config(&Verify::Unverified, None, Protocols::H1)
                .map_err(|error| error.to_string())?;
            let dialer = TlsDialer { road: Arc::new(road), config };
            let stream = dialer.connect(&host, self.at.port(), None).await;
            Box::new(stream.map_err(|error| error.to_string())?)
        } else {
            road.dial(&host, self.at.port()).await.map_err(|error| error.to_string())?
        };
        let status = get(stream, &self.at.to_string(), path).await.map_err(|error| net::go_text(&error))?;
        match status {
            200..400 => Ok(()),
            _ => Err(format!("HTTP probe failed with statuscode: {status}")),
        }
    }
}

/// A port by number or by the name the container gives it.
fn port(container: &Value, port: &Value) -> Option<u16> {
    let named = || {
        let mut ports = container["ports"].as_array().into_iter().flatten();
        ports.find(|one| one["name"] == *port).and_then(|one| one["containerPort"].as_u64())
    };
    u16::try_from(port.as_u64().or_else(named)?).ok()
}

async fn get(stream: BoxStream, host: &str, path: &str) -> hyper::Result<u16> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::task::spawn_local(connection);
    let mut request = Request::new(Body::empty());
    if let Ok(path) = path.parse() {
        *request.uri_mut() = path;
    }
    for (name, value) in [("host", host), ("user-agent", "kube-probe/1.36"), ("accept", "*/*")] {
        request
            .headers_mut()
            .extend(value.parse().ok().map(|value| (http::HeaderName::from_static(name), value)));
    }
    let answer = sender.send_request(request).await;
    connection.abort();
    Ok(answer?.status().as_u16())
}

impl Supervisor {
    /// Asks whom it is time to ask.
    pub(super) fn probe(&mut self, at: usize) {
        let now = Instant::now();
        let role = &mut self.roles[at];
        match role.liveness.due(role.life.state, now) {
            Due::Nothing => {}
            Due::Hung(why) => self.hung(at, &why),
            Due::Ask(probe) => {
                let Some(host) = self.hosts.get(&role.plan.host) else { return };
                let socket = host.attachment.network.tcp_socket(probe.at.is_ipv6());
                let (id, events) = (role.id, self.events.clone());
                tokio::task::spawn_local(ask(probe, socket, id, events));
            }
        }
    }

    /// What a probe of a run came to.
    pub(super) fn probed(&mut self, id: u64, asked: Instant, outcome: &Result<(), String>) {
        let Some(at) = self.roles.iter().position(|role| role.id == id) else { return };
        let role = &mut self.roles[at];
        if let Err(why) = outcome {
            tracing::warn!(role = role.plan.name, why, "Liveness probe failed");
        }
        if role.liveness.heard(outcome, asked, Instant::now()) {
            self.hung(at, "it failed its liveness probe");
        }
    }

    fn hung(&mut self, at: usize, why: &str) {
        tracing::warn!(role = self.roles[at].plan.name, why, "A role will be restarted");
        self.step(at, Input::Restart);
    }
}

async fn ask(probe: Probe, socket: std::io::Result<OwnedFd>, id: u64, events: UnboundedSender<Event>) {
    let asked = Instant::now();
    let outcome = match socket {
        Ok(socket) => probe.ask(socket).await,
        Err(error) => Err(error.to_string()),
    };
    let _ = events.send(Event::Probed { id, asked, outcome });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = b"spec:
  containers:
  - livenessProbe: {failureThreshold: 2, initialDelaySeconds: 10, periodSeconds: 10, timeoutSeconds: 15,
      httpGet: {host: 198.51.100.2, path: /livez, port: probe-port, scheme: HTTPS}}
    ports: [{containerPort: 6443, name: probe-port}]
    startupProbe: {failureThreshold: 24, initialDelaySeconds: 10, periodSeconds: 10, tcpSocket: {port: 6443}}
";

    #[test]
    fn a_manifests_probes_are_read_as_they_are_written() {
        let begin = Instant::now();
        let liveness = Liveness::new(Some(MANIFEST), begin);
        let live = liveness.live.as_ref().unwrap();
        assert_eq!(live.at, "198.51.100.2:6443".parse().unwrap());
        assert_eq!(live.ask, Ask::Http { path: "/livez".into(), tls: true });
        assert_eq!((live.timeout, live.failures), (Duration::from_secs(15), 2));
        assert_eq!(liveness.start.as_ref().map(|probe| &probe.ask), Some(&Ask::Tcp));
        let starting = State::Starting { since: begin };
        assert_eq!(liveness.wakes(starting), Some(begin + Duration::from_secs(250)));
        assert_eq!(Liveness::new(None, begin).wakes(State::Ready { since: begin }), None);
    }

    #[test]
    fn only_failures_one_after_another_end_a_role() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(Some(MANIFEST), begin);
        let ready = State::Ready { since: begin };
        let later = |seconds| begin + Duration::from_secs(seconds);
        assert!(matches!(liveness.due(ready, later(9)), Due::Nothing));
        assert!(matches!(liveness.due(ready, later(10)), Due::Ask(_)));
        assert_eq!(liveness.wakes(ready), None, "one question at a time");
        let failed = Err("no answer".to_owned());
        assert!(!liveness.heard(&failed, later(10), later(25)) && liveness.is_failing());
        assert_eq!(liveness.wakes(ready), Some(later(25)));
        assert!(!liveness.heard(&Ok(()), later(25), later(25)) && !liveness.is_failing());
        assert!(!liveness.heard(&failed, later(35), later(50)));
        assert!(liveness.heard(&failed, later(50), later(65)));
        let starting = State::Starting { since: begin };
        assert!(matches!(liveness.due(starting, later(251)), Due::Hung(_)));
    }
}
