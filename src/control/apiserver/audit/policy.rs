//! The audit policy file: `audit.k8s.io/v1` Policy, first rule that fits wins (`apiserver/pkg/audit/policy`).

use serde::Deserialize;

use super::super::request::RequestInfo;
use super::super::user::UserInfo;
use super::Stage;

/// How much of a request is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted: a file may carry a name")]
    metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs", default)]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) omit: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

#[derive(Debug)]
pub(super) struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

impl Policy {
    /// Reads a file; a policy without rules is an error, as upstream has it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let file: File = match serde_yaml_ng::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                let file = lenient(text).map_err(|error| format!("failed decoding: {error}"))?;
                tracing::warn!(%error, "Audit policy contains errors, falling back to lenient decoding");
                file
            }
        };
        if file.kind != "Policy" || file.api_version != "audit.k8s.io/v1" {
            return Err(format!("unknown group version field {:?} in policy", file.api_version));
        }
        if file.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        for (at, rule) in file.rules.iter().enumerate() {
            if let Some((which, pattern)) =
                rule.non_resource_urls.iter().enumerate().find(|(_, one)| !is_pattern(one))
            {
                return Err(format!(
                    "rules[{at}].nonResourceURLs[{which}]: Invalid value: {pattern:?}: {}",
                    "non-resource URL wildcards '*' must be the final character of the rule"
                ));
            }
            let resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if resources && !rule.non_resource_urls.is_empty() {
                return Err(format!(
                    "rules[{at}].nonResourceURLs: Invalid value: rules cannot apply to both regular resources and \
                     non-resource URLs"
                ));
            }
            if let Some(one) =
                rule.resources.iter().find(|one| one.resources.is_empty() && !one.resource_names.is_empty())
            {
                return Err(format!(
                    "rules[{at}].resources.resourceNames: Invalid value: {:?}: using resourceNames requires at least \
                     one resource",
                    one.resource_names
                ));
            }
        }
        let File { rules, omit_stages, omit_managed_fields, .. } = file;
        Ok(Self { rules, omit_stages, omit_managed_fields })
    }

    /// What is kept of a request; nothing when the policy wants none of it.
    pub(super) fn rule(&self, user: &UserInfo, info: &RequestInfo) -> Option<Verdict> {
        let rule = self.rules.iter().find(|rule| rule.fits(user, info))?;
        (rule.level > Level::None).then(|| Verdict {
            level: rule.level,
            omit: rule.omit_stages.iter().chain(&self.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        })
    }
}

/// `*` stands for the rest, so nothing follows it.
fn is_pattern(path: &str) -> bool {
    path == "*" || (!path.is_empty() && path.find('*').is_none_or(|at| at == path.len() - 1))
}

const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
const RULE_FIELDS: &[&str] = &[
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];
const RESOURCE_FIELDS: &[&str] = &["group", "resources", "resourceNames"];

/// Reads a file without what it has and a policy has not.
fn lenient(text: &str) -> Result<File, serde_yaml_ng::Error> {
    let mut file: serde_json::Value = serde_yaml_ng::from_str(text)?;
    keep(&mut file, FIELDS);
    for rule in file.get_mut("rules").and_then(serde_json::Value::as_array_mut).into_iter().flatten() {
        keep(rule, RULE_FIELDS);
        let resources = rule.get_mut("resources").and_then(serde_json::Value::as_array_mut);
        resources.into_iter().flatten().for_each(|one| keep(one, RESOURCE_FIELDS));
    }
    serde_yaml_ng::from_str(&file.to_string())
}

fn keep(value: &mut serde_json::Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, _| fields.contains(&name.as_str()));
    }
}

impl Rule {
    fn fits(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let wanted = |list: &[String], value: &String| list.is_empty() || list.contains(value);
        if !wanted(&self.users, &user.name) || !wanted(&self.verbs, &info.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.in_group(group)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.fits_resource(info);
        }
        if !self.non_resource_urls.is_empty() {
            let path = |pattern: &String| match pattern.strip_suffix('*') {
                Some(prefix) => info.path.starts_with(prefix),
                None => *pattern == info.path,
            };
            return info.resource.is_none() && self.non_resource_urls.iter().any(path);
        }
        true
    }

    fn fits_resource(&self, info: &RequestInfo) -> bool {
        let Some(asked) = &info.resource else { return false };
        if !self.namespaces.is_empty() && !self.namespaces.contains(&asked.namespace) {
            return false;
        }
        let combined = match asked.subresource.as_str() {
            "" => asked.resource.clone(),
            sub => format!("{}/{sub}", asked.resource),
        };
        let named = |pattern: &String| {
            pattern == "*"
                || *pattern == combined
                || pattern.strip_prefix("*/").is_some_and(|sub| !sub.is_empty() && sub == asked.subresource)
                || pattern.strip_suffix("/*").is_some_and(|resource| resource == asked.resource)
        };
        self.resources.is_empty()
            || self.resources.iter().any(|one| {
                one.group == asked.group
                    && (one.resources.is_empty()
                        || (one.resources.iter().any(named)
                            && (one.resource_names.is_empty() || one.resource_names.contains(&asked.name))))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::request::Query;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Request
  verbs: [create]
  resources: [{group: "", resources: ["pods/*", "secrets"]}]
- level: RequestResponse
  namespaces: [kube-system]
  omitStages: [ResponseStarted]
- level: Metadata
  userGroups: ["system:authenticated"]
"#;

    fn level(method: http::Method, path: &str, user: &str) -> Option<Level> {
        let groups = if user.is_empty() { vec![] } else { vec!["system:authenticated".to_owned()] };
        let user = UserInfo { name: user.into(), groups, ..UserInfo::default() };
        let info = RequestInfo::parse(&method, path, &Query::parse(None));
        Policy::read(POLICY).unwrap().rule(&user, &info).map(|verdict| verdict.level)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        use http::Method;
        for (method, path, user, want) in [
            (Method::GET, "/api/v1/pods", "system:kube-proxy", None),
            (Method::GET, "/healthz/ping", "jane", None),
            (Method::POST, "/api/v1/namespaces/a/pods/p/exec", "jane", Some(Level::Request)),
            // As upstream has it, `pods/*` means the pods too.
            (Method::POST, "/api/v1/namespaces/a/pods", "jane", Some(Level::Request)),
            (Method::POST, "/api/v1/namespaces/a/services", "jane", Some(Level::Metadata)),
            (Method::POST, "/api/v1/namespaces/a/secrets", "jane", Some(Level::Request)),
            (Method::GET, "/api/v1/namespaces/kube-system/pods", "jane", Some(Level::RequestResponse)),
            (Method::GET, "/apis", "jane", Some(Level::Metadata)),
            (Method::GET, "/apis", "", None),
        ] {
            assert_eq!(level(method, path, user), want, "{path}");
        }
    }

    #[test]
    fn stages_are_left_out_by_the_policy_and_by_the_rule() {
        let info = RequestInfo::parse(
            &http::Method::GET,
            "/api/v1/namespaces/kube-system/pods",
            &Query::parse(None),
        );
        let verdict = Policy::read(POLICY).unwrap().rule(&UserInfo::default(), &info).unwrap();
        assert_eq!(verdict.omit, [Stage::ResponseStarted, Stage::RequestReceived]);
    }

    #[test]
    fn an_empty_or_foreign_policy_is_refused() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        assert_eq!(Policy::read(head).unwrap_err(), "loaded illegal policy with 0 rules");
        assert!(Policy::read("apiVersion: v1\nkind: Policy\n").is_err());
        assert!(Policy::read(&format!("{head}rules: [{{level: Everything}}]")).is_err());
    }

    #[test]
    fn what_a_policy_has_not_is_passed_over_and_a_star_ends_a_path() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let odd = format!("{head}colour: red\nrules: [{{level: Metadata, flavour: sweet}}]");
        assert_eq!(Policy::read(&odd).unwrap().rules.len(), 1);
        let star = format!("{head}rules: [{{level: None, nonResourceURLs: [\"/x*y\"]}}]");
        let said = Policy::read(&star).unwrap_err();
        assert!(
            said.starts_with("rules[0].nonResourceURLs[0]: Invalid value: \"/x*y\": non-resource URL"),
            "{said}"
        );
        assert!(is_pattern("*") && is_pattern("/a*") && is_pattern("/a") && !is_pattern(""));
    }
}
