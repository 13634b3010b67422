//! Of each path as it is set: who has proven to whom who it is, what a listener on the way reads, what somebody in
//! the middle can change, and which settings make it so. A pure function; the attacks show it.
//!
//! Left out: what crosses no wire, and what an end does with what it was told.

use serde::Serialize;

use super::{Mode, PATHS, Setting, Settings, info};

/// What protects a path, each in a word and then why.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    pub server_proven: &'static str,
    pub client_proven: &'static str,
    /// By who only listens on wire.
    pub listener_reads: &'static str,
    /// By who stands on wire and answers.
    pub middle_changes: &'static str,
    /// `ca insecure, credential hardened`.
    pub why: String,
}

/// Where the documentation's page speaks of a path.
pub fn section(path: &str) -> &'static str {
    match path {
        "apiserver-to-kubelet" | "kubelet-access" => "Control plane to node: API server to kubelet",
        "apiserver-proxy" => "Control plane to node: API server to nodes, pods, and services",
        "apiserver-egress" => "Control plane to node: SSH tunnels, Konnectivity service",
        _ => "Node to Control Plane",
    }
}

const CIPHER: &str = "nothing: TLS";
const NOTHING: &str = "nothing: it is no end of the TLS session";

/// What protects a path under these settings.
pub fn proof(path: &str, settings: &Settings) -> Proof {
    let open = |setting| settings.insecure(setting);
    let [server_proven, client_proven, listener_reads, middle_changes] = match path {
        "node-to-apiserver" => [
            trust(open(Setting::NodeCa)),
            match open(Setting::NodeCredential) {
                true => "yes: by one token that every node has",
                false => "yes: by a certificate of the node's own",
            },
            CIPHER,
            match (open(Setting::NodeCa), open(Setting::NodeCredential)) {
                (true, true) => "everything: it is the API server, and keeps the token",
                (true, false) => "everything: it is the API server to the node, which runs what it is told",
                _ => NOTHING,
            },
        ],
        "pod-to-apiserver" => [
            match open(Setting::PodCa) {
                true => "no: the pod takes whoever answers",
                false => "yes: by the CA the pod was given",
            },
            match settings.mode(Setting::PodToken) {
                Mode::Insecure => "yes: by a token that never ends",
                Mode::Partial => "yes: by a token bound to its pod, good for a year",
                Mode::Hardened => "yes: by a token bound to its pod, good for an hour",
            },
            CIPHER,
            match open(Setting::PodCa) {
                true => "everything: it is the API server, and keeps the token",
                false => NOTHING,
            },
        ],
        "components-to-apiserver" => [
            trust(open(Setting::ComponentsCa)),
            match open(Setting::ComponentsIdentity) {
                true => "yes: by the administrator's certificate, which all of them share",
                false => "yes: by a certificate of its own",
            },
            CIPHER,
            match open(Setting::ComponentsCa) {
                true => "everything: it is the API server, which says what is to be scheduled",
                false => NOTHING,
            },
        ],
        "apiserver-access" => [
            "yes: to whoever looks at its certificate",
            match open(Setting::AccessAnonymous) && !open(Setting::AccessAuthorization) {
                true => "no: nobody has to be anybody",
                false => "yes: by a certificate or a token",
            },
            CIPHER,
            "nothing: against whoever looks at its certificate",
        ],
        "apiserver-to-kubelet" => to_kubelet(settings),
        "kubelet-access" => [
            match settings.hardened(Setting::ToKubeletServing) {
                true => "yes: to whoever looks at its certificate",
                false => "no: the kubelet signed for itself",
            },
            match open(Setting::KubeletAuthentication) {
                true => "no: nobody has to be anybody",
                false => "yes: by a certificate or a token",
            },
            match open(Setting::KubeletReadOnlyPort) {
                true => "pods and metrics: port 10255 is plain text",
                false => CIPHER,
            },
            match open(Setting::KubeletReadOnlyPort) {
                true => "pods and metrics: port 10255 is plain text",
                false => "nothing: against whoever looks at its certificate",
            },
        ],
        "apiserver-proxy" => [
            "no: http has no certificate, and behind https: nobody looks at it",
            "no: the API server shows nothing of its own",
            match open(Setting::EgressTunnel) {
                true => "everything: http is plain text",
                false => "nothing: on wire it is inside a tunnel; on the node's host it is plain text",
            },
            match open(Setting::EgressTunnel) {
                true => "everything: behind https: as well",
                false => "nothing: on wire it is inside a tunnel",
            },
        ],
        _ => egress(settings),
    };
    Proof { server_proven, client_proven, listener_reads, middle_changes, why: why(path, settings) }
}

fn trust(open: bool) -> &'static str {
    match open {
        true => "no: its certificate is not looked at",
        false => "yes: by the CA in the kubeconfig",
    }
}

fn to_kubelet(settings: &Settings) -> [&'static str; 4] {
    let open = |setting| settings.insecure(setting);
    let client = "yes: by the API server's kubelet client certificate";
    let server = match (open(Setting::ToKubeletCa), settings.hardened(Setting::ToKubeletServing)) {
        (true, _) => "no: its certificate is not looked at",
        (false, false) => "no: kubelets sign for themselves, so every verb fails",
        (false, true) if settings.hardened(Setting::ToKubeletApproval) => {
            "yes: by the CA, for its own address"
        }
        (false, true) => "yes: by the CA, which signs for whatever address a node asks",
    };
    let middle = match (open(Setting::ToKubeletCa), open(Setting::EgressTunnel)) {
        (true, true) => "everything: logs, keystrokes, forwarded bytes",
        (true, false) => "nothing: on wire it is inside a tunnel, whose far end could change everything",
        (false, _) if settings.hardened(Setting::ToKubeletApproval) => NOTHING,
        (false, _) => "everything: with a certificate for a sibling's address",
    };
    [server, client, CIPHER, middle]
}

fn egress(settings: &Settings) -> [&'static str; 4] {
    let open = |setting| settings.insecure(setting);
    match settings.mode(Setting::EgressTunnel) {
        Mode::Insecure => {
            ["no: there is no tunnel", "no: there is no tunnel", CIPHER, "what each path lets it"]
        }
        Mode::Partial => [
            match open(Setting::EgressSshHostKey) {
                true => "no: the node's host key is not looked at",
                false => "yes: by the node's pinned host key",
            },
            "yes: by one key that opens every node",
            "nothing: SSH",
            match open(Setting::EgressSshHostKey) {
                true => "everything: it is the node's sshd",
                false => "nothing: it is no end of the SSH session",
            },
        ],
        Mode::Hardened => [
            "yes: agents look at konnectivity-server's certificate",
            match open(Setting::EgressAgent) {
                true => "no: any agent may join",
                false => "yes: by the agent's token",
            },
            CIPHER,
            match open(Setting::EgressAgent) {
                true => "everything: as an agent of its own it is sent the API server's dials",
                false => NOTHING,
            },
        ],
    }
}

/// The settings that decide it, as they are.
fn why(path: &str, settings: &Settings) -> String {
    let own = PATHS.iter().find(|one| one.name == path).map_or(&[][..], |path| path.settings);
    let word = |setting: Setting| format!("{} {}", info(setting).name, settings.mode(setting));
    let mut words: Vec<String> = own.iter().map(|row| word(row.id)).collect();
    if matches!(path, "apiserver-to-kubelet" | "apiserver-proxy") {
        words.push(format!("apiserver-egress.{}", word(Setting::EgressTunnel)));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::paths::Profile;

    #[test]
    fn in_a_hardened_lab_only_the_proxy_proves_nothing_and_nobody_reads_or_changes_anything() {
        let settings = Settings::of(Profile::Hardened);
        for path in PATHS {
            let proof = proof(path.name, &settings);
            let proven =
                [proof.server_proven, proof.client_proven].iter().all(|text| text.starts_with("yes: "));
            assert_eq!(proven, path.name != "apiserver-proxy", "{}: {proof:?}", path.name);
            assert!(proof.listener_reads.starts_with("nothing: "), "{proof:?}");
            assert!(proof.middle_changes.starts_with("nothing: "), "{proof:?}");
        }
    }

    #[test]
    fn with_everything_open_the_man_in_the_middle_has_every_path_he_can_stand_in() {
        let settings = Settings::of(Profile::Insecure);
        for path in
            ["node-to-apiserver", "pod-to-apiserver", "components-to-apiserver", "apiserver-to-kubelet"]
        {
            let proof = proof(path, &settings);
            assert!(proof.server_proven.starts_with("no: "), "{path}");
            assert!(proof.middle_changes.starts_with("everything: "), "{path}");
        }
        assert!(proof("apiserver-proxy", &settings).listener_reads.starts_with("everything"));
        let why = proof("apiserver-to-kubelet", &settings).why;
        assert!(why.starts_with("ca insecure") && why.ends_with("apiserver-egress.tunnel insecure"), "{why}");
    }
}
