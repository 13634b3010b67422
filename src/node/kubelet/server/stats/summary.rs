//! `/stats/summary` (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`): node and pods as `kubectl top`'s server reads.
//!
//! Left out: swap, pressure and accelerators, which nobody meters here.

use std::path::PathBuf;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::disk::{Space, Used};
use super::proc::{Interface, Usage};
use super::{ContainerSample, Metered, PodSample, Sample};
use crate::node::kubelet::server::Kubelet;
use crate::node::kubelet::server::call::{self, Call, text};

/// Answers a request for it.
pub async fn summary(me: &Kubelet, call: &Call) -> Response {
    let short = match call.parameter("only_cpu_and_memory") {
        None | Some("" | "false" | "False" | "FALSE" | "f" | "F" | "0") => false,
        Some("true" | "True" | "TRUE" | "t" | "T" | "1") => true,
        Some(other) => {
            let body = format!(
                "Internal Error: parse only_cpu_and_memory param failed: strconv.ParseBool: parsing {other:?}: invalid syntax"
            );
            return text(StatusCode::INTERNAL_SERVER_ERROR, body);
        }
    };
    let sample = me.sampler.sample(&me.runtime).await;
    let time = stamp(&sample);
    let places: Vec<Places> = sample.pods.iter().map(|pod| Places::of(me, pod)).collect();
    let disks = match short {
        true => Disks::default(),
        false => {
            let root = me.config.root_dir.clone();
            let measured = tokio::task::spawn_blocking(move || Disks::measure(root, places));
            measured.await.unwrap_or_default()
        }
    };
    let summary = Writer { me, sample: &sample, disks: &disks, time, short }.summary();
    call::json(pretty(&summary))
}

fn stamp(sample: &Sample) -> String {
    sample.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// go-restful indents by one space.
fn pretty(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).expect("a JSON tree has a JSON form");
    out
}

/// Where a pod's bytes are.
struct Places {
    /// By container: its writable layer and its logs.
    containers: Vec<(PathBuf, PathBuf)>,
    /// By name: the volumes that are this node's own.
    volumes: Vec<(String, PathBuf)>,
}

impl Places {
    fn of(me: &Kubelet, pod: &PodSample) -> Self {
        let layers = crate::node::shim::Directories::default().sandbox(&pod.sandbox.id);
        let containers = pod.containers.iter().map(|container| {
            let logs = container.status.log_path.parent().map(PathBuf::from).unwrap_or_default();
            (layers.container(&container.status.id), logs)
        });
        let volumes = me.config.root_dir.join("pods").join(&pod.sandbox.spec.pod_uid).join("volumes");
        let kinds = std::fs::read_dir(volumes).into_iter().flatten().flatten();
        let each = kinds.flat_map(|kind| std::fs::read_dir(kind.path()).into_iter().flatten().flatten());
        let name =
            |entry: std::fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
        Self { containers: containers.collect(), volumes: each.map(name).collect() }
    }
}

/// What was measured on disk; the same order as the sample's pods.
#[derive(Default)]
struct Disks {
    node: Option<Space>,
    pods: Vec<PodDisk>,
}

struct PodDisk {
    containers: Vec<(Used, Used)>,
    volumes: Vec<(String, Option<Space>, Used)>,
}

impl Disks {
    fn measure(root: PathBuf, places: Vec<Places>) -> Self {
        let pods = places.into_iter().map(|place| PodDisk {
            containers: place
                .containers
                .iter()
                .map(|(layer, logs)| (Used::below(layer), Used::below(logs)))
                .collect(),
            volumes: place
                .volumes
                .into_iter()
                .map(|(name, path)| (name, Space::of(&path), Used::below(&path)))
                .collect(),
        });
        Self { pods: pods.collect(), node: Space::of(&root) }
    }
}

/// Puts it together.
struct Writer<'a> {
    me: &'a Kubelet,
    sample: &'a Sample,
    disks: &'a Disks,
    time: String,
    short: bool,
}

impl Writer<'_> {
    fn summary(&self) -> Value {
        let pods: Vec<Value> = self
            .sample
            .pods
            .iter()
            .enumerate()
            .map(|(at, pod)| self.pod(pod, self.disks.pods.get(at)))
            .collect();
        json!({"node": self.node(), "pods": pods})
    }

    fn node(&self) -> Value {
        let mut node = json!({
            "nodeName": self.me.config.node_name,
            "startTime": self.me.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "cpu": self.cpu(&self.sample.node),
            "memory": self.memory(&self.sample.node.usage, Some(self.me.machine.memory_bytes)),
            "systemContainers": [self.kubelet(), self.all_pods()],
        });
        if self.short {
            return node;
        }
        node["network"] = self.network(&self.sample.interfaces);
        if let Some(space) = self.disks.node {
            let whole = space.whole(&self.time);
            node["runtime"] = json!({"imageFs": whole, "containerFs": whole});
            node["fs"] = whole;
        }
        node["rlimit"] = self.rlimit();
        node
    }

    fn kubelet(&self) -> Value {
        let used = &self.sample.kubelet;
        json!({
            "name": "kubelet",
            "startTime": self.me.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "cpu": self.cpu(used),
            "memory": self.memory(&used.usage, None),
        })
    }

    fn all_pods(&self) -> Value {
        let mut all = Metered::default();
        for pod in &self.sample.pods {
            all.usage.join(&pod.all.usage);
            all.nano_cores += pod.all.nano_cores;
        }
        json!({
            "name": "pods",
            "startTime": self.me.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "cpu": self.cpu(&all),
            "memory": self.memory(&all.usage, None),
        })
    }

    fn rlimit(&self) -> Value {
        let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
        let most: i64 = most.trim().parse().unwrap_or(0);
        json!({"time": self.time, "maxpid": most, "curproc": self.sample.node.usage.processes})
    }

    fn pod(&self, pod: &PodSample, disk: Option<&PodDisk>) -> Value {
        let spec = &pod.sandbox.spec;
        let containers: Vec<Value> = pod
            .containers
            .iter()
            .enumerate()
            .map(|(at, one)| self.container(one, disk.and_then(|disk| disk.containers.get(at))))
            .collect();
        let mut value = json!({
            "podRef": {"name": spec.pod_name, "namespace": spec.pod_namespace, "uid": spec.pod_uid},
            "startTime": whole_seconds(&pod.sandbox.created_at),
            "containers": containers,
            "cpu": self.cpu(&pod.all),
            "memory": self.memory(&pod.all.usage, None),
        });
        let (Some(disk), Some(node)) = (disk, self.disks.node) else { return value };
        let mut own = Used::default();
        disk.containers.iter().for_each(|(layer, logs)| own = own.plus(*layer).plus(*logs));
        let volumes: Vec<Value> = disk
            .volumes
            .iter()
            .filter_map(|(name, space, used)| {
                own = own.plus(*used);
                let mut volume = space.as_ref()?.used(&self.time, *used);
                volume["name"] = json!(name);
                Some(volume)
            })
            .collect();
        value["network"] = self.network(&pod.interfaces);
        value["volume"] = json!(volumes);
        value["ephemeral-storage"] = node.used(&self.time, own);
        value["process_stats"] = json!({"process_count": pod.all.usage.processes});
        value
    }

    fn container(&self, container: &ContainerSample, disk: Option<&(Used, Used)>) -> Value {
        let status = &container.status;
        let mut value = json!({
            "name": status.name,
            "startTime": whole_seconds(status.started_at.as_deref().unwrap_or(&status.created_at)),
            "cpu": self.cpu(&container.used),
            "memory": self.memory(&container.used.usage, None),
        });
        if let (Some((layer, logs)), Some(node)) = (disk, self.disks.node) {
            value["rootfs"] = node.used(&self.time, *layer);
            value["logs"] = node.used(&self.time, *logs);
        }
        value
    }

    fn cpu(&self, used: &Metered) -> Value {
        json!({
            "time": self.time,
            "usageNanoCores": used.nano_cores,
            "usageCoreNanoSeconds": used.usage.cpu_nanos,
        })
    }

    fn memory(&self, usage: &Usage, capacity: Option<u64>) -> Value {
        let mut memory = json!({
            "time": self.time,
            "usageBytes": usage.resident,
            "workingSetBytes": usage.working_set,
            "rssBytes": usage.anonymous,
            "pageFaults": usage.minor_faults + usage.major_faults,
            "majorPageFaults": usage.major_faults,
        });
        if let Some(capacity) = capacity {
            memory["availableBytes"] = json!(capacity.saturating_sub(usage.working_set));
        }
        memory
    }

    fn network(&self, interfaces: &[Interface]) -> Value {
        let one = |interface: &Interface| {
            json!({
                "name": interface.name,
                "rxBytes": interface.received,
                "rxErrors": interface.receive_errors,
                "txBytes": interface.sent,
                "txErrors": interface.send_errors,
            })
        };
        let all: Vec<Value> = interfaces.iter().map(one).collect();
        let main = interfaces.iter().find(|interface| interface.name == "eth0").or(interfaces.first());
        let mut network = main.map_or_else(|| json!({}), one);
        network["time"] = json!(self.time);
        network["interfaces"] = json!(all);
        network
    }
}

/// A time of the runtime's, as Kubernetes writes times.
fn whole_seconds(time: &str) -> String {
    let parsed: Result<jiff::Timestamp, _> = time.parse();
    parsed.map_or_else(|_| time.to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
