//! A certificate signing request in somebody's name: `openssl req`, so that no exercise depends on what the
//! machine has. The key is thrown away; whoever is to use the certificate keeps it with `--key`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::pki;

#[derive(Debug, Args)]
pub struct Csr {
    /// The common name it asks for
    #[arg(long)]
    name: String,
    #[arg(long)]
    organization: Vec<String>,
    #[arg(long)]
    dns: Vec<String>,
    #[arg(long)]
    ip: Vec<IpAddr>,
    /// Write the private key here
    #[arg(long)]
    key: Option<PathBuf>,
}

impl Csr {
    pub fn run(&self) -> anyhow::Result<()> {
        let organizations: Vec<&str> = self.organization.iter().map(String::as_str).collect();
        let names: Vec<&str> = self.dns.iter().map(String::as_str).collect();
        let (request, key) = pki::request(&self.name, &organizations, &names, &self.ip)?;
        if let Some(path) = &self.key {
            std::fs::write(path, key).with_context(|| format!("write {}", path.display()))?;
        }
        print!("{request}");
        Ok(())
    }
}
