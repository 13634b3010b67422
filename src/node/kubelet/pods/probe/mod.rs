//! Startup, liveness and readiness probes (`pkg/kubelet/prober`, `pkg/probe`).
//!
//! One task a running container: the startup probe first, then liveness and readiness side by side. How a
//! container is asked is in `ask`.

mod ask;
mod counts;
mod grpc;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

pub use ask::{Subject, fetch};
pub use counts::{Counts, Series};

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
    pub subject: Subject,
    /// It had passed its startup probe before this kubelet began.
    pub started: bool,
    pub news: mpsc::Sender<News>,
    pub counts: Counts,
    /// Namespace, name and uid of its pod.
    pub pod: (String, String, String),
}

enum Outcome {
    Success,
    Failure(String),
    /// Nothing was found out; upstream throws such a result away.
    Errored(String),
}

/// Observes a container until the task is dropped or it is found dead.
pub async fn observe(patient: Patient) {
    let patient = Arc::new(patient);
    if let Some(probe) = patient.subject.container.startup_probe.clone().filter(|_| !patient.started) {
        if !patient.startup(&probe).await {
            return;
        }
        patient.tell(Finding::Started).await;
    }
    let liveness = async {
        if let Some(probe) = patient.subject.container.liveness_probe.clone() {
            patient.liveness(&probe).await;
        }
    };
    let readiness = async {
        if let Some(probe) = patient.subject.container.readiness_probe.clone() {
            patient.readiness(&probe).await;
        }
    };
    tokio::join!(liveness, readiness);
}

impl Patient {
    async fn tell(&self, finding: Finding) {
        let news =
            News { container: self.subject.container.name.clone(), id: self.subject.id.clone(), finding };
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
                Outcome::Failure(_) if rhythm.failed() => {
                    self.tell(Finding::Ready(false)).await;
                }
                _ => {}
            }
        }
    }

    async fn ask(&self, probe: &Probe, kind: &'static str) -> Outcome {
        let outcome = self.subject.ask(probe, seconds(probe.timeout_seconds, 1)).await;
        let (namespace, pod, uid) = self.pod.clone();
        let container = self.subject.container.name.clone();
        self.counts.note(Series { namespace, pod, uid, container, kind, result: outcome.name() });
        match &outcome {
            Outcome::Success => {}
            Outcome::Failure(why) => self.tell(Finding::Failed(format!("{kind} probe failed: {why}"))).await,
            Outcome::Errored(why) => {
                let why = format!("{kind} probe errored and resulted in unknown state: {why}");
                self.tell(Finding::Failed(why)).await;
            }
        }
        outcome
    }
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
