//! Startup, liveness and readiness probes by HTTP and TCP (`pkg/kubelet/prober`, `pkg/probe`).
//!
//! One task a running container: the startup probe first, then liveness and readiness side by side.
//! Left out for now: exec and gRPC probes; they are reported as failing, never kill, and say why.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::net::{BoxStream, Dial, Direct, Protocols, TlsDialer, Verify, client_config, go_text};

/// What a probe found out.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub container: String,
    pub id: String,
    pub finding: Finding,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    Started,
    Ready(bool),
    /// One failure: `Readiness probe failed: …`, for an event.
    Failed(String),
    /// Too many failures of this kind (`liveness`, `startup`): the container is to be stopped.
    Unhealthy(&'static str),
}

/// A container under observation.
pub struct Patient {
    pub container: Container,
    pub id: String,
    /// The pod's address.
    pub address: String,
    /// It had passed its startup probe before this kubelet began.
    pub started: bool,
    pub news: mpsc::Sender<News>,
}

enum Outcome {
    Success,
    Failure(String),
    /// This kubelet cannot ask.
    Unsupported(&'static str),
}

/// Observes a container until the task is dropped or it is found dead.
pub async fn observe(patient: Patient) {
    let patient = Arc::new(patient);
    if let Some(probe) = patient.container.startup_probe.clone().filter(|_| !patient.started) {
        if !patient.startup(&probe).await {
            return;
        }
        patient.tell(Finding::Started).await;
    }
    let liveness = async {
        if let Some(probe) = patient.container.liveness_probe.clone() {
            patient.liveness(&probe).await;
        }
    };
    let readiness = async {
        if let Some(probe) = patient.container.readiness_probe.clone() {
            patient.readiness(&probe).await;
        }
    };
    tokio::join!(liveness, readiness);
}

impl Patient {
    async fn tell(&self, finding: Finding) {
        let news = News { container: self.container.name.clone(), id: self.id.clone(), finding };
        // The pod's worker may be ending.
        let _ = self.news.send(news).await;
    }

    /// Whether it passed.
    async fn startup(&self, probe: &Probe) -> bool {
        let mut rhythm = Rhythm::new(probe);
        loop {
            rhythm.next().await;
            match self.ask(probe, "Startup").await {
                Outcome::Success if rhythm.succeeded() => return true,
                Outcome::Failure(_) if rhythm.failed() => {
                    self.tell(Finding::Unhealthy("startup")).await;
                    return false;
                }
                _ => {}
            }
        }
    }

    async fn liveness(&self, probe: &Probe) {
        let mut rhythm = Rhythm::new(probe);
        loop {
            rhythm.next().await;
            match self.ask(probe, "Liveness").await {
                Outcome::Success => _ = rhythm.succeeded(),
                Outcome::Failure(_) if rhythm.failed() => {
                    return self.tell(Finding::Unhealthy("liveness")).await;
                }
                _ => {}
            }
        }
    }

    async fn readiness(&self, probe: &Probe) {
        let mut rhythm = Rhythm::new(probe);
        loop {
            rhythm.next().await;
            match self.ask(probe, "Readiness").await {
                Outcome::Success if rhythm.succeeded() => self.tell(Finding::Ready(true)).await,
                Outcome::Failure(_) | Outcome::Unsupported(_) if rhythm.failed() => {
                    self.tell(Finding::Ready(false)).await;
                }
                _ => {}
            }
        }
    }

    async fn ask(&self, probe: &Probe, kind: &str) -> Outcome {
        let limit = seconds(probe.timeout_seconds, 1);
        let outcome = match (&probe.http_get, &probe.tcp_socket) {
            (Some(get), _) => {
                let url = self.url(get);
                match timeout(limit, self.http(get, &url)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Outcome::Failure(format!(
                        "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    )),
                }
            }
            (None, Some(socket)) => {
                let host = socket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.address);
                let port = self.port(&socket.port);
                match timeout(limit, Direct.dial(host, port)).await {
                    Ok(Ok(_)) => Outcome::Success,
                    Ok(Err(error)) => Outcome::Failure(error.to_string()),
                    Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
                }
            }
            (None, None) if probe.exec.is_some() => Outcome::Unsupported("exec probes"),
            (None, None) => Outcome::Unsupported("gRPC probes"),
        };
        match &outcome {
            Outcome::Success => {}
            Outcome::Failure(why) => self.tell(Finding::Failed(format!("{kind} probe failed: {why}"))).await,
            Outcome::Unsupported(what) => {
                let why = format!(
                    "{kind} probe errored and resulted in unknown state: this kubelet has no {what} yet"
                );
                self.tell(Finding::Failed(why)).await;
            }
        }
        outcome
    }

    fn port(&self, port: &IntOrString) -> u16 {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named =
                    self.container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port).or_else(|| name.parse().ok())
            }
        };
        number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
    }

    fn url(&self, get: &HTTPGetAction) -> String {
        let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.address);
        let path = get.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{scheme}://{host}:{}{slash}{path}", self.port(&get.port))
    }

    async fn http(&self, get: &HTTPGetAction, url: &str) -> Outcome {
        match fetch(get, url).await {
            Ok(status) if (200..400).contains(&status) => Outcome::Success,
            Ok(status) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(error) => Outcome::Failure(format!("Get \"{url}\": {}", go_text(&*error))),
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn fetch(get: &HTTPGetAction, url: &str) -> Result<u16, Failure> {
    let uri: http::Uri = url.parse()?;
    let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(0));
    let stream: BoxStream = match get.scheme.as_deref() {
        // Upstream's probes verify no certificate either.
        Some("HTTPS") => {
            let config = client_config(&Verify::Unverified, None, Protocols::H1)?;
            Box::new(TlsDialer { road: Arc::new(Direct), config }.connect(&host, port, None).await?)
        }
        _ => Direct.dial(&host, port).await?,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::USER_AGENT, "kube-probe/1.36")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
    let status = response.status().as_u16();
    // The body is not read to its end: only the status counts.
    let _ = timeout(Duration::from_millis(50), response.into_body().frame()).await;
    driver.abort();
    Ok(status)
}

/// When to ask, and how many answers of a kind in a row count.
struct Rhythm {
    next: Instant,
    first: bool,
    period: Duration,
    needed: (i32, i32),
    seen: (i32, i32),
}

impl Rhythm {
    fn new(probe: &Probe) -> Self {
        let delay = seconds(probe.initial_delay_seconds, 0);
        Self {
            next: Instant::now() + delay,
            first: true,
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            needed: (
                probe.success_threshold.unwrap_or(1).max(1),
                probe.failure_threshold.unwrap_or(3).max(1),
            ),
            seen: (0, 0),
        }
    }

    async fn next(&mut self) {
        sleep_until(self.next).await;
        if std::mem::take(&mut self.first) {
            // A server needs a moment after its exec; asking in the very same millisecond only delays readiness.
            sleep(Duration::from_millis(20)).await;
        }
        self.next = Instant::now() + self.period;
    }

    fn succeeded(&mut self) -> bool {
        self.seen = (self.seen.0 + 1, 0);
        self.seen.0 >= self.needed.0
    }

    fn failed(&mut self) -> bool {
        self.seen = (0, self.seen.1 + 1);
        self.seen.1 >= self.needed.1
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default),
    )
}
