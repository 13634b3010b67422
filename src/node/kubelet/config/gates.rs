//! Feature gates (`--feature-gates`, `featureGates`) that mean something to this kubelet.
//!
//! `pkg/features/kube_features.go`, v1.36. A gate of upstream's that this kubelet does not act on is
//! accepted, so that real configurations can be pasted; it is named once at the start.

use std::collections::BTreeMap;

use super::super::KubeletError;

/// A gate's name, whether it is on by default, and whether upstream locked it there.
const KNOWN: &[(&str, bool, bool)] = &[
    ("ComponentFlagz", true, false),
    ("ComponentStatusz", true, false),
    ("ContainerCheckpoint", true, false),
    ("ExtendWebSocketsToKubelet", true, false),
    ("KubeletFineGrainedAuthz", true, true),
    ("NodeDeclaredFeatures", true, false),
    ("NodeLogQuery", true, true),
    ("PodLogsQuerySplitStreams", false, false),
    ("ReloadKubeletClientCAFile", true, false),
    ("ReloadKubeletServerCertificateFile", true, false),
    ("RotateKubeletServerCertificate", true, false),
];

/// Which gates are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gates {
    set: BTreeMap<String, bool>,
}

impl Gates {
    /// What the file says, and over it what the flag says (`A=true,B=false`).
    pub fn read(file: Option<&BTreeMap<String, bool>>, flag: &str) -> Result<Self, KubeletError> {
        let mut set = file.cloned().unwrap_or_default();
        for pair in flag.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let bad = || KubeletError::Flag("feature-gates", pair.to_owned());
            let (name, value) = pair.split_once('=').ok_or_else(bad)?;
            let value = match value.trim() {
                "true" | "True" | "TRUE" | "t" | "T" | "1" => true,
                "false" | "False" | "FALSE" | "f" | "F" | "0" => false,
                _ => return Err(bad()),
            };
            set.insert(name.trim().to_owned(), value);
        }
        for (name, default, locked) in KNOWN {
            if *locked && set.get(*name).is_some_and(|value| value != default) {
                return Err(KubeletError::LockedGate(name, *default));
            }
        }
        Ok(Self { set })
    }

    /// Whether a gate of [`KNOWN`] is open.
    pub fn on(&self, name: &str) -> bool {
        let default = KNOWN.iter().any(|(known, on, _)| *known == name && *on);
        self.set.get(name).copied().unwrap_or(default)
    }

    /// What was set, as `/configz` shows it.
    pub fn set(&self) -> &BTreeMap<String, bool> {
        &self.set
    }

    /// Every known gate as it is now.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, bool)> {
        KNOWN.iter().map(|(name, ..)| (*name, self.on(name)))
    }

    /// Gates that were set and have no effect here.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        self.set.keys().map(String::as_str).filter(|name| KNOWN.iter().all(|(known, ..)| known != name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_file_and_locked_gates_stay() {
        let file = BTreeMap::from([("ExtendWebSocketsToKubelet".to_owned(), true)]);
        let gates = Gates::read(Some(&file), "ExtendWebSocketsToKubelet=false,Other=true").unwrap();
        assert!(!gates.on("ExtendWebSocketsToKubelet") && gates.on("NodeDeclaredFeatures"));
        assert_eq!(gates.ignored().collect::<Vec<_>>(), ["Other"]);
        let locked = Gates::read(None, "KubeletFineGrainedAuthz=false").unwrap_err();
        assert_eq!(
            locked.to_string(),
            "cannot set feature gate KubeletFineGrainedAuthz to false, feature is locked to true"
        );
        assert!(Gates::read(None, "A=maybe").is_err());
    }
}
