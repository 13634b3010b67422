//! The door of :10250: who calls, and may they (`InstallAuthFilter`, `pkg/kubelet/server/auth.go`).

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;

use super::call::text;
use crate::client::delegated::{Answer, Asked, Authentication, Authorization};
use crate::net::Peer;

pub struct Door {
    pub node: String,
    pub authentication: Authentication,
    /// Nothing: `AlwaysAllow`.
    pub authorization: Option<Authorization>,
}

impl Door {
    /// Lets a request in, or says what to answer.
    pub async fn check(&self, parts: &Parts, path: &str) -> Result<(), Response> {
        let certificates = parts.extensions.get::<Peer>().map(|peer| peer.certificates.as_ref());
        let certificates = certificates.unwrap_or_default();
        let Some(caller) = self.authentication.authenticate(&parts.headers, certificates).await else {
            return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
        };
        let Some(authorization) = &self.authorization else { return Ok(()) };
        let (verb, subresources) = attributes(&parts.method, path);
        for subresource in subresources {
            let asked = Asked::Resource {
                verb: verb.into(),
                group: String::new(),
                version: "v1".into(),
                resource: "nodes".into(),
                subresource: (*subresource).into(),
                namespace: String::new(),
                name: self.node.clone(),
            };
            match authorization.authorize(&caller, &asked).await {
                Answer::Allowed => return Ok(()),
                Answer::Denied { .. } => {}
                Answer::Failed { error } => {
                    tracing::error!(error, user = caller.name, verb, subresource, "Authorization error");
                    let name = &caller.name;
                    let body = format!(
                        "Authorization error (user={name}, verb={verb}, resource=nodes, subresource={subresource})"
                    );
                    return Err(text(StatusCode::INTERNAL_SERVER_ERROR, body));
                }
            }
        }
        tracing::debug!(user = caller.name, verb, "Forbidden");
        // The newline is upstream's.
        let (name, tried) = (&caller.name, subresources.join(" "));
        let body =
            format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{tried}])\n");
        Err(text(StatusCode::FORBIDDEN, body))
    }
}

/// Verb and the subresources of `nodes` that may allow it, in order (fine-grained authorization).
///
/// # Warning
///
/// A WebSocket's exec is a GET, so `get` on `nodes/proxy` runs commands. Upstream's rule, kept.
fn attributes(method: &Method, path: &str) -> (&'static str, &'static [&'static str]) {
    let verb = match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    let below =
        |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    const TABLE: &[(&str, &[&str])] = &[
        ("/stats", &["stats"]),
        ("/metrics", &["metrics"]),
        ("/logs", &["log"]),
        ("/checkpoint", &["checkpoint"]),
        ("/statusz", &["statusz"]),
        ("/flagz", &["configz"]),
        ("/pods", &["pods", "proxy"]),
        ("/runningpods", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
    ];
    let row = TABLE.iter().find(|(root, _)| below(root));
    (verb, row.map_or(&["proxy"], |(_, subresources)| subresources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_to_upstreams_subresources_and_head_has_no_verb() {
        let of = |method: Method, path: &str| {
            let (verb, subresources) = attributes(&method, path);
            format!("{verb} {}", subresources.join(" "))
        };
        assert_eq!(of(Method::GET, "/pods"), "get pods proxy");
        assert_eq!(of(Method::POST, "/run/a/b/c"), "create proxy");
        assert_eq!(of(Method::GET, "/metrics/cadvisor"), "get metrics");
        assert_eq!(of(Method::GET, "/metricsx"), "get proxy");
        assert_eq!(of(Method::HEAD, "/healthz"), " healthz proxy");
        assert_eq!(of(Method::GET, "/exec/a/b/c"), "get proxy");
    }
}
