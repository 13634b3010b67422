//! What stands in a `lab.yaml`: the state an exercise starts from, what is checked, asked and hinted at.
//!
//! killercoda's and iximiuz Labs' files gave the idea (set-up, verify, hint checks, user input). Unknown fields
//! are errors, so that a typing error is found by the first test that reads the file.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::attack::Verdict;
use crate::lab::paths::Mode;

/// An exercise as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Exercise {
    pub title: String,
    /// The path it is about, or `all`.
    pub path: String,
    pub stand: Stand,
    pub minutes: u32,
    #[serde(default)]
    pub cis: Vec<String>,
    /// PATH or PATH.SETTING, on top of kubeadm's.
    #[serde(default)]
    pub settings: BTreeMap<String, Mode>,
    #[serde(default)]
    pub random: BTreeMap<String, Word>,
    #[serde(default)]
    pub objects: String,
    #[serde(default)]
    pub clean: Vec<String>,
    /// Old bugs the API server has at the beginning (`--minilab-museum`): a learner takes the line out.
    #[serde(default)]
    pub museum: Vec<String>,
    /// The settings whose hardening is the repair, each of them needed.
    #[serde(default)]
    #[allow(dead_code, reason = "the tests undo each of them")]
    pub repairs: Vec<String>,
    #[serde(default)]
    pub exploit: Vec<Check>,
    #[serde(default)]
    pub harden: Vec<Check>,
    #[serde(default)]
    pub wrong: Vec<Wrong>,
    #[serde(default)]
    pub questions: Vec<Question>,
    #[serde(default)]
    pub hints: Vec<Hint>,
}

/// Where the attacker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stand {
    Wire,
    Node,
    Pod,
    User,
    Leak,
}

/// What a learner's own value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// `amber-otter-41`
    #[serde(rename = "word")]
    Phrase,
    /// 20000 to 29999
    Port,
    /// Sixteen digits.
    Hex,
    /// 1000 to 9999
    Number,
}

/// Something that must be so.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Check {
    pub name: String,
    /// What is missing where it does not hold.
    pub why: String,
    pub probe: Probe,
}

/// How it is found out.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Probe {
    Attack { setting: String, expect: Verdict },
    Attacked { setting: String, expect: Verdict, say: bool },
    Ask(Box<Ask>),
    Run(Run),
    Exec(Exec),
    Kubectl { words: Vec<String>, exit: i32, text: Text },
    Log(Log),
    Audit(Audit),
    Wire(Wire),
    Works(Vec<Stream>),
    Same(Vec<String>),
    Running(Vec<String>),
    Not(Box<Probe>),
    Any(Vec<Probe>),
    All(Vec<Probe>),
}

/// What a text must have and must not have.
#[derive(Debug, Clone, Default)]
pub struct Text {
    pub contains: Option<String>,
    pub lacks: Option<String>,
}

/// One HTTPS question and its answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ask {
    pub path: Option<String>,
    pub url: Option<String>,
    /// `none`, `junk`, `admin`, `account NS/NAME`, `node NODE`, `token TEXT`.
    #[serde(rename = "as")]
    pub who: Option<String>,
    /// A host, or `pod NS/NAME`.
    pub from: Option<String>,
    pub method: Option<String>,
    pub body: Option<String>,
    pub status: Option<u16>,
    pub contains: Option<String>,
    pub lacks: Option<String>,
    pub pointer: Option<String>,
    pub equals: Option<String>,
}

/// A command in a host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Run {
    pub on: String,
    pub command: Vec<String>,
    #[serde(default)]
    pub exit: i32,
    pub contains: Option<String>,
    pub lacks: Option<String>,
}

/// A command in a pod, by kubectl.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Exec {
    pub pod: String,
    pub command: Vec<String>,
    pub contains: Option<String>,
    pub lacks: Option<String>,
}

/// A line in a role's log since the start.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Log {
    pub role: String,
    #[serde(default = "control")]
    pub host: String,
    pub contains: String,
}

fn control() -> String {
    "control".into()
}

/// A finished request in the API server's audit trail since the start.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Audit {
    pub user: Option<String>,
    pub verb: Option<String>,
    /// The beginning of its path.
    pub path: Option<String>,
    pub resource: Option<String>,
    pub subresource: Option<String>,
    pub status: Option<u16>,
    pub code_below: Option<u16>,
    /// Part of the client's own name.
    pub agent: Option<String>,
}

/// Packets on wire while something runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wire {
    pub from: Option<String>,
    pub to: Option<String>,
    pub port: Option<u16>,
    /// `works`, or the name of a check.
    pub during: String,
    pub count: Option<Count>,
    pub reads: Option<String>,
    pub hides: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Count {
    Exactly(u64),
    Some(SomeWord),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SomeWord {
    Some,
}

/// What kubectl does through the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    Logs,
    Exec,
    PortForward,
}

/// A repair that is none.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wrong {
    pub name: String,
    pub say: String,
    pub when: Probe,
    /// What a learner would do; the tests do it.
    #[serde(rename = "try")]
    #[allow(dead_code, reason = "the tests do it")]
    pub tried: String,
}

/// Which mark something counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// A guess before one acts; never graded.
    Predict,
    Exploit,
    #[default]
    Explain,
    Harden,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Question {
    pub name: String,
    #[serde(default)]
    pub mark: Mark,
    pub ask: String,
    /// The first one is right; a learner sees them in an order of their own.
    #[serde(default)]
    pub choices: Vec<String>,
    pub answer_from: Option<From>,
    pub because: Option<String>,
}

/// Where the right answer comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    Random(String),
    Certificate { host: String, file: String, field: Field },
    Object { path: String, pointer: String },
    Run { on: String, command: Vec<String> },
    Values(Vec<String>),
}

/// A part of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Field {
    Serial,
    Subject,
    Issuer,
    Sans,
    NotAfter,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hint {
    #[serde(default)]
    pub when: When,
    pub levels: [String; 3],
}

/// Names of checks that must hold or fail.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct When {
    #[serde(default)]
    pub holds: Vec<String>,
    #[serde(default)]
    pub fails: Vec<String>,
}

/// A check with every field there is; exactly one of them says its kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Raw {
    name: String,
    why: String,
    attack: Option<String>,
    attacked: Option<String>,
    expect: Option<Expect>,
    say: bool,
    ask: Option<Ask>,
    run: Option<Run>,
    exec: Option<Exec>,
    kubectl: Option<Vec<String>>,
    exit: i32,
    contains: Option<String>,
    lacks: Option<String>,
    log: Option<Log>,
    audit: Option<Audit>,
    wire: Option<Wire>,
    works: Option<Vec<Stream>>,
    same: Option<Vec<String>>,
    running: Option<Vec<String>>,
    not: Option<Box<Raw>>,
    any: Option<Vec<Raw>>,
    all: Option<Vec<Raw>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Expect {
    Compromised,
    Defeated,
}

impl Expect {
    fn verdict(self) -> Verdict {
        match self {
            Self::Compromised => Verdict::Compromised,
            Self::Defeated => Verdict::Defeated,
        }
    }
}

impl TryFrom<Raw> for Check {
    type Error = String;

    fn try_from(mut raw: Raw) -> Result<Check, String> {
        let (name, why) = (std::mem::take(&mut raw.name), std::mem::take(&mut raw.why));
        if name.is_empty() || why.is_empty() {
            return Err("a check has a name and a why".into());
        }
        let probe = Probe::try_from(raw).map_err(|error| format!("check {name}: {error}"))?;
        Ok(Check { name, why, probe })
    }
}

impl TryFrom<Raw> for Probe {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Probe, String> {
        let all = |list: Vec<Raw>| list.into_iter().map(Probe::try_from).collect::<Result<Vec<_>, _>>();
        let text = Text { contains: raw.contains, lacks: raw.lacks };
        let expect = raw.expect.map(Expect::verdict);
        let say = raw.say;
        let found: Vec<Result<Probe, String>> = [
            raw.attack.map(|setting| {
                let expect = expect.ok_or("an attack has an expect")?;
                Ok(Probe::Attack { setting, expect })
            }),
            raw.attacked.map(|setting| {
                Ok(Probe::Attacked { setting, expect: expect.unwrap_or(Verdict::Compromised), say })
            }),
            raw.ask.map(|ask| Ok(Probe::Ask(Box::new(ask)))),
            raw.run.map(|run| Ok(Probe::Run(run))),
            raw.exec.map(|exec| Ok(Probe::Exec(exec))),
            raw.kubectl.map(|words| Ok(Probe::Kubectl { words, exit: raw.exit, text })),
            raw.log.map(|log| Ok(Probe::Log(log))),
            raw.audit.map(|audit| Ok(Probe::Audit(audit))),
            raw.wire.map(|wire| Ok(Probe::Wire(wire))),
            raw.works.map(|streams| Ok(Probe::Works(streams))),
            raw.same.map(|objects| Ok(Probe::Same(objects))),
            raw.running.map(|roles| Ok(Probe::Running(roles))),
            raw.not.map(|inner| Probe::try_from(*inner).map(|probe| Probe::Not(Box::new(probe)))),
            raw.any.map(|list| all(list).map(Probe::Any)),
            raw.all.map(|list| all(list).map(Probe::All)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [one] = <[_; 1]>::try_from(found)
            .map_err(|found| format!("it has {} kinds of check and needs one", found.len()))?;
        one
    }
}

impl Stand {
    /// In a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Wire => "on the wire between the sites",
            Self::Node => "as root on node-1",
            Self::Pod => "in a pod",
            Self::User => "as a user with few rights",
            Self::Leak => "with a file that leaked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_exactly_one_kind_and_a_misspelt_one_is_refused() {
        let parse = |text: &str| {
            let tree: serde_json::Value = serde_yaml_ng::from_str(text).unwrap();
            serde_json::from_value::<Check>(tree).map_err(|error| error.to_string())
        };
        let good = parse("{name: a, why: b, attack: kubelet-access.grants, expect: defeated}").unwrap();
        assert!(matches!(good.probe, Probe::Attack { expect: Verdict::Defeated, .. }));
        assert!(parse("{name: a, why: b}").unwrap_err().contains("0 kinds"));
        assert!(parse("{name: a, why: b, same: [], running: []}").unwrap_err().contains("2 kinds"));
        assert!(parse("{name: a, why: b, atack: x}").is_err());
        assert!(parse("{why: b, same: []}").is_err());
        let inner = parse("{name: a, why: b, not: {any: [{same: []}, {kubectl: [logs], exit: 1}]}}").unwrap();
        assert!(matches!(inner.probe, Probe::Not(_)));
    }
}
