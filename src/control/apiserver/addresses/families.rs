//! Address families of a Service in a single-stack IPv4 cluster (`initIPFamilyFields` in alloc.go).

use serde_json::{Value, json};

use super::is_blank;
use crate::api::status::Cause;
use crate::control::apiserver::validation::service::address_fields;

const CLUSTERS_OWN: &str = "IPv4";

/// Fills in `clusterIPs`, `ipFamilyPolicy` and `ipFamilies`, or says what this cluster does not have.
pub fn settle(service: &mut Value) -> Result<(), Vec<Cause>> {
    let spec = &mut service["spec"];
    if is_blank(&spec["clusterIPs"]) && !is_blank(&spec["clusterIP"]) {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    let causes = address_fields(spec);
    if !causes.is_empty() {
        return Err(causes);
    }
    let headless = spec["clusterIP"] == "None";
    let selects = spec["selector"].as_object().is_some_and(|labels| !labels.is_empty());
    if is_blank(&spec["ipFamilyPolicy"]) {
        // Endpoints that somebody writes by hand may be of any family.
        spec["ipFamilyPolicy"] = json!(if headless && !selects { "RequireDualStack" } else { "SingleStack" });
    }
    let policy = spec["ipFamilyPolicy"].as_str().unwrap_or_default().to_owned();
    let mut causes = too_many_for_one_stack(spec, &policy);
    infer(spec, &mut causes);
    if !causes.is_empty() {
        return Err(causes);
    }
    let asked = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
    if headless && !selects {
        let mut families = if asked.is_empty() { vec![json!(CLUSTERS_OWN)] } else { asked };
        if families.len() < 2 && policy != "SingleStack" {
            families.push(json!(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }));
        }
        spec["ipFamilies"] = Value::Array(families);
        return Ok(());
    }
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid("spec.ipFamilyPolicy", &json!(policy), why));
    }
    for (index, family) in asked.iter().enumerate().filter(|(_, family)| **family != CLUSTERS_OWN) {
        let field = format!("spec.ipFamilies[{index}]");
        causes.push(Cause::invalid(field, family, "not configured on this cluster"));
    }
    if asked.is_empty() {
        spec["ipFamilies"] = json!([CLUSTERS_OWN]);
    }
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

fn too_many_for_one_stack(spec: &Value, policy: &str) -> Vec<Cause> {
    let two = |field: &str| spec[field].as_array().is_some_and(|list| list.len() == 2);
    [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")]
        .into_iter()
        .filter(|(field, _)| policy == "SingleStack" && two(field))
        .map(|(_, what)| {
            let why =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            Cause::invalid("spec.ipFamilyPolicy", &json!(policy), &why)
        })
        .collect()
}

/// An address that was asked for says its family, where the families do not.
fn infer(spec: &mut Value, causes: &mut Vec<Cause>) {
    let addresses = spec["clusterIPs"].as_array().cloned().unwrap_or_default();
    let mut families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
    for (index, address) in addresses.iter().enumerate().filter(|(_, address)| **address != "None") {
        if index < families.len() {
            continue;
        }
        if address.as_str().is_some_and(|text| text.contains(':')) {
            let field = format!("spec.clusterIPs[{index}]");
            causes.push(Cause::invalid(field, &spec["clusterIPs"], "IPv6 is not configured on this cluster"));
        } else {
            families.push(json!("IPv4"));
        }
    }
    if !families.is_empty() {
        spec["ipFamilies"] = Value::Array(families);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(spec: Value) -> Result<Value, String> {
        let mut service = json!({"spec": spec});
        let text = |causes: Vec<Cause>| causes.iter().map(Cause::to_string).collect::<Vec<_>>().join("; ");
        settle(&mut service).map(|()| service["spec"].clone()).map_err(text)
    }

    #[test]
    fn a_service_is_of_the_clusters_one_family() {
        let plain = settled(json!({"selector": {"a": "b"}})).unwrap();
        assert_eq!(
            (&plain["ipFamilies"], &plain["ipFamilyPolicy"]),
            (&json!(["IPv4"]), &json!("SingleStack"))
        );
        let preferring = settled(json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
        assert_eq!(preferring["ipFamilies"], json!(["IPv4"]));
        let by_hand = settled(json!({"clusterIP": "None"})).unwrap();
        assert_eq!(by_hand["ipFamilies"], json!(["IPv4", "IPv6"]), "who writes endpoints chooses");
        assert_eq!(by_hand["ipFamilyPolicy"], "RequireDualStack");
        let headless = settled(json!({"clusterIP": "None", "selector": {"a": "b"}})).unwrap();
        assert_eq!(headless["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn what_the_cluster_does_not_have_is_refused_in_upstreams_words() {
        for (spec, want) in [
            (
                json!({"ipFamilies": ["IPv6"]}),
                r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
            ),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
            ),
            (json!({"ipFamilies": ["IPv4", "IPv4"]}), r#"spec.ipFamilies[1]: Duplicate value: "IPv4""#),
            (
                json!({"clusterIP": "fd00::1"}),
                r#"spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster"#,
            ),
            (
                json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}),
                r#"spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#,
            ),
            (
                json!({"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.8"]}),
                r#"spec.clusterIPs: Invalid value: ["10.96.7.8"]: first value must match `clusterIP`"#,
            ),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None", "10.96.7.9"]}),
                r#"spec.clusterIPs: Invalid value: ["None","10.96.7.9"]: 'None' must be the first and only value"#,
            ),
        ] {
            assert_eq!(settled(spec).unwrap_err(), want);
        }
    }
}
