//! What an attack must show under given settings, and which of them decides it: a pure function.
//!
//! Doors stand behind doors. An attack gets through when one of its ways is open, a way being the settings
//! that must all be insecure; the first way that is open decides, and where none is, the first shut setting of
//! the first way.

use super::Verdict;
use crate::lab::paths::{Mode, Setting, Settings};

/// What must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub verdict: Verdict,
    pub decides: Setting,
}

/// The ways of an attack, the setting's own first.
fn ways(setting: Setting) -> &'static [&'static [Setting]] {
    use Setting::*;
    match setting {
        // Whoever may do anything may read this too; a node that is bound to system:node reads every Secret.
        NodeCredential => &[&[NodeCredential], &[NodeRestriction], &[AccessAuthorization]],
        // A shared token is no node's, so NodeRestriction does not hold it.
        NodeRestriction => &[&[NodeRestriction], &[NodeCredential]],
        PodRbac => &[&[PodRbac], &[AccessAuthorization]],
        ComponentsIdentity => &[&[ComponentsIdentity], &[AccessAuthorization]],
        KubeletAuthentication => &[
            &[KubeletAuthentication, KubeletAuthorization],
            // The kubelet asks the API server, which allows everything.
            &[KubeletAuthentication, AccessAuthorization],
        ],
        KubeletAuthorization => &[&[KubeletAuthorization], &[AccessAuthorization]],
        KubeletGrants => &[&[KubeletGrants], &[KubeletAuthorization], &[AccessAuthorization]],
        AccessAuthorization => &[&[AccessAuthorization]],
        AccessAnonymous => &[&[AccessAnonymous]],
        ComponentsPorts => &[&[ComponentsPorts]],
        ProxyGrants => &[&[ProxyGrants], &[AccessAuthorization]],
        PodCa => &[&[PodCa]],
        PodToken => &[&[PodToken]],
        PodExternalIps => &[&[PodExternalIps]],
        NodeJoin => &[&[NodeJoin]],
        ToKubeletApproval => &[&[ToKubeletApproval]],
        ProxyTransport => &[&[ProxyTransport, EgressTunnel]],
        EgressTunnel => &[&[EgressTunnel]],
        KubeletReadOnlyPort => &[&[KubeletReadOnlyPort]],
        _ => &[],
    }
}

/// Settings that keep an attack from its target although its own is insecure, when they are so.
fn in_the_way(setting: Setting, settings: &Settings) -> Option<Setting> {
    use Setting::*;
    match setting {
        // Upstream turns anonymous off where everything is allowed.
        AccessAnonymous if settings.insecure(AccessAuthorization) => Some(AccessAuthorization),
        // Where kubelets sign for themselves nobody approves anything.
        ToKubeletApproval if !settings.hardened(ToKubeletServing) => Some(ToKubeletServing),
        // Inside a tunnel there is nothing to redirect.
        ToKubeletCa if !settings.insecure(EgressTunnel) => Some(EgressTunnel),
        // No other road has an sshd at its end.
        EgressAgent if !settings.hardened(EgressTunnel) => Some(EgressTunnel),
        EgressSshHostKey if settings.mode(EgressTunnel) != Mode::Partial => Some(EgressTunnel),
        _ => None,
    }
}

/// The few others that must be set so for an attack on `setting` to have a target at all.
pub fn stage(setting: Setting) -> &'static [(Setting, Mode)] {
    use Setting::*;
    match setting {
        KubeletAuthentication => &[(KubeletAuthorization, Mode::Insecure)],
        ToKubeletCa | ToKubeletApproval | ProxyTransport => &[(EgressTunnel, Mode::Insecure)],
        EgressAgent => &[(EgressTunnel, Mode::Hardened)],
        EgressSshHostKey => &[(EgressTunnel, Mode::Partial)],
        _ => &[],
    }
}

/// What an attack on `setting` must show.
pub fn expected(settings: &Settings, setting: Setting) -> Expected {
    let own: &[&[Setting]] = &[&[setting]];
    let ways = match ways(setting) {
        [] => own,
        ways => ways,
    };
    let insecure = |one: &Setting| match one {
        // An approver that goes by what nodes say of themselves can be told anything, and SSH tunnels are dialled
        // from control: halfway is open.
        Setting::ToKubeletApproval | Setting::EgressTunnel => !settings.hardened(*one),
        _ => settings.insecure(*one),
    };
    let open = |way: &&&[Setting]| way.iter().all(insecure);
    let defeated = |decides| Expected { verdict: Verdict::Defeated, decides };
    match (ways.iter().find(open), in_the_way(setting, settings)) {
        (Some(_), Some(decides)) => defeated(decides),
        (Some([alone]), None) => Expected { verdict: Verdict::Compromised, decides: *alone },
        (Some(_), None) => Expected { verdict: Verdict::Compromised, decides: setting },
        (None, _) => {
            let shut = ways[0].iter().find(|one| !insecure(one));
            defeated(shut.copied().unwrap_or(setting))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::attacked;
    use crate::lab::paths::Profile;

    #[test]
    fn on_its_stage_an_attacks_own_setting_decides_both_ways() {
        for setting in attacked() {
            let mut settings = Settings::of(Profile::Hardened);
            stage(setting).iter().for_each(|(other, mode)| settings.put(*other, *mode));
            assert_eq!(
                expected(&settings, setting),
                Expected { verdict: Verdict::Defeated, decides: setting }
            );
            settings.put(setting, Mode::Insecure);
            let now = expected(&settings, setting);
            assert_eq!(now, Expected { verdict: Verdict::Compromised, decides: setting });
        }
    }

    #[test]
    fn a_shut_second_door_defeats_what_comes_through_the_first() {
        let mut settings = Settings::of(Profile::Hardened);
        settings.put(Setting::KubeletAuthentication, Mode::Insecure);
        let now = expected(&settings, Setting::KubeletAuthentication);
        assert_eq!(now, Expected { verdict: Verdict::Defeated, decides: Setting::KubeletAuthorization });
    }

    #[test]
    fn another_open_door_decides_in_the_place_of_a_shut_one() {
        let mut settings = Settings::of(Profile::Hardened);
        settings.put(Setting::AccessAuthorization, Mode::Insecure);
        let now = expected(&settings, Setting::PodRbac);
        assert_eq!(now, Expected { verdict: Verdict::Compromised, decides: Setting::AccessAuthorization });
        let now = expected(&Settings::of(Profile::Insecure), Setting::AccessAnonymous);
        assert_eq!(now, Expected { verdict: Verdict::Defeated, decides: Setting::AccessAuthorization });
    }
}
