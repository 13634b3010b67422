//! `--feature-gates`: the switches of `pkg/features/kube_features.go` that this server acts on.
//!
//! Any other gate is accepted with a warning, so that a real manifest can be pasted.

use std::str::FromStr;

/// A gate this server acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// A kubelet that declares this feature gets the client's WebSocket as it is.
    ExtendWebSocketsToKubelet,
    /// Other kubelets get SPDY, whatever the client of exec and attach speaks.
    TranslateStreamCloseWebsocketRequests,
    /// And so for port-forward, whose SPDY comes inside a WebSocket.
    PortForwardWebsockets,
    /// Streams asked for by GET need the verb `create` too.
    AuthorizePodWebsocketUpgradeCreatePermission,
}

/// All are beta and on by default in 1.36.
const KNOWN: [(&str, Feature); 4] = [
    ("ExtendWebSocketsToKubelet", Feature::ExtendWebSocketsToKubelet),
    ("TranslateStreamCloseWebsocketRequests", Feature::TranslateStreamCloseWebsocketRequests),
    ("PortForwardWebsockets", Feature::PortForwardWebsockets),
    ("AuthorizePodWebsocketUpgradeCreatePermission", Feature::AuthorizePodWebsocketUpgradeCreatePermission),
];

/// One `Name=true` of the flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    name: String,
    on: bool,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A gate may name its component; the API server's own is `kube`.
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("missing bool value for feature gate key:value pair {text:?}"))?;
        let name = name.trim();
        let on = match value.trim() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => true,
            "false" | "False" | "FALSE" | "f" | "F" | "0" => false,
            other => {
                return Err(format!(
                    "invalid value of {name}={other}, err: strconv.ParseBool: parsing {other:?}: invalid syntax"
                ));
            }
        };
        Ok(Self { name: name.strip_prefix("kube:").unwrap_or(name).to_owned(), on })
    }
}

/// The gates' flag.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FeatureFlags {
    /// Switches of alpha and beta features: Name=true,Other=false.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<Setting>,
}

impl FeatureFlags {
    /// The gates as this server has them; warns of those it has not.
    pub fn build(&self) -> Features {
        for setting in &self.feature_gates {
            if !KNOWN.iter().any(|(name, _)| *name == setting.name) {
                tracing::warn!(gate = setting.name, "this feature gate has no effect here");
            }
        }
        let last = |name: &str| self.feature_gates.iter().rev().find(|setting| setting.name == name);
        let off = KNOWN.iter().filter(|(name, _)| last(name).is_some_and(|setting| !setting.on));
        Features { off: off.map(|(_, feature)| *feature).collect() }
    }
}

/// Which gates are on.
#[derive(Debug, Clone, Default)]
pub struct Features {
    off: Vec<Feature>,
}

impl Features {
    pub fn enabled(&self, feature: Feature) -> bool {
        !self.off.contains(&feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(texts: &[&str]) -> FeatureFlags {
        FeatureFlags { feature_gates: texts.iter().map(|text| text.parse().unwrap()).collect() }
    }

    #[test]
    fn gates_are_on_until_the_last_word_says_otherwise() {
        assert!(Features::default().enabled(Feature::ExtendWebSocketsToKubelet));
        let some = flags(&[
            "kube:ExtendWebSocketsToKubelet=false",
            "PortForwardWebsockets=false",
            "PortForwardWebsockets=true",
            "Other=true",
        ])
        .build();
        assert!(!some.enabled(Feature::ExtendWebSocketsToKubelet));
        assert!(some.enabled(Feature::PortForwardWebsockets));
    }

    #[test]
    fn a_gate_without_a_value_is_refused_in_upstreams_words() {
        let error = "Foo".parse::<Setting>().unwrap_err();
        assert_eq!(error, "missing bool value for feature gate key:value pair \"Foo\"");
        assert!("Foo=maybe".parse::<Setting>().unwrap_err().starts_with("invalid value of Foo=maybe"));
    }
}
