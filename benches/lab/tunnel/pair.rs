//! A server and an agent, as processes of the binary under upstream's names.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::roads::Road;
use crate::lab::{Lab, binary};

pub struct Pair {
    dir: tempfile::TempDir,
    server: Child,
    agent: Child,
    line: Vec<String>,
    agent_line: Vec<String>,
}

fn port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn role(name: &str, line: &[String]) -> anyhow::Result<Child> {
    let mut command = Command::new(binary());
    command.arg0(name).args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

impl Pair {
    /// Starts both with the lab's certificates; the agents' door is on loopback.
    pub async fn start(lab: &Lab, mode: &str) -> anyhow::Result<Self> {
        let (dir, pki) = (tempfile::tempdir()?, lab.pki());
        let (socket, agents) = (dir.path().join("s").display().to_string(), port()?);
        let pki = pki.display();
        let line = [
            format!("--mode={mode}"),
            format!("--uds-name={socket}"),
            "--server-port=0".into(),
            format!("--cluster-cert={pki}/apiserver.crt"),
            format!("--cluster-key={pki}/apiserver.key"),
            format!("--agent-port={agents}"),
            "--agent-bind-address=127.0.0.1".into(),
            format!("--health-port={}", port()?),
            "--health-bind-address=127.0.0.1".into(),
            format!("--admin-port={}", port()?),
        ]
        .to_vec();
        let server = role("proxy-server", &line)?;
        let agent_line = [
            format!("--ca-cert={pki}/ca.crt"),
            "--proxy-server-host=127.0.0.1".into(),
            format!("--proxy-server-port={agents}"),
            format!("--health-server-port={}", port()?),
            "--health-server-host=127.0.0.1".into(),
            format!("--admin-server-port={}", port()?),
            "--sync-interval=10ms".into(),
            "--sync-interval-cap=100ms".into(),
        ]
        .to_vec();
        let agent = role("proxy-agent", &agent_line)?;
        Ok(Self { dir, server, agent, line, agent_line })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub fn memory(&self) -> String {
        let of = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kb = line.and_then(|text| text.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
            kb.unwrap_or_default() / 1024.0
        };
        format!("{:.1} + {:.1} MB", of(&self.server), of(&self.agent))
    }

    /// Kills the agent, starts another beside the running server, and measures from there to the next good dial.
    pub async fn restart_agent(&mut self, road: &Road) -> anyhow::Result<Duration> {
        self.agent.kill()?;
        self.agent.wait()?;
        while road.dial().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begun = Instant::now();
        self.agent = role("proxy-agent", &self.agent_line)?;
        road.first().await.context("a dial after the agent's start")?;
        Ok(begun.elapsed())
    }

    /// Kills the server, starts it again, and measures from there to the next good dial.
    pub async fn restart_server(&mut self, road: &Road) -> anyhow::Result<Duration> {
        self.server.kill()?;
        self.server.wait()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        self.server = role("proxy-server", &self.line)?;
        road.first().await.context("a dial after the server's restart")?;
        Ok(begun.elapsed())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.agent] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
