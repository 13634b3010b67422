//! HorizontalPodAutoscaler: as many replicas as the pods' cpu and memory call for (`pkg/controller/podautoscaler`).
//!
//! Every fifteen seconds, by the metrics API. Left out: metrics of objects, of others and of single containers,
//! which need servers of their own; targets of other kinds than those below.

mod replicas;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use http::Request;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::queue::{Next, Queue};
use super::workloads::pods;
use super::world::{Actor, World};
use crate::api::selector::LabelSelector;
use crate::client::informer::key_of;
use replicas::{Measured, Wish};

/// Upstream's `--horizontal-pod-autoscaler-sync-period`.
const EVERY: Duration = Duration::from_secs(15);
/// Upstream's `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
const STEADY: i32 = 300;

/// What was recommended when, by autoscaler: going down waits for the highest of some time.
type History = RefCell<HashMap<String, Vec<(Timestamp, i32)>>>;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.late.autoscalers.on_change(move |old, new| {
        let changed = old.map(|old| &old.spec) != new.map(|new| &new.spec);
        if let Some(one) = new.filter(|_| changed) {
            fed.add(key_of(&**one));
        }
    });
    let actor = world.actor("horizontal-pod-autoscaler", "horizontal-pod-autoscaler");
    let (world, history) = (world.clone(), Rc::new(History::default()));
    Box::pin(async move {
        world.late.autoscalers.synced().await;
        queue.work("horizontalpodautoscaling", 4, |key| sync(&world, &actor, &history, key)).await;
    })
}

/// Where a target's scale is.
fn scale_path(namespace: &str, kind: &str, name: &str) -> Option<String> {
    let place = match kind {
        "Deployment" => ("apis/apps/v1", "deployments"),
        "ReplicaSet" => ("apis/apps/v1", "replicasets"),
        "StatefulSet" => ("apis/apps/v1", "statefulsets"),
        "ReplicationController" => ("api/v1", "replicationcontrollers"),
        _ => return None,
    };
    Some(format!("/{}/namespaces/{namespace}/{}/{name}/scale", place.0, place.1))
}

async fn ask<T: serde::de::DeserializeOwned>(actor: &Actor, path: &str) -> Result<T, kube::Error> {
    let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    actor.client.request(request).await
}

async fn sync(world: &Rc<World>, actor: &Actor, history: &History, key: String) -> Result<Next, kube::Error> {
    let Some(one) = world.late.autoscalers.get(&key) else {
        history.borrow_mut().remove(&key);
        return Ok(Next::Done);
    };
    let (spec, now) = (one.spec.clone(), Timestamp::now());
    let namespace = one.metadata.namespace.clone().unwrap_or_default();
    let mut status = one.status.clone().unwrap_or_default();
    status.observed_generation = one.metadata.generation;
    let target = &spec.scale_target_ref;
    let scale = match scale_path(&namespace, &target.kind, &target.name) {
        Some(path) => {
            ask::<Scale>(actor, &path).await.map(|scale| (path, scale)).map_err(|error| pods::text(&error))
        }
        None => Err(format!("no matches for kind {:?}", target.kind)),
    };
    let (path, scale) = match scale {
        Ok(found) => found,
        Err(why) => {
            let why = format!("the HPA controller was unable to get the target's current scale: {why}");
            actor.warning(&*one, "FailedGetScale", &why);
            set(&mut status, "AbleToScale", "False", "FailedGetScale", &why, now);
            write_status(world, actor, &one, status).await?;
            return Ok(Next::After(EVERY));
        }
    };
    set(
        &mut status,
        "AbleToScale",
        "True",
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
        now,
    );
    let current = scale.status.as_ref().map_or(0, |status| status.replicas);
    let asked = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    (status.current_replicas, status.desired_replicas) = (Some(current), asked);
    if asked == 0 {
        let why = "scaling is disabled since the replica count of the target is zero";
        set(&mut status, "ScalingActive", "False", "ScalingDisabled", why, now);
    } else {
        let selector = scale.status.and_then(|status| status.selector).unwrap_or_default();
        let wish = wish(world, actor, (&one, &namespace), (&selector, asked), &mut status, now).await;
        let wanted = bounded(history, (&key, &one), (asked, wish), &mut status, now);
        if wanted.0 != asked {
            rescale(actor, &one, &path, wanted, &mut status, now).await?;
        }
    }
    write_status(world, actor, &one, status).await?;
    Ok(Next::After(EVERY))
}

/// What the metrics call for; nothing if none can be had.
async fn wish(
    world: &World,
    actor: &Actor,
    (one, namespace): (&HorizontalPodAutoscaler, &str),
    (selector, replicas): (&str, i32),
    status: &mut HorizontalPodAutoscalerStatus,
    now: Timestamp,
) -> Option<Wish> {
    let chosen = LabelSelector::parse(selector).ok()?;
    let mut mine = world.pods.in_namespace(namespace);
    mine.retain(|pod| {
        let labels = serde_json::to_value(&pod.metadata.labels).unwrap_or_default();
        pods::is_active(pod) && chosen.matches(&labels)
    });
    let path = format!(
        "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}",
        escaped(selector)
    );
    let answer: Result<Value, String> = ask(actor, &path).await.map_err(|error| pods::text(&error));
    let metrics = one.spec.metrics.clone().unwrap_or_default();
    let (mut best, mut current, mut failed): (Option<Wish>, Vec<MetricStatus>, Option<(String, String)>) =
        (None, Vec::new(), None);
    for metric in metrics {
        let Some(resource) = metric.resource.filter(|_| metric.type_ == "Resource") else {
            let why = format!(
                "the HPA was unable to compute the replica count: no server gives metrics of type {:?}",
                metric.type_
            );
            failed = Some(("InvalidMetricSourceType".into(), why));
            continue;
        };
        let measured = match &answer {
            Ok(list) => Measured::of(list, &mine, &resource.name),
            Err(why) => Err(format!(
                "unable to get metrics for resource {}: unable to fetch metrics from resource metrics API: {why}",
                resource.name
            )),
        };
        match measured.and_then(|measured| measured.wish(&resource, replicas)) {
            Ok((wish, shown)) => {
                current.push(shown);
                best = Some(best.filter(|best| best.replicas >= wish.replicas).unwrap_or(wish));
            }
            Err(why) => {
                let why = format!(
                    "the HPA was unable to compute the replica count: failed to get {} utilization: {why}",
                    resource.name
                );
                failed = Some(("FailedGetResourceMetric".into(), why));
            }
        }
    }
    status.current_metrics = Some(current);
    match (&best, failed) {
        (Some(wish), _) => {
            let why =
                format!("the HPA was able to successfully calculate a replica count from {}", wish.from);
            set(status, "ScalingActive", "True", "ValidMetricFound", &why, now);
        }
        (None, Some((reason, why))) => {
            actor.warning(one, &reason, &why);
            set(status, "ScalingActive", "False", &reason, &why, now);
        }
        (None, None) => {}
    }
    best
}

fn escaped(selector: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    selector
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The next size and why, within what the autoscaler allows: not too fast up, not too soon down.
fn bounded(
    history: &History,
    (key, one): (&str, &HorizontalPodAutoscaler),
    (asked, wish): (i32, Option<Wish>),
    status: &mut HorizontalPodAutoscalerStatus,
    now: Timestamp,
) -> (i32, String) {
    let spec = &one.spec;
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let (mut wanted, mut why) = match &wish {
        Some(wish) if wish.replicas > asked => (wish.replicas, format!("{} above target", wish.from)),
        Some(wish) => (wish.replicas, "All metrics below target".to_owned()),
        None => (asked, String::new()),
    };
    if wish.is_some() {
        let down = spec.behavior.as_ref().and_then(|behavior| behavior.scale_down.as_ref());
        let window = down.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(STEADY);
        let mut all = history.borrow_mut();
        // What it was before counts as a wish too, so that a new autoscaler takes nothing away at once.
        let known = all.entry(key.to_owned()).or_insert_with(|| vec![(now, asked)]);
        known.retain(|(at, _)| now.as_second() - at.as_second() < i64::from(window));
        known.push((now, wanted));
        wanted = if wanted < asked {
            known.iter().map(|(_, one)| *one).max().unwrap_or(wanted).min(asked)
        } else {
            wanted
        };
        // Four more, or twice as many, in one period.
        wanted = wanted.min((asked + 4).max(asked * 2));
    }
    if wanted > most {
        set(
            status,
            "ScalingLimited",
            "True",
            "TooManyReplicas",
            "the desired replica count is more than the maximum replica count",
            now,
        );
        (wanted, why) = (
            most,
            if asked > most { "Current number of replicas above Spec.MaxReplicas".into() } else { why },
        );
    } else if wanted < least {
        set(
            status,
            "ScalingLimited",
            "True",
            "TooFewReplicas",
            "the desired replica count is less than the minimum replica count",
            now,
        );
        (wanted, why) = (
            least,
            if asked < least { "Current number of replicas below Spec.MinReplicas".into() } else { why },
        );
    } else {
        set(
            status,
            "ScalingLimited",
            "False",
            "DesiredWithinRange",
            "the desired count is within the acceptable range",
            now,
        );
    }
    (wanted, why)
}

async fn rescale(
    actor: &Actor,
    one: &HorizontalPodAutoscaler,
    path: &str,
    (wanted, why): (i32, String),
    status: &mut HorizontalPodAutoscalerStatus,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let mut scale: Value = ask(actor, path).await?;
    scale["spec"]["replicas"] = json!(wanted);
    let body = serde_json::to_vec(&scale).map_err(kube::Error::SerdeError)?;
    let request = Request::put(path).header("content-type", "application/json");
    let request = request.body(body).map_err(kube::Error::HttpError)?;
    match actor.client.request::<Value>(request).await {
        Ok(_) => {
            actor.normal(one, "SuccessfulRescale", &format!("New size: {wanted}; reason: {why}"));
            let said = format!("the HPA controller was able to update the target scale to {wanted}");
            set(status, "AbleToScale", "True", "SucceededRescale", &said, now);
            status.desired_replicas = wanted;
            status.last_scale_time = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
            Ok(())
        }
        Err(error) => {
            let said = format!("New size: {wanted}; reason: {why}; error: {}", pods::text(&error));
            actor.warning(one, "FailedRescale", &said);
            Err(error)
        }
    }
}

fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().find(|one| one.type_ == kind && one.status == value);
    let since = old.and_then(|old| old.last_transition_time.clone());
    let new = HorizontalPodAutoscalerCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: since.or(Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)))),
    };
    match conditions.iter_mut().find(|one| one.type_ == kind) {
        Some(known) => *known = new,
        None => conditions.push(new),
    }
}

async fn write_status(
    world: &World,
    actor: &Actor,
    one: &HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
) -> Result<(), kube::Error> {
    if one.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut changed = one.clone();
    changed.status = Some(status);
    let api: Api<HorizontalPodAutoscaler> =
        Api::namespaced(actor.client.clone(), one.metadata.namespace.as_deref().unwrap_or_default());
    match api
        .replace_status(one.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), &changed)
        .await
    {
        Ok(written) => world.late.autoscalers.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
