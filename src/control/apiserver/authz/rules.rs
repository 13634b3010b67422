//! PolicyRules: what they match and what they cover (`pkg/apis/rbac/v1/evaluation_helpers.go`).

use std::sync::Arc;

use serde::Deserialize;

use super::super::request::RequestInfo;
use crate::api::go_list::quoted;

/// One `rbac.authorization.k8s.io/v1` PolicyRule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// A rule about resources.
    pub fn resources(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Self {
        let own = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
        Self { verbs: own(verbs), api_groups: own(groups), resources: own(resources), ..Self::default() }
    }

    /// Everything there is.
    pub fn everything() -> Vec<Self> {
        let any = || vec!["*".to_owned()];
        vec![
            Self::resources(&["*"], &["*"], &["*"]),
            Self { verbs: any(), non_resource_urls: any(), ..Self::default() },
        ]
    }

    /// Whether the rule allows this request.
    pub fn allows(&self, info: &RequestInfo) -> bool {
        if !has(&self.verbs, &info.verb) {
            return false;
        }
        match &info.resource {
            None => self.non_resource_urls.iter().any(|pattern| path_matches(pattern, &info.path)),
            Some(resource) => {
                has(&self.api_groups, &resource.group)
                    && self.names_resource(&resource.resource, &resource.subresource)
                    && (self.resource_names.is_empty() || self.resource_names.contains(&resource.name))
            }
        }
    }

    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|own| {
            if own == "*" {
                return true;
            }
            match (own.split_once('/'), subresource) {
                (None, "") => own == resource,
                (None, _) => false,
                (Some(_), "") => false,
                // `*/scale` is the scale of anything.
                (Some((parent, child)), sub) => child == sub && (parent == resource || parent == "*"),
            }
        })
    }

    /// The rule taken apart: one verb, group, resource and name each.
    fn atoms(&self) -> impl Iterator<Item = Self> + '_ {
        let names: Vec<Option<&String>> = match self.resource_names.as_slice() {
            [] => vec![None],
            names => names.iter().map(Some).collect(),
        };
        self.verbs.iter().flat_map(move |verb| {
            let names = names.clone();
            let resources = self.api_groups.iter().flat_map(move |group| {
                let names = names.clone();
                self.resources.iter().flat_map(move |resource| {
                    names.clone().into_iter().map(move |name| Self {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        resource_names: name.into_iter().cloned().collect(),
                        ..Self::default()
                    })
                })
            });
            let urls = self.non_resource_urls.iter().map(move |url| Self {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..Self::default()
            });
            resources.chain(urls)
        })
    }

    /// What a rule about resources is about.
    fn subject_of(&self) -> (&[String], &[String], &[String]) {
        (&self.api_groups, &self.resources, &self.resource_names)
    }

    /// As upstream's `CompactString` prints it.
    pub fn printed(&self) -> String {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts = lists.iter().filter(|(_, list)| !list.is_empty());
        let parts: Vec<String> = parts.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
        format!("{{{}}}", parts.join(", "))
    }

    fn covers_atom(&self, atom: &Self) -> bool {
        let within = |own: &[String], wanted: &[String]| wanted.iter().all(|item| has(own, item));
        if !within(&self.verbs, &atom.verbs) {
            return false;
        }
        if let [url] = atom.non_resource_urls.as_slice() {
            return self.non_resource_urls.iter().any(|own| own == url || path_matches(own, url));
        }
        let named = match atom.resource_names.as_slice() {
            [] => self.resource_names.is_empty(),
            names => {
                self.resource_names.is_empty() || names.iter().all(|name| self.resource_names.contains(name))
            }
        };
        let resource = atom.resources.first().map_or("", String::as_str);
        let (parent, child) = resource.split_once('/').unwrap_or((resource, ""));
        named && within(&self.api_groups, &atom.api_groups) && self.names_resource(parent, child)
    }
}

/// Whether these rules together hold all of those.
pub fn cover(held: &[Arc<Vec<Rule>>], wanted: &[Rule]) -> bool {
    missing(held, wanted).is_empty()
}

/// What of `wanted` these rules do not hold, with what is about the same resource put together
/// (`validation.Covers` and `CompactRules`).
pub fn missing(held: &[Arc<Vec<Rule>>], wanted: &[Rule]) -> Vec<Rule> {
    let covered = |atom: &Rule| held.iter().any(|rules| rules.iter().any(|rule| rule.covers_atom(atom)));
    let mut lacking: Vec<Rule> = Vec::new();
    for atom in wanted.iter().flat_map(Rule::atoms).filter(|atom| !covered(atom)) {
        let same =
            |rule: &&mut Rule| rule.non_resource_urls.is_empty() && rule.subject_of() == atom.subject_of();
        match lacking.iter_mut().find(same).filter(|_| atom.non_resource_urls.is_empty()) {
            Some(rule) if rule.verbs.contains(&atom.verbs[0]) => {}
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => lacking.push(atom),
        }
    }
    lacking
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix.trim_end_matches('*')),
        None => pattern == path,
    }
}
