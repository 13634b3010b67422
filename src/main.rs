//! `minilab`: one binary that is every part of a small Kubernetes cluster.
//!
//! The name it was started by decides what it is. Through a link called `kube-apiserver` it is that
//! component; as `minilab` it is the command line. Everything else lives below.

mod api;
mod attack;
mod cli;
mod client;
mod control;
mod course;
mod lab;
mod logging;
mod net;
mod node;
mod pki;
mod stream;
mod sys;
mod tunnel;

use std::process::ExitCode;

/// A role's entry point: the arguments after argv\[0\]; runs until it is told to stop.
type Role = fn(Vec<String>) -> anyhow::Result<ExitCode>;

/// Every name the binary answers to, and what it is then.
const ROLES: &[(&str, Role)] = &[
    ("kube-apiserver", |argv| control::apiserver::run(argv, tunnel::roads)),
    ("kube-controller-manager", control::controllers::run),
    ("kube-scheduler", control::scheduler::run),
    ("csr-approver", control::approver::run),
    ("konnectivity-server", tunnel::server::run),
    ("konnectivity-agent", tunnel::agent::run),
    ("sshd", tunnel::sshd::run),
    ("proxy-server", tunnel::server::run),
    ("proxy-agent", tunnel::agent::run),
    ("kubelet", node::kubelet::run),
    ("kube-proxy", node::proxy::run),
    ("coredns", node::dns::run),
    ("kube-network-policies", node::policy::run),
    ("containerd-shim", node::shim::run),
    ("pause", node::shim::pause),
    ("phone-home", client::phone_home),
    ("attacker", attack::role::run),
    ("kubeadm", lab::kubeadm::run),
    ("minilab-keeper", lab::keeper::run),
    ("minilab-supervisor", lab::supervisor::run),
    ("init", lab::init::run),
    (lab::floor::NAME, lab::floor::run),
];

fn main() -> ExitCode {
    let mut argv = std::env::args();
    let name = argv.next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    let outcome = match ROLES.iter().find(|(role, _)| *role == name) {
        Some((role, run)) => {
            logging::to_stderr(role);
            run(argv.collect())
        }
        None => {
            // A role hears of a peer that went away as a failed write; the command line ends quietly.
            sys::process::default_sigpipe();
            cli::run()
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
