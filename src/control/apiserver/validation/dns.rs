//! A pod's `dnsConfig` (`validatePodDNSConfig`).

use std::net::IpAddr;

use serde_json::Value;

use super::network::ADDRESS;
use super::{each, invalid_all, join, text};
use crate::api::names;
use crate::api::status::Cause;

const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const LONGEST_SEARCHES: usize = 2048;

pub fn config(causes: &mut Vec<Cause>, spec: &Value, path: &str) {
    let (config, path) = (&spec["dnsConfig"], join(path, "dnsConfig"));
    let mut limit = |field: &str, most: usize, what: &str| {
        if config[field].as_array().is_some_and(|list| list.len() > most) {
            let why = format!("must not have more than {most} {what}");
            causes.push(Cause::invalid(join(&path, field), &config[field], &why));
        }
    };
    limit("nameservers", MOST_SERVERS, "nameservers");
    limit("searches", MOST_SEARCHES, "search paths");
    let searches: Vec<&str> =
        config["searches"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if searches.join(" ").len() > LONGEST_SEARCHES {
        let why = format!(
            "must not have more than {LONGEST_SEARCHES} characters (including spaces) in the search list"
        );
        causes.push(Cause::invalid(join(&path, "searches"), &config["searches"], &why));
    }
    for (path, server) in each(config, "nameservers", &path) {
        if server.as_str().is_none_or(|text| text.parse::<IpAddr>().is_err()) {
            causes.push(Cause::invalid(path, server, ADDRESS));
        }
    }
    for (path, search) in each(config, "searches", &path) {
        // A single dot and labels with underscores are allowed since 1.34.
        let name = search.as_str().unwrap_or_default().trim_end_matches('.').replace('_', "a");
        if search != "." {
            causes.extend(invalid_all(&path, search, names::dns1123_subdomain(&name)));
        }
    }
    for (path, option) in each(config, "options", &path) {
        if text(option, "name").is_empty() {
            causes.push(Cause::required(path, "must not be empty"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(config: Value) -> Vec<String> {
        let mut causes = Vec::new();
        super::config(&mut causes, &json!({ "dnsConfig": config }), "spec");
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn what_a_resolver_could_not_use_is_refused() {
        let good = json!({"nameservers": ["10.96.0.10"], "searches": ["a.b.", ".", "_tcp.a"], "options": [{"name": "ndots"}]});
        assert!(wrong(good).is_empty());
        let address = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        let want = format!("spec.dnsConfig.nameservers[0]: Invalid value: \"a\": {address}");
        assert_eq!(wrong(json!({"nameservers": ["a"]})), [want]);
        let four = wrong(json!({"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}));
        assert!(four[0].ends_with("must not have more than 3 nameservers"), "{four:?}");
        assert!(
            wrong(json!({"searches": ["a..b"]}))[0].starts_with("spec.dnsConfig.searches[0]: Invalid value")
        );
        let unnamed = wrong(json!({"options": [{"value": "1"}]}));
        assert_eq!(unnamed, ["spec.dnsConfig.options[0]: Required value: must not be empty"]);
    }
}
