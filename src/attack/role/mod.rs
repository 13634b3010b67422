//! The attacker: a role that runs where an attacker stands (on wire, on a node, in a pod), for as long as an
//! attack runs.
//!
//! It stands for nobody of Kubernetes'. What it sees and does it says on standard output, a JSON object a line;
//! when its standard input ends, so does it, and with it the kernel removes its rules ([`redirect`]). It reads
//! no setting of the lab: what it finds out it finds out from packets and answers.

mod capture;
mod csr;
mod http;
mod hub;
mod keys;
mod kubelet;
mod page;
mod raw;
mod redirect;
mod request;
mod rogue;
mod silence;
mod sshd;
mod streams;

use std::process::ExitCode;

use clap::Parser;

pub use request::Answer;

#[derive(Debug, Parser)]
#[command(name = "attacker", disable_version_flag = true)]
enum Words {
    /// Ask one HTTP question and print the answer
    Http(http::Http),
    /// Print a certificate signing request
    Csr(csr::Csr),
    /// Serve one page
    Page(page::Page),
    /// Open a TLS connection and send standard input as it is
    Raw(raw::Raw),
    /// Be a kubelet for whoever dials one
    FakeKubelet(kubelet::FakeKubelet),
    /// Be a node's sshd for whoever dials one
    FakeSshd(sshd::FakeSshd),
    /// Be a konnectivity agent nobody deployed
    RogueAgent(rogue::RogueAgent),
    /// Let nothing through to an address and port
    Silence(silence::Silence),
    /// Say the TLS secrets of this host's roles
    Keys(keys::Keys),
    /// Say what crosses this host
    Capture(capture::Capture),
    /// Be an API server for whoever dials one
    FakeHub(hub::FakeHub),
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let words = std::iter::once("attacker".to_owned()).chain(argv);
    let words = match Words::try_parse_from(words) {
        Ok(words) => words,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match words {
            Words::Http(http) => http.run().await,
            Words::Csr(csr) => csr.run(),
            Words::Page(page) => page.run().await,
            Words::Raw(raw) => raw.run().await,
            Words::FakeKubelet(kubelet) => kubelet.run().await,
            Words::FakeSshd(sshd) => sshd.run().await,
            Words::RogueAgent(agent) => agent.run().await,
            Words::Silence(silence) => silence.run().await,
            Words::Keys(keys) => keys.run().await,
            Words::Capture(capture) => capture.run().await,
            Words::FakeHub(hub) => hub.run().await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says what happened, one JSON object a line.
fn say(event: &serde_json::Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Whoever asked for the attack may have gone; then there is nobody to tell.
    let _ = writeln!(out, "{event}").and_then(|()| out.flush());
}
