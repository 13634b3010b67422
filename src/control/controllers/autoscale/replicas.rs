//! From what pods use and what they should use to how many there should be.

use std::rc::Rc;

use k8s_openapi::api::autoscaling::v2::{
    MetricStatus, MetricValueStatus, ResourceMetricSource, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::Value;

use crate::api::quantity::Quantity;
use crate::control::controllers::workloads::pods;

/// A difference this small is none, in thousandths.
const TOLERANCE: i64 = 100;

/// A number of replicas and the metric it comes from.
#[derive(Debug, PartialEq)]
pub struct Wish {
    pub replicas: i32,
    pub from: String,
}

/// What the ready pods use of one resource and what they asked for, in thousandths.
#[derive(Debug, PartialEq)]
pub struct Measured {
    used: i64,
    requested: Option<i64>,
    pods: i64,
    resource: String,
}

fn milli(text: Option<&str>) -> Option<i64> {
    Quantity::parse(text?).ok().map(|amount| amount.milli())
}

impl Measured {
    pub fn of(list: &Value, mine: &[Rc<Pod>], resource: &str) -> Result<Self, String> {
        let (mut used, mut requested, mut count) = (0_i64, Some(0_i64), 0);
        for item in list["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str();
            let Some(pod) =
                mine.iter().find(|pod| pod.metadata.name.as_deref() == name && pods::is_ready(pod))
            else {
                continue;
            };
            let containers = item["containers"].as_array().into_iter().flatten();
            used = containers
                .filter_map(|one| milli(one["usage"][resource].as_str()))
                .fold(used, i64::saturating_add);
            count += 1;
            for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
                let own = requests.and_then(|requests| milli(Some(&requests.get(resource)?.0)));
                requested = requested.zip(own).map(|(sum, own)| sum.saturating_add(own));
            }
        }
        match count {
            0 => Err(format!("no metrics returned from resource metrics API for resource {resource}")),
            _ => Ok(Self { used, requested, pods: count, resource: resource.to_owned() }),
        }
    }

    /// The wish, and what the status shows.
    pub fn wish(&self, source: &ResourceMetricSource, replicas: i32) -> Result<(Wish, MetricStatus), String> {
        let average = self.used / self.pods.max(1);
        let percent = match self.requested {
            Some(requested) if requested > 0 => Some(self.used.saturating_mul(100) / requested),
            _ => None,
        };
        let name = &self.resource;
        let (ratio, from) = if let Some(target) = source.target.average_utilization {
            let missing = || format!("missing request for {name}");
            let percent = percent.ok_or_else(missing)?;
            let from = format!("{name} resource utilization (percentage of request)");
            (percent.saturating_mul(1000) / i64::from(target.max(1)), from)
        } else {
            let target = milli(source.target.average_value.as_ref().map(|text| text.0.as_str()));
            let target = target.filter(|target| *target > 0).ok_or("no target is set")?;
            (average.saturating_mul(1000) / target, format!("{name} resource"))
        };
        let off = (ratio - 1000).abs() > TOLERANCE;
        let wanted = (ratio.saturating_mul(self.pods) + 999) / 1000;
        let wanted = if off { i32::try_from(wanted).unwrap_or(i32::MAX) } else { replicas };
        let unit = if name == "cpu" { format!("{average}m") } else { (average / 1000).to_string() };
        let shown = ResourceMetricStatus {
            name: name.clone(),
            current: MetricValueStatus {
                average_utilization: percent.and_then(|percent| i32::try_from(percent).ok()),
                average_value: Some(Text(unit)),
                value: None,
            },
        };
        let shown =
            MetricStatus { type_: "Resource".into(), resource: Some(shown), ..MetricStatus::default() };
        Ok((Wish { replicas: wanted, from }, shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn twice_the_target_calls_for_twice_the_pods() {
        let source: ResourceMetricSource = serde_json::from_value(
            json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}),
        )
        .unwrap();
        let measured = |used: i64| Measured { used, requested: Some(200), pods: 2, resource: "cpu".into() };
        assert_eq!(measured(200).wish(&source, 2).unwrap().0.replicas, 4);
        assert_eq!(measured(105).wish(&source, 2).unwrap().0.replicas, 2);
        assert_eq!(measured(10).wish(&source, 2).unwrap().0.replicas, 1);
        let silent = Measured { used: 5, requested: None, pods: 1, resource: "cpu".into() };
        assert_eq!(silent.wish(&source, 1).unwrap_err(), "missing request for cpu");
    }
}
