//! Agents by service-account token: a TokenReview, then the namespace and the account must be the ones named
//! (`authenticateAgentViaToken`).
//!
//! Upstream does not look at the audiences the review returns; this does. Left out: a cache, as upstream.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tonic::metadata::MetadataMap;

/// Whose tokens are good.
pub struct Tokens {
    pub client: Client,
    pub namespace: String,
    pub account: String,
    pub audience: String,
}

impl Tokens {
    /// Whether the call's token is the agents'; the refusal is upstream's text.
    pub async fn check(&self, metadata: &MetadataMap) -> Result<(), String> {
        let token = bearer(metadata)?;
        let outcome = self.review(token).await;
        outcome.map_err(|error| format!("Failed to validate authentication token, err:{error}"))
    }

    async fn review(&self, token: String) -> Result<(), String> {
        let review = TokenReview {
            spec: TokenReviewSpec { token, audiences: Some(vec![self.audience.clone()]) },
            ..TokenReview::default()
        };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| {
            format!("Failed to authenticate request. err:{}", crate::net::go_text(&error))
        })?;
        self.judge(&answer)
    }

    fn judge(&self, review: &TokenReview) -> Result<(), String> {
        let status = review.status.clone().unwrap_or_default();
        if let Some(error) = status.error.filter(|error| !error.is_empty()) {
            return Err(format!("lookup failed: {error}"));
        }
        if status.authenticated != Some(true) {
            return Err("lookup failed: service account jwt not valid".into());
        }
        if !status.audiences.unwrap_or_default().contains(&self.audience) {
            return Err("lookup failed: service account jwt not valid".into());
        }
        let name = status.user.and_then(|user| user.username).unwrap_or_default();
        let parts: Vec<&str> = name.split(':').collect();
        let [first, second, namespace, account] = parts.as_slice() else {
            return Err("lookup failed: unexpected username format".into());
        };
        if (*first, *second) != ("system", "serviceaccount") {
            return Err("lookup failed: username returned is not a service account".into());
        }
        if *namespace != self.namespace {
            return Err(format!(
                "lookup failed: incoming request from {namespace:?} namespace. Expected {:?}",
                self.namespace
            ));
        }
        if *account != self.account {
            return Err(format!(
                "lookup failed: incoming request from {account:?} service account. Expected {:?}",
                self.account
            ));
        }
        Ok(())
    }
}

fn bearer(metadata: &MetadataMap) -> Result<String, String> {
    let values: Vec<_> = metadata.get_all("authorization").iter().collect();
    let [value] = values.as_slice() else {
        return Err(match values.len() {
            0 => "Authentication context was not found in metadata".into(),
            many => format!("too many ({many}) tokens are received"),
        });
    };
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    token.map(str::to_owned).ok_or_else(|| "received token does not have \"Bearer \" prefix".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

    async fn judged(status: TokenReviewStatus) -> Result<(), String> {
        // Nothing is asked of it here.
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        let tokens = Tokens {
            client: Client::new(service, "default"),
            namespace: "kube-system".into(),
            account: "konnectivity-agent".into(),
            audience: "system:konnectivity-server".into(),
        };
        tokens.judge(&TokenReview { status: Some(status), ..TokenReview::default() })
    }

    fn of(name: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["system:konnectivity-server".into()]),
            user: Some(UserInfo { username: Some(name.into()), ..UserInfo::default() }),
            ..TokenReviewStatus::default()
        }
    }

    #[tokio::test]
    async fn only_the_agents_own_account_with_the_servers_audience_is_an_agent() {
        assert_eq!(judged(of("system:serviceaccount:kube-system:konnectivity-agent")).await, Ok(()));
        for (name, text) in [
            ("system:node:node-1", "lookup failed: unexpected username format"),
            (
                "a:b:kube-system:konnectivity-agent",
                "lookup failed: username returned is not a service account",
            ),
            (
                "system:serviceaccount:default:konnectivity-agent",
                "lookup failed: incoming request from \"default\" namespace. Expected \"kube-system\"",
            ),
            (
                "system:serviceaccount:kube-system:default",
                "lookup failed: incoming request from \"default\" service account. Expected \"konnectivity-agent\"",
            ),
        ] {
            assert_eq!(judged(of(name)).await, Err(text.to_owned()));
        }
        let good = of("system:serviceaccount:kube-system:konnectivity-agent");
        let other = TokenReviewStatus { audiences: Some(vec!["api".into()]), ..good.clone() };
        assert!(judged(other).await.is_err());
        assert!(judged(TokenReviewStatus { authenticated: Some(false), ..good }).await.is_err());
    }

    #[test]
    fn one_bearer_token_is_asked_for() {
        let mut metadata = MetadataMap::new();
        assert_eq!(bearer(&metadata).unwrap_err(), "Authentication context was not found in metadata");
        metadata.insert("authorization", "Basic x".parse().unwrap());
        assert_eq!(bearer(&metadata).unwrap_err(), "received token does not have \"Bearer \" prefix");
        metadata.insert("authorization", "Bearer x".parse().unwrap());
        assert_eq!(bearer(&metadata).unwrap(), "x");
        metadata.append("authorization", "Bearer y".parse().unwrap());
        assert_eq!(bearer(&metadata).unwrap_err(), "too many (2) tokens are received");
    }
}
