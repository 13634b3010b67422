//! Who talks to whom, and how each of those ways can be set: THE table the rest of the program reads.
//!
//! A **path** is a set of named **settings**; a setting has a **mode**. The table is data ([`table`]);
//! [`Settings`] is a choice of one mode for each. What a choice means in files, flags and objects is
//! decided in [`super::plan`], and nowhere else does the program ask whether something is insecure.

mod errors;
mod lessons;
mod more_errors;
mod proof;
mod table;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use errors::{KnownError, known_errors};
pub use lessons::{At, lesson};
pub use proof::{Proof, proof, section};
pub use table::{PATHS, SSH_TUNNELS};

/// How a setting is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// An attacker where the setting's stand is gets in.
    Insecure,
    /// What real clusters ship: better than nothing, short of hardened.
    Partial,
    /// The attack is turned away.
    Hardened,
}

/// Which end of the cluster calls the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Direction {
    #[serde(rename = "node to control plane")]
    NodeToControlPlane,
    #[serde(rename = "within the control plane")]
    WithinControlPlane,
    #[serde(rename = "control plane to node")]
    ControlPlaneToNode,
}

/// Where the attacker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Stand {
    /// On the untrusted network between the sites.
    Wire,
    /// Root on node-1.
    Node,
    /// In a pod.
    Pod,
    /// A user with limited RBAC.
    User,
    /// Holding a leaked file.
    Leak,
    /// Nowhere of its own: the setting only makes another one work.
    Nowhere,
}

/// One way between two parts.
#[derive(Debug)]
pub struct PathInfo {
    pub name: &'static str,
    pub direction: Direction,
    /// What is at stake, in one sentence.
    pub protects: &'static str,
    pub settings: &'static [SettingInfo],
}

/// One thing that can be set about a path.
#[derive(Debug)]
pub struct SettingInfo {
    pub id: Setting,
    /// The part after the dot.
    pub name: &'static str,
    pub insecure: &'static str,
    pub hardened: &'static str,
    /// kubeadm 1.36's value.
    pub real: Mode,
    /// What bare command lines give.
    pub bare: Mode,
    pub attack: &'static str,
    pub stands: &'static [Stand],
    pub compromised: &'static str,
    pub defeated: &'static str,
    pub flags: &'static [FlagInfo],
}

/// A flag, file field or object that carries a setting.
#[derive(Debug, Serialize)]
pub struct FlagInfo {
    pub role: &'static str,
    pub flag: &'static str,
    pub insecure: &'static str,
    pub hardened: &'static str,
}

/// Every setting by name, so that a misspelt one does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    NodeCa,
    NodeCredential,
    NodeRestriction,
    NodeJoin,
    PodCa,
    PodToken,
    PodRbac,
    PodExternalIps,
    ComponentsCa,
    ComponentsIdentity,
    ComponentsPorts,
    AccessAuthorization,
    AccessAnonymous,
    ToKubeletCa,
    ToKubeletServing,
    ToKubeletApproval,
    KubeletAuthentication,
    KubeletAuthorization,
    KubeletReadOnlyPort,
    KubeletGrants,
    ProxyTransport,
    ProxyGrants,
    EgressTunnel,
    EgressAgent,
    EgressSshHostKey,
}

/// A named choice of modes for every setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// kubeadm 1.36, value by value.
    #[default]
    Default,
    /// What the bare command lines give.
    Flags,
    /// Everything open.
    Insecure,
    /// Everything closed.
    Hardened,
}

/// One mode for every setting: a profile and what departs from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    profile: Profile,
    changes: BTreeMap<Setting, Mode>,
}

/// A name that is in no table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no setting {0:?}; `minilab paths` lists them")]
pub struct UnknownSetting(String);

impl Settings {
    /// A profile as it is.
    pub fn of(profile: Profile) -> Self {
        Self { profile, changes: BTreeMap::new() }
    }

    /// A profile and its departures by name (`kubelet-access.read-only-port`).
    pub fn with(profile: Profile, changes: &BTreeMap<String, Mode>) -> Result<Self, UnknownSetting> {
        let mut settings = Self::of(profile);
        for (name, mode) in changes {
            settings.changes.insert(find(name)?.1.id, *mode);
        }
        Ok(settings)
    }

    /// The mode of a setting.
    pub fn mode(&self, setting: Setting) -> Mode {
        self.changes.get(&setting).copied().unwrap_or_else(|| in_profile(self.profile, info(setting)))
    }

    /// Whether a setting is fully hardened.
    pub fn hardened(&self, setting: Setting) -> bool {
        self.mode(setting) == Mode::Hardened
    }

    /// Whether a setting is wide open.
    pub fn insecure(&self, setting: Setting) -> bool {
        self.mode(setting) == Mode::Insecure
    }

    /// Sets this setting and no other.
    pub fn put(&mut self, setting: Setting, mode: Mode) {
        self.changes.insert(setting, mode);
    }

    /// Sets a setting, and those that cannot be without it: what is proxied is contained only inside a tunnel,
    /// of whichever kind.
    pub fn set(&mut self, setting: Setting, mode: Mode) {
        self.changes.insert(setting, mode);
        match (setting, mode) {
            (Setting::ProxyTransport, Mode::Hardened) if self.insecure(Setting::EgressTunnel) => {
                self.changes.insert(Setting::EgressTunnel, mode)
            }
            (Setting::EgressTunnel, Mode::Insecure) => self.changes.insert(Setting::ProxyTransport, mode),
            _ => None,
        };
    }

    /// What departs from a profile, by name: the form `lab.yaml` keeps. These settings may be thought of from
    /// another one.
    pub fn departures_from(&self, profile: Profile) -> BTreeMap<String, Mode> {
        let departs = rows().filter(|(_, row)| in_profile(profile, row) != self.mode(row.id));
        departs.map(|(_, row)| (name(row.id), self.mode(row.id))).collect()
    }
}

/// What a profile says about a setting.
fn in_profile(profile: Profile, setting: &SettingInfo) -> Mode {
    match profile {
        Profile::Default => setting.real,
        Profile::Flags => setting.bare,
        Profile::Insecure => Mode::Insecure,
        Profile::Hardened => Mode::Hardened,
    }
}

/// What a setting is like halfway, where halfway is something.
pub fn between(setting: Setting) -> Option<&'static str> {
    match setting {
        Setting::PodToken => Some("bound to its pod, and good for a year"),
        Setting::ComponentsPorts => Some("loopback and default paths; profiling is on"),
        Setting::AccessAnonymous => {
            Some("anonymous for health, version and cluster-info (system:public-info-viewer)")
        }
        Setting::ToKubeletApproval => Some("what the Node object claims"),
        Setting::EgressTunnel => Some(SSH_TUNNELS),
        _ => None,
    }
}

/// What clusters people meet have for a setting: kubeadm 1.36, bare command lines, k0s and k3s as installed.
pub fn real_world(setting: &SettingInfo) -> [(&'static str, Mode); 4] {
    // k0s ships Konnectivity with agents' tokens and verifies kubelets' certificates, which its own
    // controller approves by the Node object (`pkg/component/controller/{konnectivity,apiserver}.go`); k3s
    // verifies its kubelets with certificates its own server issues to who holds the node's password
    // (`pkg/daemons/control/deps`, `pkg/server/router.go`), and tunnels by its own agents' WebSockets.
    let (k0s, k3s) = match setting.id {
        Setting::ToKubeletCa | Setting::ToKubeletServing => (Mode::Hardened, Mode::Hardened),
        Setting::ToKubeletApproval => (Mode::Partial, Mode::Partial),
        Setting::EgressTunnel | Setting::ProxyTransport => (Mode::Hardened, Mode::Hardened),
        Setting::EgressAgent => (Mode::Hardened, Mode::Hardened),
        _ => (setting.real, setting.real),
    };
    [("kubeadm", setting.real), ("bare flags", setting.bare), ("k0s", k0s), ("k3s", k3s)]
}

/// Every setting with its path, in the table's order.
pub fn rows() -> impl Iterator<Item = (&'static PathInfo, &'static SettingInfo)> {
    PATHS.iter().flat_map(|path| path.settings.iter().map(move |setting| (path, setting)))
}

/// The row of a setting.
pub fn info(setting: Setting) -> &'static SettingInfo {
    rows().map(|(_, row)| row).find(|row| row.id == setting).expect("a test finds every setting in the table")
}

/// `kubelet-access.read-only-port`.
pub fn name(setting: Setting) -> String {
    let (path, row) =
        rows().find(|(_, row)| row.id == setting).expect("a test finds every setting in the table");
    format!("{}.{}", path.name, row.name)
}

/// The rows a word means: one setting (`PATH.SETTING`), or all of a path.
pub fn meant(word: &str) -> Result<Vec<&'static SettingInfo>, UnknownSetting> {
    match PATHS.iter().find(|path| path.name == word) {
        Some(path) => Ok(path.settings.iter().collect()),
        None => find(word).map(|(_, row)| vec![row]),
    }
}

impl Mode {
    /// How far it is closed: more is closer.
    pub fn rank(self) -> u8 {
        match self {
            Self::Insecure => 0,
            Self::Partial => 1,
            Self::Hardened => 2,
        }
    }
}

/// The row named `path.setting`.
pub fn find(name: &str) -> Result<(&'static PathInfo, &'static SettingInfo), UnknownSetting> {
    rows()
        .find(|(path, row)| {
            name.strip_prefix(path.name).and_then(|rest| rest.strip_prefix('.')) == Some(row.name)
        })
        .ok_or_else(|| UnknownSetting(name.to_owned()))
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insecure => "insecure",
            Self::Partial => "partial",
            Self::Hardened => "hardened",
        })
    }
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wire => "on the wire",
            Self::Node => "as root on node-1",
            Self::Pod => "in a pod",
            Self::User => "as a user with limited RBAC",
            Self::Leak => "holding a leaked file",
            Self::Nowhere => "nowhere of its own",
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Flags => "flags",
            Self::Insecure => "insecure",
            Self::Hardened => "hardened",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_setting_is_in_the_table_once() {
        let ids: Vec<Setting> = rows().map(|(_, row)| row.id).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        // The last variant, counted from zero.
        assert_eq!(ids.len(), Setting::EgressSshHostKey as usize + 1);
    }

    #[test]
    fn the_default_profile_is_kubeadms_and_the_ends_are_the_ends() {
        let default = Settings::of(Profile::Default);
        assert_eq!(default.mode(Setting::ToKubeletCa), Mode::Insecure);
        assert_eq!(default.mode(Setting::NodeCa), Mode::Hardened);
        assert_eq!(Settings::of(Profile::Flags).mode(Setting::KubeletAuthentication), Mode::Insecure);
        assert!(rows().all(|(_, row)| Settings::of(Profile::Hardened).hardened(row.id)));
        assert!(rows().all(|(_, row)| Settings::of(Profile::Insecure).insecure(row.id)));
    }

    #[test]
    fn bare_command_lines_are_never_safer_than_kubeadm() {
        assert!(rows().all(|(_, row)| row.bare.rank() <= row.real.rank()));
    }

    #[test]
    fn what_is_set_back_to_the_profile_departs_no_more_and_the_tunnel_goes_with_what_it_holds() {
        let mut settings = Settings::of(Profile::Default);
        settings.set(Setting::ProxyTransport, Mode::Hardened);
        assert!(settings.hardened(Setting::EgressTunnel));
        settings.set(Setting::EgressTunnel, Mode::Insecure);
        assert!(settings.insecure(Setting::ProxyTransport));
        assert!(settings.departures_from(Profile::Default).is_empty());
        let from_another = Settings::of(Profile::Hardened).departures_from(Profile::Default);
        assert_eq!(from_another["apiserver-to-kubelet.ca"], Mode::Hardened);
        assert_eq!(meant("kubelet-access").unwrap().len(), 4);
        assert_eq!(meant("kubelet-access.grants").unwrap()[0].id, Setting::KubeletGrants);
        assert!(meant("kubelet-access.").is_err());
    }

    #[test]
    fn a_departure_is_found_by_its_name_and_a_misspelt_one_is_refused() {
        let changes = BTreeMap::from([("kubelet-access.read-only-port".to_owned(), Mode::Insecure)]);
        let settings = Settings::with(Profile::Default, &changes).unwrap();
        assert!(settings.insecure(Setting::KubeletReadOnlyPort));
        let changes = BTreeMap::from([("kubelet-access.port".to_owned(), Mode::Insecure)]);
        assert!(Settings::with(Profile::Default, &changes).is_err());
    }
}
