//! phone-home: the lab's own pod that calls the API server as any workload does, at the service's address and
//! with its account's token.
//!
//! It stands for the users' pods of `pod-to-apiserver`: nothing can make a client look at the certificate it is
//! shown, and the one that does is given the CA beside its token. It keeps one connection, asks for the
//! server's version over it, and logs a line whenever the answer is another one. It does nothing with what it
//! is answered.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing::{info, warn};

use super::Backoff;
use crate::net::go_text;

/// How long an answer may take.
const ONE_TRY: Duration = Duration::from_secs(5);

/// The two of kubectl's flags that the difference is about.
#[derive(Debug, Parser)]
#[command(name = "phone-home", disable_version_flag = true)]
struct Flags {
    /// A PEM file with the authority that signed the API server's certificate
    #[arg(long, required_unless_present = "insecure_skip_tls_verify")]
    certificate_authority: Option<PathBuf>,
    /// Take whoever answers for the API server
    #[arg(long, conflicts_with = "certificate_authority")]
    insecure_skip_tls_verify: bool,
    /// How often it calls
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let words = std::iter::once("phone-home".to_owned()).chain(argv);
    let flags = match Flags::try_parse_from(words) {
        Ok(flags) => flags,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(flags.call())
}

impl Flags {
    async fn call(self) -> anyhow::Result<ExitCode> {
        let client = super::in_cluster_trusting(self.certificate_authority.as_deref())?;
        let mut told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let calling = async {
            let (mut last, mut backoff) = (String::new(), Backoff::new());
            loop {
                let answer = ask(&client).await;
                let said = match &answer {
                    Ok(version) => format!("home is Kubernetes {version}"),
                    Err(error) => error.clone(),
                };
                if said != last {
                    match &answer {
                        Ok(version) => info!(version, "Called home"),
                        Err(error) => warn!(error, "Nobody home"),
                    }
                    last = said;
                }
                match answer {
                    Ok(_) => {
                        backoff.reset();
                        tokio::time::sleep(Duration::from_secs(self.seconds.max(1))).await;
                    }
                    Err(_) => backoff.wait().await,
                }
            }
        };
        tokio::select! { () = calling => {}, _ = told.recv() => {} }
        Ok(ExitCode::SUCCESS)
    }
}

/// One call: the version of who answered, or why nobody did, in Go's words.
async fn ask(client: &kube::Client) -> Result<String, String> {
    let request = http::Request::get("/version").body(Vec::new()).map_err(|error| error.to_string())?;
    let asked = tokio::time::timeout(ONE_TRY, client.request::<serde_json::Value>(request)).await;
    let version = asked.map_err(|_| "i/o timeout".to_owned())?.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        error => go_text(&error),
    })?;
    // No more of it than a line of a log should have.
    Ok(version["gitVersion"].as_str().unwrap_or_default().chars().take(40).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_it_believes_has_to_be_said() {
        let read = |words: &[&str]| Flags::try_parse_from([&["phone-home"], words].concat());
        assert!(read(&[]).is_err());
        assert!(read(&["--insecure-skip-tls-verify"]).unwrap().certificate_authority.is_none());
        assert!(read(&["--certificate-authority=/ca.crt"]).unwrap().certificate_authority.is_some());
        assert!(read(&["--certificate-authority=/ca.crt", "--insecure-skip-tls-verify"]).is_err());
    }
}
