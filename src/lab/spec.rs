//! What a person asks for: `lab.yaml`, the few things a lab is made from.
//!
//! Versioned like a Kubernetes object, so that it can be kept beside a course's other files. It stands for
//! kind's cluster configuration; what follows from it is decided in [`super::plan`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::paths::{Mode, Profile, Settings, UnknownSetting};

/// The most nodes that fit the node site's addresses and a learner's machine.
pub const MOST_NODES: usize = 32;

/// The port a first lab listens on.
pub const USUAL_PORT: u16 = 6443;

/// A lab as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    /// The nodes the lab was made with: `node-1` to this one.
    pub nodes: usize,
    /// Numbers of nodes that joined the running lab, and whether they pinned the cluster's CA.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joined: BTreeMap<usize, Mode>,
    /// Numbers of the first nodes that were taken away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<usize>,
    #[serde(default)]
    pub profile: Profile,
    /// Where the API server answers on 127.0.0.1 of the machine.
    pub port: u16,
    /// `path.setting: mode`, where it departs from the profile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Mode>,
}

/// What is wrong with a `lab.yaml`.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("lab.yaml cannot be read")]
    Parse(#[from] serde_yaml_ng::Error),
    #[error("lab.yaml is {api_version} {kind}; this version reads minilab.dev/v1alpha1 Lab")]
    Version { api_version: String, kind: String },
    #[error("a lab has 1 to {MOST_NODES} nodes, not {0}")]
    Nodes(usize),
    #[error(transparent)]
    Setting(#[from] UnknownSetting),
}

impl Spec {
    /// A lab nobody changed yet.
    pub fn new(name: &str, nodes: usize, profile: Profile, port: u16) -> Self {
        Self {
            api_version: "minilab.dev/v1alpha1".into(),
            kind: "Lab".into(),
            name: name.into(),
            nodes,
            joined: BTreeMap::new(),
            removed: BTreeSet::new(),
            profile,
            port,
            settings: BTreeMap::new(),
        }
    }

    /// Reads and checks a `lab.yaml`.
    pub fn from_yaml(text: &str) -> Result<Self, SpecError> {
        let spec: Self = serde_yaml_ng::from_str(text)?;
        if spec.api_version != "minilab.dev/v1alpha1" || spec.kind != "Lab" {
            return Err(SpecError::Version { api_version: spec.api_version, kind: spec.kind });
        }
        spec.check()?;
        Ok(spec)
    }

    /// Writes the `lab.yaml` that [`Self::from_yaml`] reads.
    pub fn to_yaml(&self) -> String {
        serde_yaml_ng::to_string(self).expect("plain strings and numbers have a YAML form")
    }

    /// Whether a lab of this shape can be.
    pub fn check(&self) -> Result<Settings, SpecError> {
        if !(1..=MOST_NODES).contains(&self.nodes) {
            return Err(SpecError::Nodes(self.nodes));
        }
        let numbers: Vec<usize> = self.numbers().collect();
        if numbers.is_empty() || numbers.iter().any(|number| !(1..=MOST_NODES).contains(number)) {
            return Err(SpecError::Nodes(numbers.len()));
        }
        Ok(Settings::with(self.profile, &self.settings)?)
    }

    /// The numbers of the nodes there are, in order.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let first = (1..=self.nodes).filter(|number| !self.removed.contains(number));
        first.chain(self.joined.keys().copied()).collect::<BTreeSet<_>>().into_iter()
    }

    /// Lets a node join; returns its number, nothing when the lab is full.
    pub fn add(&mut self, join: Mode) -> Option<usize> {
        let taken: BTreeSet<usize> = self.numbers().collect();
        let number = (1..=MOST_NODES).find(|number| !taken.contains(number))?;
        self.joined.insert(number, join);
        Some(number)
    }

    /// Takes a node away; false when there is none of that number or it is the last.
    pub fn remove(&mut self, number: usize) -> bool {
        if self.numbers().count() == 1 || !self.numbers().any(|there| there == number) {
            return false;
        }
        if self.joined.remove(&number).is_none() {
            self.removed.insert(number);
        }
        true
    }

    /// The modes asked for. Names the table lacks, refused by [`Self::check`], count as not departing.
    pub fn modes(&self) -> Settings {
        Settings::with(self.profile, &self.settings).unwrap_or_else(|_| Settings::of(self.profile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_its_file() {
        let mut spec = Spec::new("minilab", 2, Profile::Flags, 6443);
        spec.settings.insert("kubelet-access.read-only-port".into(), Mode::Hardened);
        assert_eq!(Spec::from_yaml(&spec.to_yaml()).unwrap(), spec);
    }

    #[test]
    fn nodes_join_by_the_lowest_free_number_and_the_last_one_stays() {
        let mut spec = Spec::new("minilab", 2, Profile::Default, 6443);
        assert_eq!(spec.add(Mode::Hardened), Some(3));
        assert!(spec.remove(1) && !spec.remove(1));
        assert_eq!(spec.numbers().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(spec.add(Mode::Insecure), Some(1));
        assert_eq!(Spec::from_yaml(&spec.to_yaml()).unwrap(), spec);
        assert!(spec.remove(1) && spec.remove(2) && !spec.remove(3));
    }

    #[test]
    fn a_spec_with_too_many_nodes_an_unknown_word_or_another_version_is_refused() {
        let good = Spec::new("a", 2, Profile::Default, 1).to_yaml();
        for (from, to) in [("nodes: 2", "nodes: 0"), ("kind: Lab", "kind: Pod"), ("port: 1", "prt: 1")] {
            assert!(Spec::from_yaml(&good.replace(from, to)).is_err(), "{to}");
        }
    }
}
