//! Renewal of the client certificate at 70 to 90 % of its life.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tracing::{error, info};

use super::super::KubeletError;
use super::super::config::Config;
use super::condition::Condition;
use super::request::{Ask, CLIENT, certificate};
use super::store::Store;
use crate::pki::{self, Facts};

/// After a refusal, this long until the next attempt.
const AGAIN: Duration = Duration::from_secs(60);

/// No sooner than this after one renewal comes the next.
const SOONEST: Duration = Duration::from_secs(5);

/// How often the certificate's end is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Renews for ever. The client in use notices the new file by itself.
pub async fn rotate_client(config: Arc<Config>, client: Client, condition: Condition) {
    let store = Store::new(&config.cert_dir, "kubelet-client");
    while let Some(facts) = store.facts() {
        let deadline = deadline(&facts);
        info!(expiration = facts.not_after, deadline, "Certificate rotation deadline determined");
        sleep_until(deadline).await;
        match renew(&config, &client, &store).await {
            // However short it lives, a certificate is used for a moment before the next is asked for.
            Ok(()) => tokio::time::sleep(SOONEST).await,
            Err(failure) => {
                condition.client_failed();
                error!(error = %failure, "Certificate request was not signed");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Returns when the client certificate is over although the API server answers: only a fresh start, which
/// bootstraps again, can help then (`pkg/kubelet/certificate/transport.go`).
pub async fn expired(config: Arc<Config>, client: Client) -> KubeletError {
    let store = Store::new(&config.cert_dir, "kubelet-client");
    loop {
        tokio::time::sleep(LOOK).await;
        let over = store.facts().is_some_and(|facts| unix(facts.not_after) < Timestamp::now().as_second());
        if over && answers(&client).await {
            return KubeletError::Expired;
        }
    }
}

/// Whether anybody is there, whatever they say.
async fn answers(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/healthz").body(Vec::new()) else { return false };
    matches!(client.request_text(request).await, Ok(_) | Err(kube::Error::Api(_)))
}

fn unix(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

async fn renew(config: &Config, client: &Client, store: &Store) -> Result<(), KubeletError> {
    info!("Rotating certificates");
    let cn = format!("system:node:{}", config.node_name);
    let (request_pem, key_pem) = pki::request(&cn, &["system:nodes"], &[], &[])?;
    let (signer, usages) = CLIENT;
    let ask = Ask { signer, usages, request_pem: &request_pem, name: String::new() };
    let cert_pem = certificate(client, &ask).await?;
    store.update(&cert_pem, &key_pem).map(|_| ())
}

/// Seconds since 1970 at which to renew: somewhere between 70 and 90 % of the certificate's life.
pub fn deadline(facts: &Facts) -> i64 {
    let life = facts.not_after.saturating_sub(facts.not_before);
    // The serial is random, which is jitter enough and the same after a restart.
    let jitter =
        facts.serial.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))) % 21;
    i64::try_from(facts.not_before + life / 100 * (70 + jitter)).unwrap_or(i64::MAX)
}

/// Sleeps by the wall clock, in steps, because a laptop's sleep stops timers.
pub async fn sleep_until(deadline: i64) {
    loop {
        let left = deadline - Timestamp::now().as_second();
        match u64::try_from(left) {
            Ok(left) if left > 0 => tokio::time::sleep(Duration::from_secs(left.min(600))).await,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_between_seventy_and_ninety_percent_of_their_life() {
        let ca = pki::Authority::new("kubernetes").unwrap();
        let leaf = ca.issue(&pki::LeafSpec::client("system:node:n", &["system:nodes"])).unwrap();
        let mut facts = Facts::from_pem(leaf.cert_pem.as_bytes()).unwrap();
        (facts.not_before, facts.not_after) = (1_000_000, 2_000_000);
        assert!((1_700_000..=1_900_000).contains(&deadline(&facts)));
    }
}
