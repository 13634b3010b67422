//! The hosts as the supervisor holds them: an init each, a network each, the cables between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ipnet::Ipv4Net;
use nix::sched::CloneFlags;

use super::SupervisorError;
use crate::lab::hostroot;
use crate::lab::order::{Blueprint, ORDERS, Order};
use crate::lab::plan::{Bar, Forward, HostKind, HostPlan, Plan};
use crate::lab::state::LabDir;
use crate::lab::topology::{self, Attachment, Cable};
use crate::sys::child::Spawn;
use crate::sys::mount;
use crate::sys::namespace::Network;
use crate::sys::netlink::Route;
use crate::sys::nft::{Batch, ChainKind, Family, Hook, Protocol, Rule, Verdict, priority};
use crate::sys::packet::PacketSocket;
use crate::sys::process;

/// Wire's nftables table.
const TABLE: &str = "minilab";

/// A host that runs.
#[derive(Debug)]
pub struct Running {
    /// Its init, in the lab's pid namespace.
    pub pid: i32,
    pub init: Rc<PacketSocket>,
    pub attachment: Attachment,
    /// Its root is made: processes can be started.
    pub built: bool,
}

/// Which hosts a new plan brings and takes.
#[derive(Debug)]
pub struct Replanned {
    pub come: Vec<String>,
    pub go: Vec<String>,
}

/// Every host of the plan, running or not.
#[derive(Debug)]
pub struct Hosts {
    lab: LabDir,
    /// The lab's own small file system.
    run: PathBuf,
    plans: Vec<HostPlan>,
    forwards: Vec<Forward>,
    bars: Vec<Bar>,
    cables: Vec<Cable>,
    running: BTreeMap<String, Running>,
    /// By node: the pods behind it, and where it is.
    routes: BTreeMap<String, (Ipv4Net, std::net::Ipv4Addr)>,
}

impl Hosts {
    /// No host runs yet. The binary is put where inits start from, whatever happens to its path later.
    pub fn new(lab: LabDir, run: PathBuf, plan: &Plan) -> Result<Hosts, SupervisorError> {
        let make = |path: &Path| {
            std::fs::create_dir(path)
                .map_err(|source| SupervisorError::Make { path: path.to_owned(), source })
        };
        make(&run.join("bin"))?;
        make(&run.join("root"))?;
        let binary = run.join("bin/minilab");
        mount::place_for_file(&binary)?;
        let exe = std::env::current_exe().map_err(|source| SupervisorError::Binary { source })?;
        mount::bind_read_only(&exe, &binary)?;
        let link = run.join("bin/init");
        std::os::unix::fs::symlink("minilab", &link)
            .map_err(|source| SupervisorError::Make { path: link, source })?;
        Ok(Hosts {
            lab,
            run,
            plans: plan.hosts.clone(),
            forwards: plan.forwards.clone(),
            bars: plan.bars.clone(),
            cables: topology::cables(plan),
            running: BTreeMap::new(),
            routes: BTreeMap::new(),
        })
    }

    pub fn plans(&self) -> &[HostPlan] {
        &self.plans
    }

    /// Goes by another plan from now on. What runs goes on running; names say which hosts come and go.
    pub fn replan(&mut self, plan: &Plan) -> Replanned {
        let names = |plans: &[HostPlan]| plans.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
        let (before, after) = (names(&self.plans), names(&plan.hosts));
        let not_in = |of: &[String], there: &[String]| {
            of.iter().filter(|name| !there.contains(name)).cloned().collect::<Vec<_>>()
        };
        self.plans = plan.hosts.clone();
        self.forwards = plan.forwards.clone();
        self.bars = plan.bars.clone();
        // A host that goes still hangs on its cable until it is unplugged.
        let gone = not_in(&before, &after);
        let loose = |cable: &&Cable| gone.contains(&cable.near.host) || gone.contains(&cable.far.host);
        let kept: Vec<Cable> = self.cables.iter().filter(loose).cloned().collect();
        self.cables = topology::cables(plan);
        self.cables.extend(kept);
        Replanned { come: not_in(&after, &before), go: gone }
    }

    pub fn get(&self, name: &str) -> Option<&Running> {
        self.running.get(name)
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut Running> {
        self.running.get_mut(name)
    }

    /// The host whose init is `pid`.
    pub fn of_init(&self, pid: i32) -> Option<String> {
        self.running.iter().find(|(_, host)| host.pid == pid).map(|(name, _)| name.clone())
    }

    /// Starts a host's init in namespaces of its own and hands it its blueprint; the root is made while we
    /// go on. Only from a single thread: the init dies with it.
    pub fn start(&mut self, name: &str) -> Result<(), SupervisorError> {
        let failed = |source| SupervisorError::StartHost { host: name.to_owned(), source };
        let plan = self.plans.iter().find(|plan| plan.name == name);
        let plan = plan.ok_or_else(|| SupervisorError::NoHost { host: name.to_owned() })?;
        let (ours, theirs) = PacketSocket::pair().map_err(failed)?;
        let mut spawn = Spawn::new(self.run.join("bin/init").display().to_string(), vec!["init".into()]);
        spawn.env = super::passed_on();
        spawn.env.push((ORDERS.into(), "3".into()));
        spawn.fds = vec![(theirs.into(), 3)];
        spawn.dies_with_parent = true;
        spawn.namespaces = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC;
        let child = spawn.start().map_err(failed)?;
        let order = Order::Build(self.blueprint(plan));
        let bytes = serde_json::to_vec(&order).expect("an order has only string keys");
        ours.send(&bytes, &[]).map_err(failed)?;
        let network = Network::of(child.pid.as_raw() as u32).map_err(failed)?;
        let attachment = topology::prepare(plan, network)?;
        let running = Running { pid: child.pid.as_raw(), init: Rc::new(ours), attachment, built: false };
        self.running.insert(name.to_owned(), running);
        Ok(())
    }

    fn blueprint(&self, plan: &HostPlan) -> Blueprint {
        let names = self
            .plans
            .iter()
            .flat_map(|host| host.addresses.iter().map(move |address| (address.addr(), host.name.clone())));
        let store = (self.lab.state.join("store"), PathBuf::from("/var/lib/minilab/store"));
        Blueprint {
            host: plan.name.clone(),
            root: self.run.join("root"),
            kept: self.lab.host(&plan.name),
            binary: self.run.join("bin/minilab"),
            binds: if plan.kind == HostKind::Control { vec![store] } else { Vec::new() },
            names: names.collect(),
        }
    }

    /// Whether these bars let through whatever those there are do.
    pub fn opens(&self, bars: &[Bar]) -> bool {
        bars.iter().all(|bar| {
            let mut own = self.bars.iter().filter(|own| own.from == bar.from);
            own.any(|own| own.but.is_none() || own.but == bar.but)
        })
    }

    /// Wire lets these open no connections to the other site from now on.
    pub fn bar(&mut self, bars: &[Bar]) -> Result<(), SupervisorError> {
        if self.bars != bars {
            self.bars = bars.to_vec();
            if let Some(wire) = self.running.get("wire") {
                set_rules(&wire.attachment, &self.forwards, &self.bars)?;
            }
        }
        Ok(())
    }

    /// Plugs the cables of these hosts in, sets wire's doors and the pods' routes.
    pub fn connect(&mut self, fresh: &[&str]) -> Result<(), SupervisorError> {
        for cable in &self.cables {
            let (near, far) = (cable.near.host.as_str(), cable.far.host.as_str());
            if !fresh.contains(&near) && !fresh.contains(&far) {
                continue;
            }
            // Both are in the map or the cable hangs loose until the other host starts.
            let Some(mut end) = self.running.remove(near) else { continue };
            let plugged = match self.running.get_mut(far) {
                Some(other) => topology::plug(cable, &mut end.attachment, &mut other.attachment),
                None => Ok(()),
            };
            self.running.insert(near.to_owned(), end);
            plugged?;
        }
        for plan in self.plans.iter().filter(|plan| fresh.contains(&plan.name.as_str())) {
            let Some(host) = self.running.get_mut(&plan.name) else { continue };
            if plan.kind == HostKind::Wire {
                set_rules(&host.attachment, &self.forwards, &self.bars)?;
            }
            for (node, (cidr, via)) in self.routes.iter().filter(|_| routes_pods(plan.kind)) {
                if *node != plan.name {
                    host.attachment.netlink.replace_route(Route::via(*cidr, *via))?;
                }
            }
        }
        Ok(())
    }

    /// Brings the pods' routes to the wanted ones on wire and on every other node, as a cloud's route
    /// controller would.
    pub fn set_routes(
        &mut self,
        wanted: BTreeMap<String, (Ipv4Net, std::net::Ipv4Addr)>,
    ) -> Result<(), SupervisorError> {
        for plan in self.plans.iter().filter(|plan| routes_pods(plan.kind)) {
            let Some(host) = self.running.get_mut(&plan.name) else { continue };
            let netlink = &mut host.attachment.netlink;
            for (node, (cidr, via)) in &self.routes {
                let kept = wanted.values().any(|(other, _)| other == cidr);
                if *node != plan.name && !kept {
                    netlink.delete_route(Route::via(*cidr, *via))?;
                }
            }
            for (node, (cidr, via)) in &wanted {
                if *node != plan.name && self.routes.get(node) != Some(&(*cidr, *via)) {
                    netlink.replace_route(Route::via(*cidr, *via))?;
                }
            }
        }
        self.routes = wanted;
        Ok(())
    }

    /// Forgets a host that has ended; the kernel takes its cables away.
    pub fn gone(&mut self, name: &str) {
        self.running.remove(name);
        // The far ends go with the dead namespace, but only some 100 ms later: a quick restart must not
        // meet them.
        for cable in &self.cables {
            let (near, far) = (&cable.near, &cable.far);
            let survivor = if near.host == name { far } else { near };
            if (near.host == name || far.host == name)
                && let Some(host) = self.running.get_mut(&survivor.host)
                && let Err(error) = host.attachment.netlink.delete_link(&survivor.interface)
            {
                tracing::warn!(%error, host = survivor.host, "Cannot unplug");
            }
        }
    }

    /// Binds a listener inside a host.
    pub fn listen(&self, name: &str, at: SocketAddr) -> Result<OwnedFd, SupervisorError> {
        let failed = |source| SupervisorError::Listen { host: name.to_owned(), at, source };
        let host = self.running.get(name).ok_or_else(|| SupervisorError::NoHost { host: name.to_owned() })?;
        let listener = host.attachment.network.enter(|| TcpListener::bind(at)).map_err(failed)?;
        let listener = OwnedFd::from(listener.map_err(failed)?);
        process::listen_long(&listener).map_err(failed)?;
        Ok(listener)
    }

    /// What `status` says of them.
    pub fn status(&self) -> Vec<crate::lab::protocol::HostStatus> {
        let addresses =
            |plan: &HostPlan| -> Vec<IpAddr> { plan.addresses.iter().map(|net| net.addr()).collect() };
        self.plans
            .iter()
            .map(|plan| crate::lab::protocol::HostStatus {
                name: plan.name.clone(),
                pid: self.running.get(&plan.name).map(|host| host.pid),
                addresses: addresses(plan),
            })
            .collect()
    }
}

fn routes_pods(kind: HostKind) -> bool {
    matches!(kind, HostKind::Wire | HostKind::Node)
}

/// The load balancer's addresses lead to where they are served. A connection from the server's own host
/// would be answered past wire, so wire stands in for it.
fn set_rules(wire: &Attachment, forwards: &[Forward], bars: &[Bar]) -> Result<(), SupervisorError> {
    let mut batch = Batch::replace(Family::Ip, TABLE);
    batch.base_chain("prerouting", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT);
    batch.base_chain("output", ChainKind::Nat, Hook::Output, priority::DSTNAT);
    batch.base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT);
    for forward in forwards {
        let (SocketAddr::V4(at), SocketAddr::V4(to)) = (forward.at, forward.to) else { continue };
        let (door, server) = (Ipv4Net::from(*at.ip()), Ipv4Net::from(*to.ip()));
        let enters = || Rule::new().destination(door).destination_port(Protocol::Tcp, at.port());
        batch.rule("prerouting", &enters().dnat(*to.ip(), to.port()));
        batch.rule("output", &enters().dnat(*to.ip(), to.port()));
        let back = Rule::new().source(server).destination(server);
        batch.rule("postrouting", &back.destination_port(Protocol::Tcp, to.port()).snat(*at.ip()));
    }
    // Answers pass: a node may always speak first. What is dropped is counted, and `nft list ruleset` shows it.
    batch.base_chain("forward", ChainKind::Filter, Hook::Forward, priority::FILTER);
    for bar in bars {
        let site = Ipv4Net::new(bar.from, 24).unwrap_or_else(|_| Ipv4Net::from(bar.from)).trunc();
        let leaves = || Rule::new().source(bar.from.into()).destination_outside(site).new_connection();
        if let Some(port) = bar.but {
            let passes = leaves().destination_port(Protocol::Tcp, port);
            batch.rule("forward", &passes.verdict(&Verdict::Accept));
        }
        let opens = leaves();
        batch.rule("forward", &opens.counter().verdict(&Verdict::Drop));
    }
    wire.network
        .enter(|| batch.commit())
        .map_err(|source| SupervisorError::StartHost { host: "wire".into(), source })?
        .map_err(SupervisorError::Rules)
}

/// The login shell of a host.
pub fn shell() -> Vec<String> {
    vec!["-sh".into()]
}

/// The environment of every process in a host.
pub fn environment() -> Vec<(String, String)> {
    let mut env = vec![("PATH".to_owned(), hostroot::PATH.to_owned()), ("HOME".into(), "/root".into())];
    env.extend(super::passed_on().into_iter().filter(|(name, _)| name != "PATH"));
    env
}
