//! Who a controller is when it writes.
//!
//! With `--use-service-account-credentials` (kubeadm's choice) each controller acts as a service
//! account of its own in kube-system, with a role of its own: the first write asks for a token, later
//! ones renew it at four fifths of its life. All share one connection that shows no certificate, since
//! the API server would believe a certificate first. Without the flag every controller is the role itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client};
use tokio::sync::Mutex;
use tracing::debug;

const NAMESPACE: &str = "kube-system";
const TOKEN_SECONDS: u32 = 3600;

/// The role's own client and what controllers' clients are made from.
pub struct Identities {
    own: Client,
    /// The same server, showing no certificate; `None` = every controller is the role itself.
    bare: Option<Client>,
}

impl Identities {
    pub fn new(own: Client, bare: Option<Client>) -> Self {
        Self { own, bare }
    }

    /// The role itself: reads for everyone.
    pub fn own(&self) -> Client {
        self.own.clone()
    }

    /// The client a controller writes with.
    pub fn client_for(&self, account: &'static str) -> Client {
        let Some(bare) = &self.bare else { return self.own() };
        let account =
            Arc::new(Account { name: account, own: self.own(), bare: bare.clone(), token: Mutex::default() });
        let service = tower::service_fn(move |request: Request<Body>| {
            let account = account.clone();
            async move { account.send(request).await }
        });
        Client::new(service, NAMESPACE)
    }
}

struct Account {
    name: &'static str,
    own: Client,
    bare: Client,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    renew: Instant,
}

impl Account {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let header = self.header().await?;
        request.headers_mut().insert(AUTHORIZATION, header.clone());
        let answer = self.bare.send(request).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            // The account was deleted and came back, or the signing key changed: the next try asks again.
            let mut token = self.token.lock().await;
            if token.as_ref().is_some_and(|token| token.header == header) {
                *token = None;
            }
        }
        Ok(answer)
    }

    async fn header(&self) -> Result<HeaderValue, kube::Error> {
        let mut token = self.token.lock().await;
        if let Some(known) = token.as_ref().filter(|known| known.renew > Instant::now()) {
            return Ok(known.header.clone());
        }
        let fresh = self.ask().await?;
        *token = Some(fresh.clone());
        Ok(fresh.header)
    }

    /// Asks for a token, and makes the account first where there is none.
    async fn ask(&self) -> Result<Token, kube::Error> {
        let answer = match self.request_token().await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.create().await?;
                self.request_token().await?
            }
            other => other?,
        };
        let text = answer.status.and_then(|status| status.token).unwrap_or_default();
        debug!(account = self.name, "service account token");
        let mut header = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|error| kube::Error::HttpError(error.into()))?;
        header.set_sensitive(true);
        Ok(Token { header, renew: Instant::now() + Duration::from_secs(u64::from(TOKEN_SECONDS)) * 4 / 5 })
    }

    async fn create(&self) -> Result<(), kube::Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.own.clone(), NAMESPACE);
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(self.name.into());
        match api.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            other => other.map(drop),
        }
    }

    async fn request_token(&self) -> Result<TokenRequest, kube::Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.own.clone(), NAMESPACE);
        let ask = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS.into()),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        api.create_subresource("token", self.name, &PostParams::default(), &ask).await
    }
}
