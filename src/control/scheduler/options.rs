//! kube-scheduler's command line.

use std::path::PathBuf;

use clap::Parser;
use serde_json::{Value, json};

use crate::control::component::PortOptions;
use crate::control::leader::LeaderOptions;

/// Flags upstream has and this role does not act on; a trailing `=` marks one with a value.
pub const UNIMPLEMENTED: &[&str] = &[
    "config=",
    "contention-profiling",
    "feature-gates=",
    "kube-api-burst=",
    "kube-api-content-type=",
    "kube-api-qps=",
    "log-flush-frequency=",
    "logging-format=",
    "pod-max-in-unschedulable-pods-duration=",
    "tls-cipher-suites=",
    "tls-min-version=",
    "v=",
    "vmodule=",
];

#[derive(Debug, Clone, Parser)]
#[command(
    name = "kube-scheduler",
    about = "Binds pods to nodes",
    disable_version_flag = true,
    args_override_self = true
)]
pub struct Options {
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: PathBuf,
    #[command(flatten)]
    pub port: PortOptions,
    #[command(flatten)]
    pub leader: LeaderOptions,
    /// 0 = no HTTPS port.
    #[arg(long, default_value_t = 10259)]
    pub secure_port: u16,
}

impl Options {
    /// What `/configz` says: a KubeSchedulerConfiguration under upstream's name for it (`cmd/kube-scheduler/app`).
    pub fn configz(&self) -> Value {
        json!({"componentconfig": {
            "ClientConnection": {"Kubeconfig": self.kubeconfig},
            "LeaderElection": {"LeaderElect": self.leader.leader_elect, "ResourceName": "kube-scheduler"},
            "EnableProfiling": self.port.profiling,
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::flags;

    #[test]
    fn kubeadms_manifest_is_understood() {
        let words = [
            "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--bind-address=127.0.0.1",
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "--leader-elect=true",
        ];
        let (kept, _) = flags::sift(words.map(str::to_owned).to_vec(), UNIMPLEMENTED);
        let options =
            Options::try_parse_from(std::iter::once("kube-scheduler".to_owned()).chain(kept)).unwrap();
        assert_eq!((options.port.bind_address.to_string(), options.secure_port), ("127.0.0.1".into(), 10259));
    }
}
