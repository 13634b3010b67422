//! HTTP calls of the API server to servers that are no part of the cluster: webhooks and token issuers.
//!
//! client-go's `rest.RESTClient` as upstream's webhooks use it: a kubeconfig says where and with what, 5xx
//! and lost connections are tried again with growing delays. One connection a call: answers are cached
//! by the caller, so calls are few.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header, uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::client::{Access, ClientError};
use crate::net::{self, BoxStream, Dial, DialError, Identity, NetError, Protocols, TlsDialer, Verify};

/// An answer longer than this is refused.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// `webhook.DefaultRetryBackoff`: the first delay, its growth, and how many attempts.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const GROWTH: f64 = 1.5;
const ATTEMPTS: u32 = 5;

/// Why a remote server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0:?} is not an address of a server")]
    Address(String),
    #[error("set up TLS to {url}")]
    Tls { url: String, source: NetError },
    #[error(transparent)]
    Kubeconfig(#[from] ClientError),
    #[error("{method} {url:?}: {source}")]
    Dial { method: &'static str, url: String, source: DialError },
    #[error("{method} {url:?}: {reason}")]
    Transfer { method: &'static str, url: String, reason: String },
    #[error("{method} {url:?}: context deadline exceeded")]
    Timeout { method: &'static str, url: String },
    #[error("the server answered {code}: {body}")]
    Answer { code: u16, body: String },
    #[error("the server's answer is not JSON")]
    Json(#[source] serde_json::Error),
}

/// One server and how to talk to it.
pub struct Remote {
    url: String,
    target: Uri,
    road: Arc<dyn Dial>,
    tls: Option<TlsDialer>,
    server_name: Option<String>,
    bearer: Option<HeaderValue>,
    timeout: Duration,
    first_delay: Duration,
    longest_answer: usize,
}

impl Remote {
    /// The server of a kubeconfig's current context.
    pub fn from_kubeconfig(
        path: &std::path::Path,
        timeout: Duration,
        road: Arc<dyn Dial>,
    ) -> Result<Self, RemoteError> {
        let access = Access::read(path)?;
        let mut remote = Self::new(&access.server, &access.verify, access.identity.as_ref(), timeout, road)?;
        remote.server_name = access.tls_server_name;
        remote.bearer = access.token.and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(remote)
    }

    /// A server by its URL. `http:` is plain text, as upstream lets a webhook be.
    pub fn new(
        url: &str,
        verify: &Verify,
        identity: Option<&Identity>,
        timeout: Duration,
        road: Arc<dyn Dial>,
    ) -> Result<Self, RemoteError> {
        let target: Uri = url.parse().map_err(|_| RemoteError::Address(url.to_owned()))?;
        if target.host().is_none() {
            return Err(RemoteError::Address(url.to_owned()));
        }
        let tls = match target.scheme() {
            Some(scheme) if *scheme == uri::Scheme::HTTP => None,
            Some(scheme) if *scheme == uri::Scheme::HTTPS => {
                let config = net::client_config(verify, identity, Protocols::H1)
                    .map_err(|source| RemoteError::Tls { url: url.to_owned(), source })?;
                Some(TlsDialer { road: Arc::clone(&road), config })
            }
            _ => return Err(RemoteError::Address(url.to_owned())),
        };
        Ok(Self {
            url: url.to_owned(),
            target,
            road,
            tls,
            server_name: None,
            bearer: None,
            timeout,
            first_delay: FIRST_DELAY,
            longest_answer: LONGEST_ANSWER,
        })
    }

    /// Waits so long before a second attempt.
    pub fn with_first_delay(self, first_delay: Duration) -> Self {
        Self { first_delay, ..self }
    }

    /// Takes answers of up to so many bytes.
    pub fn with_longest_answer(self, longest_answer: usize) -> Self {
        Self { longest_answer, ..self }
    }

    /// GETs this URL's JSON.
    pub async fn get(&self) -> Result<Value, RemoteError> {
        let answer = self.within_time("Get", Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(RemoteError::Json)
    }

    /// GETs whatever is there.
    pub async fn fetch(&self) -> Result<Bytes, RemoteError> {
        self.within_time("Get", Bytes::new()).await
    }

    /// POSTs a review and reads the answered one; tries again what may pass.
    pub async fn post(&self, body: &Value) -> Result<Value, RemoteError> {
        let answer = self.deliver(Bytes::from(body.to_string()), RemoteError::may_pass).await?;
        serde_json::from_slice(&answer).map_err(RemoteError::Json)
    }

    /// POSTs bytes, as often as `again` says of an error; what is answered may be anything.
    pub async fn deliver(
        &self,
        body: Bytes,
        again: impl Fn(&RemoteError) -> bool,
    ) -> Result<Bytes, RemoteError> {
        let mut delay = self.first_delay;
        for _ in 1..ATTEMPTS {
            match self.within_time("Post", body.clone()).await {
                Err(error) if again(&error) => tokio::time::sleep(delay).await,
                other => return other,
            }
            delay = delay.mul_f64(GROWTH);
        }
        self.within_time("Post", body).await
    }

    /// POSTs once: who waits for the answer will not wait long.
    pub async fn post_once(&self, body: &Value) -> Result<Value, RemoteError> {
        let answer = self.within_time("Post", Bytes::from(body.to_string())).await?;
        serde_json::from_slice(&answer).map_err(RemoteError::Json)
    }

    async fn within_time(&self, method: &'static str, body: Bytes) -> Result<Bytes, RemoteError> {
        match tokio::time::timeout(self.timeout, self.once(method, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RemoteError::Timeout { method, url: self.url.clone() }),
        }
    }

    async fn once(&self, method: &'static str, body: Bytes) -> Result<Bytes, RemoteError> {
        let broken = |error: &dyn std::fmt::Display| RemoteError::Transfer {
            method,
            url: self.url.clone(),
            reason: error.to_string(),
        };
        let stream = self.connect().await.map_err(|source| RemoteError::Dial {
            method,
            url: self.url.clone(),
            source,
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let driver = tokio::spawn(connection);
        let request = self.request(method, body).map_err(|error| broken(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), self.longest_answer).collect().await;
        driver.abort();
        let body = body.map_err(|error| broken(&error))?.to_bytes();
        match code.is_success() {
            true => Ok(body),
            false => Err(RemoteError::Answer {
                code: code.as_u16(),
                body: String::from_utf8_lossy(&body).chars().take(256).collect(),
            }),
        }
    }

    fn request(&self, method: &str, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = self.target.path_and_query().map_or("/", |path| path.as_str());
        let host = self.target.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder()
            .method(if method == "Post" { "POST" } else { "GET" })
            .uri(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, "kube-apiserver/v1.36.2")
            .header(header::ACCEPT, "application/json, */*");
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if method == "Post" {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body))
    }

    async fn connect(&self) -> Result<BoxStream, DialError> {
        let host = self.target.host().unwrap_or_default().trim_matches(['[', ']']);
        match &self.tls {
            Some(dialer) => {
                let port = self.target.port_u16().unwrap_or(443);
                Ok(Box::new(dialer.connect(host, port, self.server_name.as_deref()).await?))
            }
            None => self.road.dial(host, self.target.port_u16().unwrap_or(80)).await,
        }
    }
}

impl RemoteError {
    /// What client-go tries again: connections that break, 429 and 5xx.
    fn may_pass(&self) -> bool {
        match self {
            Self::Answer { code, .. } => *code == 429 || *code >= 500,
            Self::Transfer { .. } => true,
            _ => false,
        }
    }
}
