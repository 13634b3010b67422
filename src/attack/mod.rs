//! The attacks: for a setting, what somebody could do while it is insecure, done for real, and a verdict from
//! what was seen.
//!
//! An attack knows no configuration. It does what its attacker would, from where that one stands ([`scene`],
//! [`role`]), each time with a marker nobody could have guessed, and judges packets and answers: `compromised`
//! when the marker came back, `defeated` when the attack arrived and was turned away in so many words,
//! `inconclusive` otherwise. What *should* come out is computed apart from it, from the settings ([`expect`]).

mod apiserver_access;
mod apiserver_egress;
mod apiserver_proxy;
mod apiserver_to_kubelet;
mod approval;
mod components_to_apiserver;
mod expect;
mod fake_hub;
mod join;
mod kubelet_access;
mod node_to_apiserver;
mod pod_to_apiserver;
mod question;
pub mod role;
mod running;
mod scene;
mod wire_view;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::lab::paths::{Setting, Settings, name, rows};
use crate::lab::plan::{HostKind, Plan};
use crate::lab::state::LabDir;

pub use expect::{expected, stage};
pub use running::Running;
use scene::Scene;
pub use scene::guard::{WORD as GUARD, stand as stand_guard};

/// Why an attack could not even be tried.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    #[error("start a runtime")]
    Runtime(#[source] std::io::Error),
    #[error("the lab cannot be asked")]
    Lab(#[from] crate::lab::protocol::ProtocolError),
    #[error("read the lab's files")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Lock(#[from] crate::lab::state::StateError),
    #[error("read the lab's plan")]
    Plan(#[from] serde_json::Error),
    #[error("reach the API server")]
    Client(#[from] crate::client::ClientError),
    #[error("{doing}")]
    Api { doing: String, source: kube::Error },
    #[error("{doing} took too long")]
    Late { doing: String },
    #[error("{what} in {host}: {why}")]
    Host { host: String, what: String, why: String },
    #[error("{0}")]
    Scene(String),
}

/// How an attack ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Compromised,
    Defeated,
    Inconclusive,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Compromised => "compromised",
            Self::Defeated => "defeated",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// `answer`, `packet`, `log` or `object`.
    pub kind: &'static str,
    pub what: String,
    pub sample: String,
}

/// What an attack found.
#[derive(Debug)]
pub struct Finding {
    pub verdict: Verdict,
    /// The attack arrived where it was aimed.
    pub reached: bool,
    /// In one sentence.
    pub observed: String,
    pub evidence: Vec<Evidence>,
}

/// One attack as `-o json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub path: String,
    pub mode: String,
    pub verdict: Verdict,
    pub reached: bool,
    pub expected: Verdict,
    /// The setting that decides what is expected.
    pub decides: String,
    pub evidence: Vec<Evidence>,
    pub observed: String,
    pub took_ms: f64,
}

impl Report {
    /// Whether it came as the settings say it must.
    pub fn as_expected(&self) -> bool {
        self.verdict == self.expected
    }
}

/// What the learner wants of an attack.
#[derive(Debug, Default, Clone)]
pub struct Wishes {
    /// What forged answers say.
    pub say: Option<String>,
}

type Run = fn(&mut Scene, &Wishes) -> Result<Finding, AttackError>;

/// Every attack there is, by the setting that defeats it.
const ATTACKS: &[(Setting, Run)] = &[
    (Setting::NodeCa, fake_hub::node_ca),
    (Setting::NodeCredential, node_to_apiserver::credential),
    (Setting::NodeRestriction, node_to_apiserver::restriction),
    (Setting::NodeJoin, join::join),
    (Setting::PodCa, fake_hub::pod_ca),
    (Setting::PodToken, pod_to_apiserver::token),
    (Setting::PodRbac, pod_to_apiserver::rbac),
    (Setting::PodExternalIps, pod_to_apiserver::external_ips),
    (Setting::ComponentsCa, fake_hub::components_ca),
    (Setting::ComponentsIdentity, components_to_apiserver::identity),
    (Setting::ComponentsPorts, components_to_apiserver::ports),
    (Setting::AccessAuthorization, apiserver_access::authorization),
    (Setting::AccessAnonymous, apiserver_access::anonymous),
    (Setting::ToKubeletCa, apiserver_to_kubelet::ca),
    (Setting::ToKubeletApproval, approval::approval),
    (Setting::KubeletAuthentication, kubelet_access::authentication),
    (Setting::KubeletAuthorization, kubelet_access::authorization),
    (Setting::KubeletReadOnlyPort, kubelet_access::read_only_port),
    (Setting::KubeletGrants, kubelet_access::grants),
    (Setting::ProxyTransport, wire_view::transport),
    (Setting::ProxyGrants, apiserver_proxy::grants),
    (Setting::EgressTunnel, wire_view::tunnel),
    (Setting::EgressAgent, apiserver_egress::agent_authentication),
    (Setting::EgressSshHostKey, apiserver_egress::ssh_host_key),
];

/// The settings that have an attack, in the table's order.
pub fn attacked() -> impl Iterator<Item = Setting> {
    rows().map(|(_, row)| row.id).filter(|setting| ATTACKS.iter().any(|(of, _)| of == setting))
}

/// Attacks a setting of a running lab.
pub fn attack(
    lab: &LabDir,
    settings: &Settings,
    setting: Setting,
    wishes: &Wishes,
) -> Result<Report, AttackError> {
    let began = Instant::now();
    let run = ATTACKS.iter().find(|(of, _)| *of == setting).map(|(_, run)| run);
    let run = run.ok_or_else(|| AttackError::Scene(format!("{} has no attack of its own", name(setting))))?;
    let mut scene = Scene::set(lab)?;
    let finding = run(&mut scene, wishes);
    scene.strike();
    Ok(report(settings, setting, finding?, began))
}

fn report(settings: &Settings, setting: Setting, finding: Finding, began: Instant) -> Report {
    let expected = expected(settings, setting);
    Report {
        path: name(setting),
        mode: settings.mode(setting).to_string(),
        verdict: finding.verdict,
        reached: finding.reached,
        expected: expected.verdict,
        decides: name(expected.decides),
        evidence: finding.evidence,
        observed: finding.observed,
        took_ms: began.elapsed().as_secs_f64() * 1000.0,
    }
}

/// An attacker that stands there while somebody else does something.
pub struct Standing {
    setting: Setting,
    began: Instant,
    attackers: Vec<Running>,
}

/// Takes the attacker's place for a command of the learner's own; only a fake kubelet can wait for one.
pub fn stand(lab: &LabDir, setting: Setting, wishes: &Wishes) -> Result<Standing, AttackError> {
    if setting != Setting::ToKubeletCa {
        let what = format!("{} does not wait for a command; apiserver-to-kubelet.ca does", name(setting));
        return Err(AttackError::Scene(what));
    }
    let began = Instant::now();
    Ok(Standing { setting, began, attackers: apiserver_to_kubelet::stand(lab, wishes)? })
}

impl Standing {
    /// Goes, and says what was seen.
    pub fn leave(self, settings: &Settings) -> Report {
        let finding = apiserver_to_kubelet::seen_standing(self.attackers);
        report(settings, self.setting, finding, self.began)
    }
}

/// Listens on wire until what this gives is dropped.
pub fn watch_wire(lab: &LabDir, packets: bool) -> Result<Running, AttackError> {
    let mut words = vec!["attacker".to_owned(), "capture".into()];
    words.extend(packets.then(|| "--packets".to_owned()));
    running::start(lab, "wire", words, Vec::new())
}

/// Listens for the TLS secrets of control's and the nodes' roles until what this gives is dropped.
pub fn watch_keys(lab: &LabDir) -> Result<Vec<Running>, AttackError> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
    let ends = plan.hosts.iter().filter(|host| matches!(host.kind, HostKind::Control | HostKind::Node));
    let words = ["attacker", "keys"].map(str::to_owned).to_vec();
    ends.map(|host| {
        let running = running::start(lab, &host.name, words.clone(), Vec::new())?;
        let late = || AttackError::Late { doing: format!("listen for keys in {}", host.name) };
        running.event("ready").ok_or_else(late)?;
        Ok(running)
    })
    .collect()
}

impl Finding {
    fn compromised(observed: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self { verdict: Verdict::Compromised, reached: true, observed: observed.into(), evidence }
    }

    fn defeated(observed: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self { verdict: Verdict::Defeated, reached: true, observed: observed.into(), evidence }
    }

    fn inconclusive(observed: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self { verdict: Verdict::Inconclusive, reached: false, observed: observed.into(), evidence }
    }

    /// The usual judgement of one answer: the marker in it is a compromise, one of these refusals a defeat.
    fn by_answer(answer: &role::Answer, asked: &str, gained: &str, refusals: &[&str]) -> Self {
        let evidence = vec![answered(asked, answer)];
        let refused = |text: &&&str| {
            let status = answer.status.map(|status| status.to_string());
            status.as_deref() == Some(**text) || answer.error.contains(**text) || answer.body.contains(**text)
        };
        match () {
            () if answer.found => Self::compromised(format!("{gained}: the marker came back"), evidence),
            () if refusals.iter().any(|text| refused(&text)) => {
                Self::defeated(format!("turned away: {}", answer.line()), evidence)
            }
            () => {
                Self::inconclusive(format!("neither the marker nor a refusal: {}", answer.line()), evidence)
            }
        }
    }
}

/// An answer as evidence.
fn answered(asked: &str, answer: &role::Answer) -> Evidence {
    let sample = match answer.status {
        Some(status) => format!("{status} {}", answer.body.trim()),
        None => answer.error.clone(),
    };
    Evidence { kind: "answer", what: asked.to_owned(), sample }
}
