//! One client of sshd: who it is, what it wants dialled, which command it wants run.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::net::{Dial, Direct};
use crate::tunnel::ssh::channel::carry;

/// How long a destination that takes nothing may hold back everybody else on the connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Channels a connection may have.
const CHANNELS: usize = 1024;

/// A connection's state.
pub struct Login {
    config: Arc<Config>,
    peer: SocketAddr,
    authenticated: CancellationToken,
    room: Arc<Semaphore>,
    /// Sessions in which nothing runs yet.
    idle: HashMap<ChannelId, Channel<Msg>>,
}

impl Login {
    /// The second is cancelled once somebody has logged in.
    pub fn new(config: Arc<Config>, peer: SocketAddr) -> (Self, CancellationToken) {
        let authenticated = CancellationToken::new();
        let room = Arc::new(Semaphore::new(CHANNELS));
        (
            Self { config, peer, authenticated: authenticated.clone(), room, idle: HashMap::new() },
            authenticated,
        )
    }
}

impl Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(match self.config.authorizes(user, offer.public_key) {
            true => Auth::Accept,
            false => Auth::reject(),
        })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        if !self.config.authorizes(user, key.public_key) {
            return Ok(Auth::reject());
        }
        let print = key.public_key.fingerprint(russh::keys::HashAlg::Sha256);
        tracing::info!("Accepted publickey for {user} from {}: {} {print}", self.peer, key.algorithm);
        self.authenticated.cancel();
        Ok(Auth::Accept)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let (true, Ok(port)) = (self.config.forwards, u16::try_from(port)) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let host = host.to_owned();
        tokio::spawn(async move {
            forward(channel, &host, port, reply).await;
            drop(place);
        });
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.idle.len() >= CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        } else {
            self.idle.insert(channel.id(), channel);
            reply.accept().await;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        words: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let place = Arc::clone(&self.room).try_acquire_owned();
        match (self.idle.remove(&id), String::from_utf8(words.to_vec()), place) {
            (Some(channel), Ok(script), Ok(place)) => {
                session.channel_success(id)?;
                let handle = session.handle();
                tokio::spawn(async move {
                    execute(channel, &script, handle).await;
                    drop(place);
                });
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.idle.remove(&id);
        Ok(())
    }
}

/// Dials and carries bytes both ways until both have ended.
async fn forward(channel: Channel<Msg>, host: &str, port: u16, reply: ChannelOpenHandle) {
    match Direct.dial(host, port).await {
        Err(error) => {
            tracing::info!("connect_to {host} port {port}: failed: {error}");
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
        Ok(destination) => {
            reply.accept().await;
            let (from_client, to_client) = tokio::io::split(channel.into_stream());
            let (from_there, to_there) = tokio::io::split(destination);
            let outward = carry(from_client, to_there, PATIENCE);
            // The client's window says how much it takes; a slow one is waited for.
            let inward = carry(from_there, to_client, Duration::MAX);
            let _ = tokio::try_join!(outward, inward);
        }
    }
}

/// Runs a command as OpenSSH does: by the shell, in no terminal.
async fn execute(mut channel: Channel<Msg>, script: &str, handle: Handle) {
    let started = Command::new("/bin/sh")
        .args(["-c", script])
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .env("HOME", "/root")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let id = channel.id();
    let code = match started {
        Err(error) => {
            tracing::info!("cannot start a shell: {error}");
            255
        }
        Ok(mut child) => {
            let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let (out, err) = (channel.make_writer(), channel.make_writer_ext(Some(1)));
            let output = async {
                let copy = async |from: Option<_>, to| match from {
                    Some(from) => carry(from, to, Duration::MAX).await,
                    None => Ok(()),
                };
                let errors = async {
                    match stderr {
                        Some(from) => carry(from, err, Duration::MAX).await,
                        None => Ok(()),
                    }
                };
                let _ = tokio::join!(copy(stdout, out), errors);
                child.wait().await
            };
            let input = async {
                while let Some(message) = channel.wait().await {
                    match message {
                        ChannelMsg::Data { data } => {
                            let Some(pipe) = &mut stdin else { continue };
                            if pipe.write_all(&data).await.is_err() {
                                stdin = None;
                            }
                        }
                        ChannelMsg::Eof => stdin = None,
                        ChannelMsg::Close => return,
                        _ => {}
                    }
                }
            };
            tokio::select! {
                ended = output => ended.ok().and_then(|status| status.code()).unwrap_or(255),
                // Who has hung up wants nothing any more: the command is killed.
                () = input => return,
            }
        }
    };
    let _ = handle.exit_status_request(id, code.unsigned_abs()).await;
    let _ = handle.eof(id).await;
    let _ = handle.close(id).await;
}
