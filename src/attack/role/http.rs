//! One HTTP question from where the attacker stands, as `curl -k` would ask it; or one command by WebSocket.
//! With `--cacert` it is the careful client that exercises compare with: so they need no curl.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use super::Answer;
use crate::net::{BoxStream, Dial, Direct, Identity, Protocols, TlsDialer, Verify, client_config, go_text};

/// Nothing asked here takes longer.
const ONE_TRY: Duration = Duration::from_secs(8);
/// Who is told to be patient asks again for so long.
const PATIENCE: Duration = Duration::from_secs(12);
const MOST: usize = 8 << 20;

#[derive(Debug, Args)]
pub struct Http {
    /// http:// or https://, whose certificate nobody checks unless --cacert says so
    url: String,
    /// Believe only a server whose certificate one of these authorities signed
    #[arg(long)]
    cacert: Option<PathBuf>,
    #[arg(long, default_value = "GET")]
    method: String,
    /// A file with a bearer token; the variable ATTACKER_TOKEN does as well
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// A PEM file with a client certificate and its key
    #[arg(long)]
    identity: Option<PathBuf>,
    #[arg(long)]
    content_type: Option<String>,
    #[arg(long)]
    data: Option<String>,
    /// Say whether this is in the answer
    #[arg(long)]
    find: Option<String>,
    /// Upgrade to a WebSocket of the remote-command protocol, type the data and print what comes
    #[arg(long)]
    websocket: bool,
    /// Ask again for some seconds while nobody answers
    #[arg(long)]
    patient: bool,
    /// Print the status and the body as they are instead of JSON
    #[arg(long)]
    plain: bool,
    /// Write the answer here too
    #[arg(long)]
    into: Option<PathBuf>,
}

impl Http {
    pub async fn run(self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let answer = loop {
            let answer = match tokio::time::timeout(ONE_TRY, self.ask()).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => Answer { error: error_text(&error), ..Answer::default() },
                Err(_) => Answer { error: "i/o timeout".into(), ..Answer::default() },
            };
            if !self.patient || answer.status.is_some() || Instant::now() >= until {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let text = serde_json::to_string(&answer)?;
        if let Some(path) = &self.into {
            std::fs::write(path, &text).with_context(|| format!("write {}", path.display()))?;
        }
        let shown = if self.plain { answer.plain() } else { text };
        // Whoever reads may have had enough: `| head -n 1`.
        let _ = writeln!(std::io::stdout().lock(), "{shown}");
        Ok(())
    }

    async fn ask(&self) -> anyhow::Result<Answer> {
        let uri: http::Uri = self.url.parse()?;
        let host = uri.host().context("an address without a host")?.to_owned();
        let plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let stream: BoxStream = match plain {
            true => Direct.dial(&host, port).await?,
            false => {
                let identity = self.identity()?;
                let config = client_config(&self.verify()?, identity.as_ref(), Protocols::H1)?;
                Box::new(TlsDialer { road: Arc::new(Direct), config }.connect(&host, port, None).await?)
            }
        };
        match self.websocket {
            true => self.by_websocket(stream).await,
            false => self.by_request(stream, &uri).await,
        }
    }

    async fn by_request(&self, stream: BoxStream, uri: &http::Uri) -> anyhow::Result<Answer> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driving = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = http::Request::builder().method(self.method.as_str()).uri(path);
        request = request.header("Host", uri.authority().map_or("", |authority| authority.as_str()));
        if let Some(token) = self.token()? {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(kind) = &self.content_type {
            request = request.header("Content-Type", kind);
        }
        let body = Full::new(Bytes::from(self.data.clone().unwrap_or_default()));
        let asked = async {
            let response = sender.send_request(request.body(body)?).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MOST).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            Ok(Answer::of(status, &body, self.find.as_deref()))
        };
        tokio::select! { answer = asked => answer, () = driving => anyhow::bail!("the connection ended") }
    }

    async fn by_websocket(&self, stream: BoxStream) -> anyhow::Result<Answer> {
        let mut request = self.url.replacen("http", "ws", 1).into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", "v4.channel.k8s.io".parse()?);
        if let Some(token) = self.token()? {
            request.headers_mut().insert("Authorization", format!("Bearer {token}").parse()?);
        }
        let mut socket = match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => socket,
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                return Ok(Answer::of(response.status().as_u16(), &body, self.find.as_deref()));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(typed) = &self.data {
            let message = [&[0], typed.as_bytes()].concat();
            socket.send(tungstenite::Message::Binary(message.into())).await?;
        }
        let mut said = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            // The first byte is the channel: 1 is the output, 2 the errors; of a forwarded port, 0 is what comes.
            if let tungstenite::Message::Binary(bytes) = message
                && let [0..=2, rest @ ..] = &bytes[..]
                && said.len() < MOST
            {
                said.extend_from_slice(rest);
            }
            let answer = Answer::of(101, &said, self.find.as_deref());
            // What came is what was waited for: a port may stay open for ever.
            if answer.found && self.url.contains("/portforward") {
                return Ok(answer);
            }
        }
        Ok(Answer::of(101, &said, self.find.as_deref()))
    }

    fn verify(&self) -> anyhow::Result<Verify> {
        let Some(path) = &self.cacert else { return Ok(Verify::Unverified) };
        Ok(Verify::Bundle(std::fs::read(path).with_context(|| format!("read {}", path.display()))?))
    }

    fn token(&self) -> anyhow::Result<Option<String>> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
        };
        match &self.token_file {
            Some(path) => Ok(Some(read(path)?.trim().to_owned())),
            None => Ok(std::env::var("ATTACKER_TOKEN").ok().filter(|token| !token.is_empty())),
        }
    }

    fn identity(&self) -> anyhow::Result<Option<Identity>> {
        let Some(path) = &self.identity else { return Ok(None) };
        let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(Identity { cert_pem: pem.clone(), key_pem: pem }))
    }
}

/// The innermost reason in Go's words.
fn error_text(error: &anyhow::Error) -> String {
    go_text(error.as_ref())
}
