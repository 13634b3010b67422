//! How many servers there are, by their Leases (`pkg/agent/lease_counter.go`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};

use super::counts::Counts;

/// Upstream's informer looks at all of them this often.
const LOOK: Duration = Duration::from_secs(10);

/// The last good count; at least one.
#[derive(Clone)]
pub struct Leases(Arc<AtomicUsize>);

impl Leases {
    /// Counts for as long as the agent runs.
    pub fn follow(client: Client, namespace: &str, selector: &str, counts: Arc<Counts>) -> Self {
        let count = Arc::new(AtomicUsize::new(1));
        let (own, api) = (Arc::clone(&count), Api::<Lease>::namespaced(client, namespace));
        let list = ListParams::default().labels(selector);
        tokio::spawn(async move {
            loop {
                match api.list(&list).await {
                    Ok(leases) => {
                        counts.lease_list(200);
                        let now = Timestamp::now();
                        let valid = leases.items.iter().filter(|lease| is_valid(lease, now)).count();
                        own.store(valid.max(1), Ordering::Release);
                    }
                    Err(error) => {
                        let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
                        counts.lease_list(code);
                        tracing::warn!(error = %crate::net::go_text(&error), "could not list the servers' leases");
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self(count)
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether a lease was renewed recently enough for its holder to be believed there.
pub fn is_valid(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let Some(seconds) = spec.lease_duration_seconds else { return false };
    let renewed = spec.renew_time.as_ref().or(spec.acquire_time.as_ref());
    let until = renewed.and_then(|time| time.0.checked_add(SignedDuration::from_secs(seconds.into())).ok());
    until.is_some_and(|until| until > now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    #[test]
    fn a_lease_is_valid_for_its_duration_after_the_last_sign_of_life() {
        let now = Timestamp::now();
        let at = |seconds: i64| Some(MicroTime(now - SignedDuration::from_secs(seconds)));
        let lease = |renew, acquire, duration| Lease {
            spec: Some(LeaseSpec {
                renew_time: renew,
                acquire_time: acquire,
                lease_duration_seconds: duration,
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        assert!(is_valid(&lease(at(10), None, Some(30)), now));
        assert!(is_valid(&lease(None, at(10), Some(30)), now));
        assert!(!is_valid(&lease(at(31), at(1), Some(30)), now));
        assert!(!is_valid(&lease(at(1), None, None), now));
        assert!(!is_valid(&lease(at(1), None, Some(i32::MIN)), now));
        assert!(!is_valid(&Lease::default(), now));
    }
}
