//! legacy-serviceaccount-token-cleaner: first marks, then deletes the never-ending tokens that were made for
//! accounts and that nobody has used for a long time (`pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`).
//!
//! Only Secrets that an account names count as made for it; those people make for themselves stay. The API
//! server notes the day of a token's use on its Secret, and since when it does in a ConfigMap.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tracing::{error, info};

use crate::client::informer::key;
use crate::control::controllers::world::{Actor, World};

const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// A year does not hang on it, and at its start a lab has other things to do.
const FIRST: Duration = Duration::from_secs(10);

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let actor = world.actor("legacy-service-account-token-cleaner", "legacy-service-account-token-cleaner");
    let world = world.clone();
    Box::pin(async move {
        world.service_accounts.synced().await;
        world.token_secrets.synced().await;
        world.pods.synced().await;
        tokio::time::sleep(FIRST).await;
        loop {
            if let Err(error) = look(&world, &actor).await {
                error!(%error, "Syncing legacy service account tokens");
            }
            tokio::time::sleep(EVERY).await;
        }
    })
}

/// One round over every token.
async fn look(world: &World, actor: &Actor) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(actor.client.clone(), "kube-system");
    let tracking = maps.get(TRACKING).await?;
    let since = tracking.data.as_ref().and_then(|data| data.get("since")).and_then(|text| text.parse().ok());
    let Some(since) = since else {
        error!("the date since legacy tokens are tracked cannot be read");
        return Ok(());
    };
    let period = world.options.legacy_service_account_token_clean_up_period;
    let Some(rule) = Rule::at(Timestamp::now(), since, period) else { return Ok(()) };
    for secret in world.token_secrets.all() {
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        let Some(account) = account(world, &secret, namespace) else { continue };
        let mounted = world.pods.in_namespace(namespace).iter().any(|pod| mounts(pod, &secret));
        match rule.verdict(&secret, &account, mounted) {
            Verdict::Stays => {}
            Verdict::Mark => mark(actor, &secret, namespace, rule.today).await?,
            Verdict::Delete => delete(actor, &secret, namespace).await?,
        }
    }
    Ok(())
}

/// The account a token was made for, if it is still the same.
fn account(world: &World, secret: &Secret, namespace: &str) -> Option<Rc<ServiceAccount>> {
    let note = |name: &str| secret.metadata.annotations.as_ref()?.get(name);
    let account = world.service_accounts.get(&key(Some(namespace), note(ACCOUNT_NAME)?))?;
    (account.metadata.uid.as_ref() == note(ACCOUNT_UID)).then_some(account)
}

fn mounts(pod: &Pod, secret: &Secret) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut named = volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.as_ref());
    named.any(|name| Some(name) == secret.metadata.name.as_ref())
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    Mark,
    Delete,
}

/// What counts as long ago in this round.
struct Rule {
    today: Date,
    /// What was used, made or marked since then stays.
    limit: Timestamp,
}

impl Rule {
    /// Nothing while uses have not been noted for long enough to say who is unused.
    fn at(now: Timestamp, since: Date, period: Duration) -> Option<Self> {
        let period = SignedDuration::try_from(period).ok()?;
        // A token may have been used on the first day, before its uses were noted.
        let tracked = since.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        if now < tracked.checked_add(period).ok()? {
            return None;
        }
        Some(Self { today: day(now), limit: now.checked_sub(period).ok()? })
    }

    fn verdict(&self, secret: &Secret, account: &ServiceAccount, mounted: bool) -> Verdict {
        let meta = &secret.metadata;
        let young = meta.creation_timestamp.as_ref().is_none_or(|at| at.0 >= self.limit);
        let named = account.secrets.iter().flatten().any(|one| one.name == meta.name);
        if young || meta.deletion_timestamp.is_some() || !named || mounted {
            return Verdict::Stays;
        }
        let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
        if let Some(used) = label(LAST_USED) {
            match used.parse::<Date>() {
                Ok(used) if used < day(self.limit) => {}
                // Used lately, or nobody can say when.
                _ => return Verdict::Stays,
            }
        }
        match label(INVALID_SINCE).and_then(|text| text.parse::<Date>().ok()) {
            None => Verdict::Mark,
            Some(since) if since >= day(self.limit) => Verdict::Stays,
            Some(_) => Verdict::Delete,
        }
    }
}

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// From now on the token is refused, which its owner may still undo.
async fn mark(actor: &Actor, secret: &Secret, namespace: &str, today: Date) -> Result<(), kube::Error> {
    let name = secret.metadata.name.clone().unwrap_or_default();
    let patch = json!({"metadata": {
        "resourceVersion": secret.metadata.resource_version,
        "labels": {INVALID_SINCE: today.to_string()},
    }});
    info!(secret = name, namespace, "Mark the auto-generated service account token as invalid");
    let api: Api<Secret> = Api::namespaced(actor.client.clone(), namespace);
    gone_or_changed(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
}

async fn delete(actor: &Actor, secret: &Secret, namespace: &str) -> Result<(), kube::Error> {
    let name = secret.metadata.name.clone().unwrap_or_default();
    let only_this = Preconditions {
        uid: secret.metadata.uid.clone(),
        resource_version: secret.metadata.resource_version.clone(),
    };
    let how = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    info!(secret = name, namespace, "Deleting auto-generated service account token");
    let api: Api<Secret> = Api::namespaced(actor.client.clone(), namespace);
    gone_or_changed(api.delete(&name, &how).await.map(drop))
}

/// Who changed it meanwhile has the last word; the next round looks again.
fn gone_or_changed(outcome: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(labels: serde_json::Value, made: &str, named: bool, mounted: bool) -> Verdict {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "robot-token-x", "namespace": "default", "creationTimestamp": made, "labels": labels},
        }))
        .unwrap();
        let names = if named { json!([{"name": "robot-token-x"}]) } else { json!([]) };
        let account =
            serde_json::from_value(json!({"metadata": {"name": "robot"}, "secrets": names})).unwrap();
        let year = Duration::from_secs(365 * 24 * 3600);
        let now = "2026-06-15T12:00:00Z".parse().unwrap();
        Rule::at(now, "2024-01-01".parse().unwrap(), year).unwrap().verdict(&secret, &account, mounted)
    }

    #[test]
    fn an_unused_token_is_marked_and_a_year_later_deleted() {
        let old = "2024-02-01T00:00:00Z";
        assert_eq!(verdict(json!({}), old, true, false), Verdict::Mark);
        assert_eq!(verdict(json!({LAST_USED: "2025-06-14"}), old, true, false), Verdict::Mark);
        assert_eq!(verdict(json!({INVALID_SINCE: "2025-06-14"}), old, true, false), Verdict::Delete);
        assert_eq!(verdict(json!({INVALID_SINCE: "2025-06-16"}), old, true, false), Verdict::Stays);
        for (labels, made, named, mounted) in [
            (json!({LAST_USED: "2025-06-16"}), old, true, false),
            (json!({LAST_USED: "lately"}), old, true, false),
            (json!({}), "2026-02-01T00:00:00Z", true, false),
            (json!({}), old, false, false),
            (json!({}), old, true, true),
        ] {
            assert_eq!(verdict(labels.clone(), made, named, mounted), Verdict::Stays, "{labels} {made}");
        }
    }

    #[test]
    fn nobody_is_judged_before_uses_were_noted_for_long_enough() {
        let year = Duration::from_secs(365 * 24 * 3600);
        let at = |now: &str| Rule::at(now.parse().unwrap(), "2026-01-01".parse().unwrap(), year).is_some();
        assert!(!at("2027-01-01T23:59:59Z") && at("2027-01-02T00:00:00Z"));
    }
}
