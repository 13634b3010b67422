//! What a person asks for: `lab.yaml`, the few things a lab is made from.
//!
//! Versioned like a Kubernetes object, so that it can be kept beside a course's other files. It stands for
//! kind's cluster configuration; what follows from it is decided in [`super::plan`].

use std::collections::BTreeMap;

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
    pub nodes: usize,
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
        Ok(Settings::with(self.profile, &self.settings)?)
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
    fn a_spec_with_too_many_nodes_an_unknown_word_or_another_version_is_refused() {
        let good = Spec::new("a", 2, Profile::Default, 1).to_yaml();
        for (from, to) in [("nodes: 2", "nodes: 0"), ("kind: Lab", "kind: Pod"), ("port: 1", "prt: 1")] {
            assert!(Spec::from_yaml(&good.replace(from, to)).is_err(), "{to}");
        }
    }
}
