//! Silence: what is sent to an address and port through this host never arrives, and nobody is told.
//!
//! What a pulled cable, a full table or a firewall's new rule looks like from both ends. It ends with the
//! attacker, as every rule of its does.

use std::net::SocketAddrV4;

use clap::Args;
use ipnet::Ipv4Net;
use serde_json::json;

use super::kubelet::told_to_end;
use super::say;
use crate::sys::nft::{Batch, ChainKind, Family, Hook, Protocol, Rule, Verdict, priority};

#[derive(Debug, Args)]
pub struct Silence {
    /// Whom nothing reaches: ADDRESS:PORT
    victim: SocketAddrV4,
}

impl Silence {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut batch = Batch::owned(Family::Ip, &format!("attacker-{}", std::process::id()));
        batch.base_chain("forward", ChainKind::Filter, Hook::Forward, priority::FILTER);
        let towards = Rule::new()
            .destination(Ipv4Net::from(*self.victim.ip()))
            .destination_port(Protocol::Tcp, self.victim.port());
        batch.rule("forward", &towards.counter().verdict(&Verdict::Drop));
        let table = batch.commit_owned()?;
        say(&json!({"event": "ready"}));
        told_to_end().await;
        drop(table);
        Ok(())
    }
}
