//! sshd on a node: OpenSSH's part as far as a tunnel and a look around need it.
//!
//! Public keys only; forwards what a client asks to be dialled, and runs a command for who may log in, which
//! is what a login key is. Left out: passwords, terminals, subsystems, forwarding the other way, and most of
//! `sshd_config`.

mod config;
mod login;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use config::Config;
use login::Login;

use crate::net;

/// How long somebody may take to log in (OpenSSH's `LoginGraceTime`).
const LOGIN_GRACE: Duration = Duration::from_secs(120);

/// OpenSSH's flags that matter here.
#[derive(Debug, Parser)]
#[command(name = "sshd", disable_version_flag = true)]
struct Flags {
    /// Stay in the foreground
    #[arg(short = 'D')]
    foreground: bool,
    /// Log to standard error
    #[arg(short = 'e')]
    stderr: bool,
    #[arg(short = 'f', default_value = "/etc/ssh/sshd_config")]
    config: PathBuf,
    /// Only check the configuration and the keys
    #[arg(short = 't')]
    test: bool,
    /// Instead of the configuration's
    #[arg(short = 'p')]
    port: Option<u16>,
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let flags = match Flags::try_parse_from(std::iter::once("sshd".to_owned()).chain(argv)) {
        Ok(flags) => flags,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    tracing::debug!(flags.foreground, flags.stderr, "both are always so here");
    let mut config = Config::read(&flags.config)?;
    config.port = flags.port.unwrap_or(config.port);
    let protocol = config.protocol()?;
    if flags.test {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = net::bind(SocketAddr::new(config.listen, config.port)).await?;
        tracing::info!("Server listening on {} port {}.", config.listen, config.port);
        crate::sys::inherit::ready();
        tokio::select! {
            () = serve(listener, Arc::new(config), Arc::new(protocol)) => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What serves a listener by a configuration's file.
#[cfg(test)]
pub(super) fn at(
    listener: tokio::net::TcpListener,
    config: &std::path::Path,
) -> Result<impl Future<Output = ()> + use<>, super::SshError> {
    let config = Config::read(config)?;
    let protocol = Arc::new(config.protocol()?);
    Ok(serve(listener, Arc::new(config), protocol))
}

/// Serves until dropped.
async fn serve(listener: tokio::net::TcpListener, config: Arc<Config>, protocol: Arc<russh::server::Config>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        net::tune(&stream);
        if sessions.len() >= config.max_sessions {
            tracing::warn!("drop connection from {peer}: too many are open");
            continue;
        }
        let (login, authenticated) = Login::new(Arc::clone(&config), peer);
        let protocol = Arc::clone(&protocol);
        sessions.spawn(async move {
            let Ok(session) = russh::server::run_stream(protocol, stream, login).await else { return };
            let handle = session.handle();
            let hurry = async {
                if tokio::time::timeout(LOGIN_GRACE, authenticated.cancelled()).await.is_err() {
                    let _ = handle
                        .disconnect(russh::Disconnect::ByApplication, "timeout".into(), "".into())
                        .await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                outcome = session => match outcome {
                    Ok(()) => tracing::info!("Connection closed by {peer}"),
                    Err(error) => tracing::info!("Connection closed by {peer}: {error}"),
                },
                () = hurry => {}
            }
        });
    }
}
