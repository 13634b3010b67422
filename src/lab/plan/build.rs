//! From a spec to a plan: a pure function, and the lab's fixed addresses.
//!
//! The same spec always gives the same plan; nothing here reads a file, a clock or a random number. The
//! addresses are the documentation ranges, so that every screen reads as "public addresses".

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::node::Joining;
use super::{Forward, HostKind, HostPlan, Plan, control, konnectivity, node, objects, ssh};
use crate::lab::paths::Mode;
use crate::lab::spec::Spec;

/// The Kubernetes version the lab stands for.
pub const KUBERNETES_VERSION: &str = "v1.36.2";
/// Where the API server listens in control.
pub const API_PORT: u16 = 6443;
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The control plane's load-balancer address, on wire.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The node site's way out, on wire.
pub const NODE_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const POD_CIDR: &str = "10.244.0.0/16";
pub const SERVICE_CIDR: &str = "10.96.0.0/12";
/// The `kubernetes` service, the first address of the service range.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// What every kubeconfig inside the lab names as its server.
pub fn endpoint() -> String {
    format!("https://{BALANCER}:{API_PORT}")
}

/// The name of node `number`, which counts from 1.
pub fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// The address of node `number`: 192.0.2.11 for the first.
pub fn node_address(number: usize) -> Ipv4Addr {
    let last = u8::try_from(10 + number).expect("a spec has at most 32 nodes");
    Ipv4Addr::new(192, 0, 2, last)
}

/// Decides a whole lab.
pub fn plan(spec: &Spec) -> Plan {
    let settings = spec.modes();
    let objects = objects::asked_for(&settings);
    let numbers: Vec<usize> = spec.numbers().collect();
    let mut hosts = vec![wire(), control::host(&settings, &numbers, &objects), switch()];
    let join = |number| spec.joined.get(&number).map(|mode| Joining { pinned: *mode != Mode::Insecure });
    hosts.extend(numbers.iter().map(|number| node::host(*number, &settings, join(*number))));
    let balancer = SocketAddr::from((BALANCER, API_PORT));
    let forwards = vec![Forward { at: balancer, to: SocketAddr::from((CONTROL, API_PORT)) }];
    let bars = [konnectivity::bars(&settings), ssh::bars(&settings)].concat();
    Plan { hosts, forwards, bars, objects }
}

/// An address in a /24.
pub(super) fn in_its_net(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::new(address, 24).expect("24 is a prefix length"))
}

/// The router: it has an address in both sites and no way out.
fn wire() -> HostPlan {
    HostPlan {
        name: "wire".into(),
        kind: HostKind::Wire,
        addresses: vec![in_its_net(BALANCER), in_its_net(NODE_GATEWAY)],
        gateway: None::<IpAddr>,
        files: Vec::new(),
        grown: Vec::new(),
        roles: Vec::new(),
    }
}

/// The bridge the nodes hang on: no address of its own.
fn switch() -> HostPlan {
    HostPlan {
        name: "switch".into(),
        kind: HostKind::Switch,
        addresses: Vec::new(),
        gateway: None,
        files: Vec::new(),
        grown: Vec::new(),
        roles: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::paths::{Profile, Setting, Settings, rows};
    use crate::lab::plan::Contents;

    /// A plan as a person reads it: every host, role and file.
    fn readable(plan: &Plan) -> String {
        let mut text = String::new();
        for host in &plan.hosts {
            let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
            text += &format!("=== host {} [{}]\n", host.name, addresses.join(", "));
            for role in &host.roles {
                text += &format!("--- role {}\n{}", role.name, yaml(&role));
            }
            let all = host.files.iter().map(|file| ("file", file));
            for (what, file) in all.chain(host.grown.iter().map(|file| ("grown", file))) {
                text += &format!("--- {what} {} {:04o}\n", file.path.display(), file.mode);
                text += &match &file.contents {
                    Contents::Text(body) | Contents::Template(body) => body.clone(),
                    named => yaml(&named),
                };
            }
        }
        text + "=== forwards\n"
            + &yaml(&plan.forwards)
            + "=== bars\n"
            + &yaml(&plan.bars)
            + "=== objects\n"
            + &yaml(&plan.objects)
    }

    fn yaml(value: &impl serde::Serialize) -> String {
        // By way of JSON, so that enums read as maps and not as YAML tags.
        serde_yaml_ng::to_string(&serde_json::to_value(value).unwrap()).unwrap()
    }

    #[test]
    fn the_default_plan_is_the_golden_one() {
        let now = readable(&plan(&Spec::new("minilab", 1, Profile::Default, 6443)));
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lab/plan/default.golden");
        if std::env::var_os("MINILAB_GOLDEN").is_some() {
            std::fs::write(golden, &now).unwrap();
        }
        let kept = std::fs::read_to_string(golden).unwrap();
        assert!(now == kept, "the plan changed; `just golden` rewrites {golden}, then read its difference");
    }

    #[test]
    fn every_setting_changes_the_plan() {
        for (path, row) in rows() {
            let with = |mode| {
                let mut spec = Spec::new("minilab", 1, Profile::Default, 6443);
                // Without a request there is nothing to approve, without a tunnel no agent.
                let stage = match row.id {
                    Setting::ToKubeletApproval => {
                        Some(("apiserver-to-kubelet.serving-certificates", Mode::Hardened))
                    }
                    Setting::EgressAgent => Some(("apiserver-egress.tunnel", Mode::Hardened)),
                    Setting::EgressSshHostKey => Some(("apiserver-egress.tunnel", Mode::Partial)),
                    // What is contained is so by the tunnel: they are switched together.
                    Setting::ProxyTransport if mode == Mode::Hardened => {
                        Some(("apiserver-egress.tunnel", Mode::Hardened))
                    }
                    _ => None,
                };
                spec.settings.extend(stage.map(|(stage, mode)| (stage.to_owned(), mode)));
                spec.settings.insert(format!("{}.{}", path.name, row.name), mode);
                plan(&spec)
            };
            assert!(with(Mode::Insecure) != with(Mode::Hardened), "{}.{}", path.name, row.name);
        }
    }

    #[test]
    fn a_plan_survives_its_file() {
        let made = plan(&Spec::new("minilab", 2, Profile::Insecure, 6443));
        let text = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), made);
    }

    #[test]
    fn every_host_gets_its_own_address() {
        let made = plan(&Spec::new("minilab", 32, Profile::Default, 6443));
        let mut all: Vec<_> = made.hosts.iter().flat_map(|host| &host.addresses).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(Settings::of(Profile::Default).mode(Setting::NodeCa), Mode::Hardened);
    }
}
