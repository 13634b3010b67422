//! The arithmetic of a rolling update: how large each ReplicaSet should be next. Pure.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

pub fn spec(deployment: &Deployment) -> DeploymentSpec {
    deployment.spec.clone().unwrap_or_default()
}

/// How many pods the deployment wants.
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many pods a set wants, and how many of them are available.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

pub fn total<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>, of: fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(of).sum()
}

pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// (maxSurge, maxUnavailable) in pods: the surge rounded up, the loss down, never both zero.
pub fn limits(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let replicas = wanted(deployment);
    let strategy = spec(deployment).strategy.and_then(|strategy| strategy.rolling_update).unwrap_or_default();
    let quarter = IntOrString::String("25%".into());
    let surge = share(strategy.max_surge.as_ref().unwrap_or(&quarter), replicas, true);
    let loss = share(strategy.max_unavailable.as_ref().unwrap_or(&quarter), replicas, false);
    let loss = if surge == 0 && loss == 0 { 1 } else { loss };
    (surge, loss.min(replicas))
}

/// A number, or a percentage of `whole`.
pub fn share(of: &IntOrString, whole: i32, up: bool) -> i32 {
    match of {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent * i64::from(whole);
            let rounded = if up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// The next size of the new set, given all sets.
pub fn new_size(deployment: &Deployment, new: &ReplicaSet, old: &[ReplicaSet]) -> i32 {
    let (wanted, now) = (wanted(deployment), size(new));
    if !is_rolling(deployment) || now >= wanted {
        return wanted;
    }
    let room = wanted + limits(deployment).0 - total(old, size) - now;
    if room <= 0 { now } else { now + room.min(wanted - now) }
}

/// The next sizes of the old sets, oldest first: unhealthy pods go first, then as many as may be missed.
pub fn old_sizes(deployment: &Deployment, new: &ReplicaSet, old: &[ReplicaSet]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(size).collect();
    let (_, loss) = limits(deployment);
    let least = wanted(deployment) - loss;
    let unavailable_new = size(new) - available(new);
    let may_go = total(old, size) + size(new) - least - unavailable_new;
    if may_go <= 0 {
        return sizes;
    }
    let mut cleaned = 0;
    for (set, size) in old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).max(0).min(may_go - cleaned);
        *size -= unhealthy;
        cleaned += unhealthy;
    }
    let mut spare = total(old, available) + available(new) - least;
    for size in &mut sizes {
        let goes = (*size).min(spare).max(0);
        *size -= goes;
        spare -= goes;
    }
    sizes
}

/// When the deployment's size changes in the middle of an update, each set gets its share of the change.
pub fn proportional(deployment: &Deployment, sets: &[ReplicaSet]) -> Vec<i32> {
    let mut sizes: Vec<i32> = sets.iter().map(size).collect();
    let wanted = wanted(deployment);
    let allowed = if wanted > 0 { wanted + limits(deployment).0 } else { 0 };
    let change = allowed - sizes.iter().sum::<i32>();
    let mut order: Vec<usize> = (0..sets.len()).filter(|at| sizes[*at] > 0).collect();
    // Larger first; among equals the newer when growing and the older when shrinking.
    order.sort_by(|a, b| {
        let by_age = sets[*a].metadata.creation_timestamp.cmp(&sets[*b].metadata.creation_timestamp);
        sizes[*b].cmp(&sizes[*a]).then(if change > 0 { by_age.reverse() } else { by_age })
    });
    let mut left = change;
    for at in &order {
        let before = annotation(&sets[*at], MAX).filter(|max| *max > 0).unwrap_or(allowed.max(1));
        let grown = (f64::from(sizes[*at]) * f64::from(allowed) / f64::from(before)).round();
        #[expect(clippy::cast_possible_truncation, reason = "replica counts are far below 2^31")]
        let fair = grown as i32 - sizes[*at];
        let part = if change > 0 { fair.clamp(0, left.max(0)) } else { fair.clamp(left.min(0), 0) };
        sizes[*at] += part;
        left -= part;
    }
    if let Some(first) = order.first() {
        sizes[*first] = (sizes[*first] + left).max(0);
    }
    sizes
}

/// A number in a set's annotations.
pub fn annotation(set: &ReplicaSet, name: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    pub fn deployment(replicas: i32, surge: &str, loss: &str) -> Deployment {
        let value = |text: &str| text.parse::<i32>().map_or(json!(text), |number| json!(number));
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": value(surge), "maxUnavailable": value(loss)}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
        }))
        .unwrap()
    }

    pub fn set(name: &str, replicas: i32, available: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {}},
            "status": {"replicas": replicas, "availableReplicas": available, "readyReplicas": available},
        }))
        .unwrap()
    }

    #[test]
    fn percentages_round_the_surge_up_and_the_loss_down() {
        assert_eq!(limits(&deployment(3, "25%", "25%")), (1, 0));
        assert_eq!(limits(&deployment(10, "25%", "25%")), (3, 2));
        assert_eq!(limits(&deployment(10, "0", "0%")), (0, 1));
    }

    #[test]
    fn the_new_set_grows_into_the_surge_and_the_old_shrinks_as_pods_become_available() {
        let three = deployment(3, "25%", "25%");
        assert_eq!(new_size(&three, &set("new", 0, 0), &[set("old", 3, 3)]), 1);
        assert_eq!(old_sizes(&three, &set("new", 1, 0), &[set("old", 3, 3)]), [3]);
        assert_eq!(old_sizes(&three, &set("new", 1, 1), &[set("old", 3, 3)]), [2]);
        assert_eq!(new_size(&three, &set("new", 1, 1), &[set("old", 2, 2)]), 2);
        assert_eq!(old_sizes(&three, &set("new", 3, 3), &[set("old", 1, 1)]), [0]);
    }

    #[test]
    fn a_whole_update_never_leaves_its_limits_and_ends() {
        for (replicas, surge, loss) in [(10, "3", "2"), (3, "1", "0"), (5, "0", "1"), (1, "25%", "25%")] {
            let deployment = deployment(replicas, surge, loss);
            let (surge, loss) = limits(&deployment);
            let (mut new, mut old) = (set("new", 0, 0), vec![set("old", replicas, replicas)]);
            for _ in 0..100 {
                let grown = new_size(&deployment, &new, &old);
                new = set("new", grown, available(&new));
                assert!(grown + total(&old, size) <= replicas + surge);
                let shrunk = old_sizes(&deployment, &new, &old)[0];
                old = vec![set("old", shrunk, shrunk.min(available(&old[0])))];
                assert!(available(&new) + available(&old[0]) >= replicas - loss);
                // One more pod of the new set becomes available.
                new = set("new", size(&new), (available(&new) + 1).min(size(&new)));
            }
            assert_eq!((size(&new), size(&old[0])), (replicas, 0));
        }
    }

    #[test]
    fn unhealthy_old_pods_go_first() {
        let ten = deployment(10, "3", "2");
        assert_eq!(old_sizes(&ten, &set("new", 5, 0), &[set("a", 2, 0), set("b", 6, 6)]), [2, 6]);
        assert_eq!(old_sizes(&ten, &set("new", 5, 5), &[set("a", 2, 0), set("b", 6, 6)]), [0, 3]);
    }

    #[test]
    fn a_change_of_size_is_shared() {
        let ten = deployment(20, "5", "0");
        let mut sets = [set("old", 8, 8), set("new", 5, 5)];
        for set in &mut sets {
            set.metadata.annotations = Some([(MAX.to_owned(), "13".to_owned())].into());
        }
        let sizes = proportional(&ten, &sets);
        assert_eq!(sizes.iter().sum::<i32>(), 25);
        assert!(sizes[0] > sizes[1]);
    }
}
