//! The floor that `just bench` holds `up` against: what this machine takes for the same namespaces, links,
//! certificates, execs and handshakes when nothing else is done.
//!
//! One process in fresh namespaces plugs the same cables, issues the same number of certificates, starts
//! eight processes of this binary in their networks, and waits until seven of them have shaken hands with
//! the eighth over mutual TLS and had an answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};

use super::idmap::IdMap;
use super::paths::Profile;
use super::plan::{HostKind, Plan, plan};
use super::spec::Spec;
use super::topology::{self, Attachment};
use crate::net::{Identity, Protocols, ServingCert, Verify, client_config};
use crate::pki::{Authority, LeafSpec};
use crate::sys::child::{Child, Spawn};
use crate::sys::namespace::Network;
use crate::sys::{inherit, mount};

/// The name the processes of the floor are started by.
pub const NAME: &str = "minilab-floor";
/// Handshakes: one for every API client of a lab with two nodes.
const CLIENTS: usize = 7;
const CERTIFICATES: usize = 13;

/// Builds the floor once and says how long it took.
pub fn measure() -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut spawn = process("inside", &[])?;
    spawn.namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let (child, gate) = spawn.start_gated()?;
    let map = IdMap::choose(nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    map.write(child.pid.as_raw())?;
    gate.open()?;
    finish(&child)?;
    Ok(begun.elapsed())
}

/// The processes' entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    match argv.first().map(String::as_str) {
        Some("inside") => inside()?,
        Some("server") => serve()?,
        Some("client") => call(argv.get(1).context("an address")?.parse()?)?,
        _ => bail!("this is a part of `just bench`"),
    }
    Ok(ExitCode::SUCCESS)
}

fn process(part: &str, more: &[String]) -> std::io::Result<Spawn> {
    let exe = std::env::current_exe()?.display().to_string();
    let argv = [&[NAME.to_owned(), part.to_owned()], more].concat();
    let mut spawn = Spawn::new(exe, argv);
    spawn.dies_with_parent = true;
    Ok(spawn)
}

fn finish(child: &Child) -> anyhow::Result<()> {
    match waitpid(child.pid, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => bail!("a process of the floor ended: {other:?}"),
    }
}

fn inside() -> anyhow::Result<()> {
    mount::make_private()?;
    mount::proc(std::path::Path::new("/proc"))?;
    let authority = Authority::new("kubernetes")?;
    let plan = plan(&Spec::new("floor", 2, Profile::Default, 6443));
    let control = plan.hosts.iter().find(|host| host.kind == HostKind::Control).context("a control host")?;
    let address = control.addresses.first().context("its address")?.addr();
    let server = LeafSpec::server("kube-apiserver", &["kubernetes"], &[address]);
    let mut leaves = vec![authority.issue(&server)?];
    for number in 1..CERTIFICATES {
        leaves.push(authority.issue(&LeafSpec::client(&format!("client-{number}"), &[]))?);
    }
    let attached = networks(&plan)?;
    let in_host = |name: &str| {
        let found = attached.iter().find(|(host, _)| host == name);
        found.map(|(_, attachment)| &attachment.network).context("a network")
    };
    let pass = |spawn: &mut Spawn, at: usize| {
        spawn.env.push(("FLOOR_CA".into(), authority.cert_pem().into()));
        spawn.env.push(("FLOOR_CERT".into(), leaves[at].cert_pem.clone()));
        spawn.env.push(("FLOOR_KEY".into(), leaves[at].key_pem.clone()));
    };
    let at = SocketAddr::new(address, 6443);
    let network = in_host(&control.name)?;
    let listener = network.enter(|| TcpListener::bind(at))??;
    let mut serving = process("server", &[])?;
    pass(&mut serving, 0);
    serving.env.push(("FLOOR_FD".into(), inherit::FIRST_LISTENER.to_string()));
    serving.fds.push((listener.into(), inherit::FIRST_LISTENER));
    let mut children = vec![network.enter(|| serving.start())??];
    let places = ["control", "control", "control", "node-1", "node-1", "node-2", "node-2"];
    for (number, place) in places.iter().enumerate().take(CLIENTS) {
        let mut client = process("client", &[at.to_string()])?;
        pass(&mut client, number + 1);
        children.push(in_host(place)?.enter(|| client.start())??);
    }
    children.iter().try_for_each(finish)
}

/// The same networks and cables as a lab's.
fn networks(plan: &Plan) -> anyhow::Result<Vec<(String, Attachment)>> {
    let mut attached = Vec::new();
    for host in &plan.hosts {
        attached.push((host.name.clone(), topology::prepare(host, Network::fresh()?)?));
    }
    for cable in topology::cables(plan) {
        let mut take = |name: &str| {
            let at = attached.iter().position(|(host, _)| host == name).context("a plugged host")?;
            anyhow::Ok(attached.swap_remove(at))
        };
        let (mut near, mut far) = (take(&cable.near.host)?, take(&cable.far.host)?);
        topology::plug(&cable, &mut near.1, &mut far.1)?;
        attached.extend([near, far]);
    }
    Ok(attached)
}

fn identity() -> anyhow::Result<(Identity, Verify)> {
    let variable = |name: &str| Ok::<_, std::env::VarError>(std::env::var(name)?.into_bytes());
    let identity = Identity { cert_pem: variable("FLOOR_CERT")?, key_pem: variable("FLOOR_KEY")? };
    Ok((identity, Verify::Bundle(variable("FLOOR_CA")?)))
}

fn serve() -> anyhow::Result<()> {
    let (identity, _) = identity()?;
    let config = ServingCert::new(&identity)?.server_config(Protocols::H1)?;
    let listener = TcpListener::from(inherit::descriptor("FLOOR_FD").context("a listener")?);
    for _ in 0..CLIENTS {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config))?;
        let mut tls = rustls::Stream::new(&mut tls, &mut stream);
        let mut asked = [0; 1];
        tls.read_exact(&mut asked)?;
        tls.write_all(&asked)?;
    }
    Ok(())
}

fn call(server: SocketAddr) -> anyhow::Result<()> {
    let (identity, verify) = identity()?;
    let config = client_config(&verify, Some(&identity), Protocols::H1)?;
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    let mut tls = rustls::ClientConnection::new(config, server.ip().into())?;
    let mut tls = rustls::Stream::new(&mut tls, &mut stream);
    tls.write_all(b"?")?;
    let mut answer = [0; 1];
    tls.read_exact(&mut answer)?;
    Ok(())
}
