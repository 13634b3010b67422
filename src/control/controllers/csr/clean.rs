//! csrcleaner: takes away requests that are settled, expired or were never answered.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::DeleteParams;
use tracing::warn;

use super::{conditions, is_issued};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::World;
use crate::pki::Facts;

const SWEEP: std::time::Duration = std::time::Duration::from_secs(3600);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let client = world.identities.client_for("certificate-controller");
    let world = world.clone();
    let queue = Queue::default();
    queue.add("sweep");
    Box::pin(async move {
        world.csrs.synced().await;
        let sweep = |_| async {
            let api: Api<CertificateSigningRequest> = Api::all(client.clone());
            for csr in world.csrs.all().iter().filter(|csr| is_over(csr, Timestamp::now().as_second())) {
                let name = csr.metadata.name.as_deref().unwrap_or_default();
                if let Err(error) = api.delete(name, &DeleteParams::default()).await {
                    warn!(csr = name, %error, "delete an old certificate signing request");
                }
            }
            Ok::<_, kube::Error>(Next::After(SWEEP))
        };
        queue.work("csrcleaner", 1, sweep).await;
    })
}

/// Approved, denied or failed for an hour, pending for a day, or issued and expired.
fn is_over(csr: &CertificateSigningRequest, now: i64) -> bool {
    let settled = conditions(csr).iter().any(|condition| {
        let since = condition.last_update_time.as_ref().map_or(now, |time| time.0.as_second());
        let kind = condition.type_.as_str();
        matches!(kind, "Approved" | "Denied" | "Failed")
            && now - since > HOUR
            && (kind != "Approved" || is_issued(csr))
    });
    let created = csr.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0.as_second());
    let pending = conditions(csr).is_empty() && now - created > DAY;
    let waiting = !is_issued(csr) && !settled && now - created > DAY;
    let certificate = csr.status.as_ref().and_then(|status| status.certificate.as_ref());
    let expired = certificate
        .and_then(|cert| Facts::from_pem(&cert.0).ok())
        .is_some_and(|facts| i64::try_from(facts.not_after).unwrap_or(i64::MAX) < now);
    settled || pending || waiting || expired
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::controllers::csr::condition;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn pending_ones_live_a_day_and_denied_ones_an_hour() {
        let now = Timestamp::now();
        let mut csr = CertificateSigningRequest::default();
        csr.metadata.creation_timestamp = Some(Time(now));
        assert!(!is_over(&csr, now.as_second() + HOUR));
        assert!(is_over(&csr, now.as_second() + DAY + 1));
        csr.status.get_or_insert_default().conditions = Some(vec![condition("Denied", "", "")]);
        assert!(!is_over(&csr, now.as_second() + HOUR - 5));
        assert!(is_over(&csr, now.as_second() + HOUR + 5));
    }
}
