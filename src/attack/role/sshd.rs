//! A fake sshd on the wire: a host key of its own, everybody may log in, and whatever is to be dialled through
//! it it answers as a fake kubelet.
//!
//! To a client that knows its hosts' keys it gets no further than the key exchange. What it cannot do is use
//! the login key against another: a signature is for one session.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use ring::rand::SecureRandom;
use russh::keys::PrivateKey;
use russh::server::{
    self, Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelOpenFailure, MethodKind};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::kubelet::{self, told_to_end};
use super::redirect::{redirect, standing};
use super::say;
use crate::net::{Identity, Protocols, ServingCert};
use crate::pki::{self, SshKey};

#[derive(Debug, Args)]
pub struct FakeSshd {
    /// Whose place it takes: ADDRESS:PORT
    victim: SocketAddrV4,
    /// What every log says
    #[arg(long)]
    log: String,
}

/// What a kubelet's place is taken with.
#[derive(Clone)]
struct Forger {
    acceptor: TlsAcceptor,
    log: Arc<str>,
    logged_in: Arc<AtomicBool>,
}

impl FakeSshd {
    pub async fn run(self) -> anyhow::Result<()> {
        let listener = crate::net::bind("0.0.0.0:0".parse()?).await?;
        let here = SocketAddrV4::new(standing(), listener.local_addr()?.port());
        let issued = pki::self_signed_serving("node")?;
        let identity = Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() };
        let acceptor = TlsAcceptor::from(ServingCert::new(&identity)?.server_config(Protocols::H1)?);
        let forger = Forger { acceptor, log: format!("{}\n", self.log).into(), logged_in: Arc::default() };
        let protocol = Arc::new(server::Config {
            keys: vec![own_key()?],
            methods: [MethodKind::PublicKey].as_slice().into(),
            auth_rejection_time_initial: Some(std::time::Duration::ZERO),
            ..Default::default()
        });
        let redirected = redirect(self.victim, here)?;
        say(&json!({"event": "ready", "at": here}));
        tokio::select! {
            outcome = accept(listener, protocol, forger) => outcome?,
            () = told_to_end() => {}
        }
        drop(redirected);
        Ok(())
    }
}

/// A host key nobody has seen before.
fn own_key() -> anyhow::Result<PrivateKey> {
    let mut secret = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut secret).map_err(|_| pki::PkiError::Random)?;
    Ok(PrivateKey::from_openssh(&SshKey::derived(&secret, "fake")?.private)?)
}

async fn accept(listener: TcpListener, protocol: Arc<server::Config>, forger: Forger) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        say(&json!({"event": "dialled", "from": peer}));
        let (protocol, forger) = (Arc::clone(&protocol), forger.clone());
        tokio::spawn(async move {
            let logged_in = Arc::new(AtomicBool::new(false));
            let forger = Forger { logged_in: Arc::clone(&logged_in), ..forger };
            let ended = match server::run_stream(protocol, stream, forger).await {
                Ok(session) => session.await,
                Err(error) => Err(error),
            };
            if !logged_in.load(Ordering::Relaxed) {
                let why =
                    ended.err().map_or_else(|| "it said good-bye".to_owned(), |error| error.to_string());
                say(&json!({"event": "left", "why": format!("before it logged in: {why}")}));
            }
        });
    }
}

impl Handler for Forger {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _: &str, _: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        self.logged_in.store(true, Ordering::Relaxed);
        let print = key.public_key.fingerprint(russh::keys::HashAlg::Sha256).to_string();
        say(&json!({"event": "login", "user": user, "key": print}));
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
        say(&json!({"event": "asked to dial", "to": format!("{host}:{port}")}));
        // The health check's kubelet is on the loopback; both get the same one.
        if port == 10250 {
            let own = self.clone();
            tokio::spawn(async move {
                reply.accept().await;
                kubelet::serve(channel.into_stream(), own.acceptor, own.log).await;
            });
        } else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
        Ok(())
    }
}
