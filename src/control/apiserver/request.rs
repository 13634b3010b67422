//! What a request asks for, read from its method, path and query alone
//! (`k8s.io/apiserver/pkg/endpoints/request`).

use http::Method;

pub use crate::api::percent::unescape;

/// One request, taken apart. Authorization, admission, audit and the handlers all read this value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestInfo {
    /// `get list watch create update patch delete deletecollection`; for other paths the method in lower case.
    pub verb: String,
    pub path: String,
    /// Set when the path names a resource.
    pub resource: Option<ResourceRequest>,
}

/// The resource half of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceRequest {
    pub group: String,
    pub version: String,
    /// Empty for cluster scope and across all namespaces. As upstream, a request for the Namespace `x`
    /// itself carries `x` here too.
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    /// Also set for a list or watch whose field selector pins `metadata.name`.
    pub name: String,
    /// The path below a subresource that has one (`proxy`).
    pub rest: String,
    /// As sent, for authorizers and handlers.
    pub field_selector: String,
    pub label_selector: String,
}

/// A query string, decoded, in the order sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (form(k), form(v)))
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name, nothing when it is absent or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Every value of a name (`dryRun`, `command`).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A flag as upstream's query conversion reads one: present is true unless it says false or 0.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, "false" | "False" | "FALSE" | "0"))
    }
}

/// Undoes `+` and percent escapes of a form value.
fn form(text: &str) -> String {
    match text.contains('+') {
        true => unescape(&text.replace('+', " ")),
        false => unescape(text),
    }
}

impl RequestInfo {
    /// Takes a request apart. Never fails: what names no resource is a request for a path.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        // As Go does, before anything is read off it: `/%76ersion` is `/version`.
        let path = &unescape(path);
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let other =
            || Self { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned(), resource: None };
        let (group, version, mut rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest.to_vec()),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest.to_vec()),
            _ => return other(),
        };
        let mut verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        if rest[0] == "watch" && rest.len() > 1 {
            (verb, rest) = ("watch", rest.split_off(1));
        }
        let mut asked =
            ResourceRequest { group: group.into(), version: version.into(), ..Default::default() };
        if rest[0] == "namespaces" && rest.len() > 1 {
            asked.namespace = rest[1].to_owned();
            if rest.len() > 2 && !matches!(rest[2], "status" | "finalize") {
                rest = rest.split_off(2);
            }
        }
        asked.resource = rest[0].to_owned();
        asked.name = rest.get(1).copied().unwrap_or_default().to_owned();
        asked.subresource = rest.get(2).copied().unwrap_or_default().to_owned();
        asked.rest = rest.get(3..).unwrap_or_default().join("/");
        let verb = collection_verb(verb, &mut asked, query);
        Self { verb: verb.into(), path: path.to_owned(), resource: Some(asked) }
    }
}

/// Without a name, GET is a list or a watch and DELETE a deletecollection; these carry selectors.
fn collection_verb(verb: &'static str, asked: &mut ResourceRequest, query: &Query) -> &'static str {
    let verb = match verb {
        "get" if asked.name.is_empty() && query.flag("watch") => "watch",
        "get" if asked.name.is_empty() => "list",
        "delete" if asked.name.is_empty() => "deletecollection",
        verb => verb,
    };
    if matches!(verb, "list" | "watch" | "deletecollection") {
        asked.field_selector = query.get("fieldSelector").unwrap_or_default().to_owned();
        asked.label_selector = query.get("labelSelector").unwrap_or_default().to_owned();
        let terms = asked.field_selector.split(',');
        let pinned = terms.filter_map(|term| term.trim().strip_prefix("metadata.name=")).next();
        // Not for a deletion, which a role for one name would then allow.
        if let (Some(name), true, true) = (pinned, asked.name.is_empty(), verb != "deletecollection") {
            asked.name = name.trim_start_matches('=').to_owned();
        }
    }
    verb
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, target: &str) -> RequestInfo {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    #[test]
    fn requests_are_read_as_upstream_reads_them() {
        for (method, target, want) in [
            (Method::GET, "/api/v1/namespaces", "list  /namespaces/"),
            (Method::GET, "/api/v1/namespaces/a", "get a /namespaces/a"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update a /namespaces/a finalize"),
            (Method::GET, "/api/v1/namespaces/a/pods", "list a /pods/"),
            (Method::GET, "/api/v1/pods?watch=1", "watch  /pods/"),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch a /pods/"),
            (Method::GET, "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp", "list a /pods/p"),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection a apps/deployments/",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch a apps/deployments/d scale",
            ),
            (Method::POST, "/api/v1/nodes/n/proxy/run/x", "create  /nodes/n proxy run/x"),
        ] {
            let info = parse(method, target);
            let r = info.resource.unwrap();
            let got = format!(
                "{} {} {}/{}/{} {} {}",
                info.verb, r.namespace, r.group, r.resource, r.name, r.subresource, r.rest
            );
            assert_eq!(got.trim_end(), want, "{target}");
        }
    }

    #[test]
    fn group_and_version_alone_name_no_resource() {
        for target in ["/", "/api", "/api/v1", "/apis/apps/v1", "/version", "/healthz/ping"] {
            assert_eq!(parse(Method::GET, target).resource, None, "{target}");
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(unescape("a%2Fb%zz%"), "a/b%zz%");
        assert_eq!(Query::parse(Some("x=a+b%20c&x=d&w")).all("x").collect::<Vec<_>>(), ["a b c", "d"]);
        assert!(Query::parse(Some("w")).flag("w"));
    }
}
