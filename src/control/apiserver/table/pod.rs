//! Pods' tables: above all the STATUS word, which people read before anything else.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, AGE, NAME, items, number, or_none, string};
use crate::api::age;
use crate::control::apiserver::registry::Column;

pub const COLUMNS: &[Column] = &[
    NAME,
    cells::text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    cells::text("Status", "The aggregate status of the containers in this pod."),
    cells::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this \
         pod has restarted.",
    ),
    AGE,
    cells::wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    cells::wide("Node", "NodeName indicates in which node this pod is scheduled."),
    cells::wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled \
         right away as preemption victims receive their graceful termination periods.",
    ),
    cells::wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its \
         containers are ready AND all conditions specified in the readiness gates have status equal to \"True\"",
    ),
];

pub fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let seen = Seen::of(pod);
    let restarts = match seen.last_restart {
        Some(last) if seen.restarts > 0 => {
            let seconds = (now.as_millisecond() - last.as_millisecond()).div_euclid(1000);
            format!("{} ({} ago)", seen.restarts, age::human(seconds))
        }
        _ => seen.restarts.to_string(),
    };
    let ip = match string(pod, "/status/podIPs/0/ip") {
        "" => or_none(pod, "/status/podIP"),
        ip => ip.into(),
    };
    vec![
        cells::name(pod),
        format!("{}/{}", seen.ready, seen.total).into(),
        seen.word.into(),
        restarts.into(),
        cells::age(pod, now),
        ip,
        or_none(pod, "/spec/nodeName"),
        or_none(pod, "/status/nominatedNodeName"),
        readiness_gates(pod),
    ]
}

/// Marks finished pods, so that a client can leave them out.
pub fn conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match string(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = items(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = gates
        .iter()
        .filter(|gate| condition(pod, string(gate, "/conditionType")).is_some_and(|c| c["status"] == "True"));
    format!("{}/{}", met.count(), gates.len()).into()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    items(pod, "/status/conditions").iter().find(|condition| condition["type"] == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| condition["status"] == "True")
}

/// What the containers' states add up to.
struct Seen {
    word: String,
    ready: i64,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts of some containers, and when the last one was.
#[derive(Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "/restartCount");
        let last = string(status, "/lastState/terminated/finishedAt").parse().ok();
        self.last = self.last.max(last);
    }
}

impl Seen {
    fn of(pod: &Value) -> Self {
        let phase = string(pod, "/status/phase");
        let mut word = match string(pod, "/status/reason") {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        };
        if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
            word = "SchedulingGated".to_owned();
        }
        let sidecars = items(pod, "/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always");
        let total = items(pod, "/spec/containers").len() + sidecars.count();
        let mut seen = Self { word, ready: 0, total, restarts: 0, last_restart: None };
        let (all, of_sidecars, initializing) = seen.init_containers(pod);
        let mut restarts = all;
        if !initializing || is_true(pod, "Initialized") {
            restarts = of_sidecars;
            seen.containers(pod, &mut restarts);
        }
        (seen.restarts, seen.last_restart) = (restarts.count, restarts.last);
        if pod["metadata"]["deletionTimestamp"].is_string() {
            if pod["status"]["reason"] == "NodeLost" {
                seen.word = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                seen.word = "Terminating".to_owned();
            }
        }
        seen
    }

    /// The first init container that has not done its part gives the word.
    fn init_containers(&mut self, pod: &Value) -> (Restarts, Restarts, bool) {
        let (mut all, mut of_sidecars) = (Restarts::default(), Restarts::default());
        let specs = items(pod, "/spec/initContainers");
        for (index, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
            all.add(status);
            let sidecar = specs.iter().any(|c| c["name"] == status["name"] && c["restartPolicy"] == "Always");
            if sidecar {
                of_sidecars.add(status);
            }
            let (terminated, waiting) =
                (&status["state"]["terminated"], string(status, "/state/waiting/reason"));
            if terminated["exitCode"] == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += i64::from(status["ready"] == true);
                continue;
            }
            self.word = if terminated.is_object() {
                format!("Init:{}", ended(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            return (all, of_sidecars, true);
        }
        (all, of_sidecars, false)
    }

    /// Later containers first, so that the first one's word stands.
    fn containers(&mut self, pod: &Value, restarts: &mut Restarts) {
        let mut running = false;
        for status in items(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(status);
            let (waiting, terminated) =
                (string(status, "/state/waiting/reason"), &status["state"]["terminated"]);
            if !waiting.is_empty() {
                self.word = waiting.to_owned();
            } else if terminated.is_object() {
                self.word = ended(terminated);
            } else if status["ready"] == true && status["state"]["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.word == "Completed" && running {
            self.word = if is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn ended(terminated: &Value) -> String {
    match (string(terminated, "/reason"), number(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
