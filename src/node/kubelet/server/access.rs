//! The door of :10250: who calls, and may they (`InstallAuthFilter`, `pkg/kubelet/server/auth.go`).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::client::delegated::{Answer, Asked, Authentication, Authorization};
use crate::net::Peer;

pub struct Door {
    pub node: String,
    pub authentication: Authentication,
    /// Nothing: `AlwaysAllow`.
    pub authorization: Option<Authorization>,
}

/// Lets a request in, or answers it.
pub async fn check(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let certificates = request.extensions().get::<Peer>().map(|peer| Arc::clone(&peer.certificates));
    let certificates = certificates.as_deref().unwrap_or_default();
    let Some(caller) = door.authentication.authenticate(request.headers(), certificates).await else {
        return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    };
    let Some(authorization) = &door.authorization else { return next.run(request).await };
    let (verb, subresources) = attributes(request.method(), request.uri().path());
    let text = format!(
        "(user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
        caller.name,
        subresources.join(" ")
    );
    for subresource in subresources {
        let asked = Asked::Resource {
            verb: verb.into(),
            group: String::new(),
            version: "v1".into(),
            resource: "nodes".into(),
            subresource: (*subresource).into(),
            namespace: String::new(),
            name: door.node.clone(),
        };
        match authorization.authorize(&caller, &asked).await {
            Answer::Allowed => return next.run(request).await,
            Answer::Denied { .. } => {}
            Answer::Failed { error } => {
                tracing::error!(error, user = caller.name, "Authorization error");
                let body = format!("Authorization error {text}");
                return (StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
            }
        }
    }
    tracing::debug!(user = caller.name, verb, "Forbidden");
    (StatusCode::FORBIDDEN, format!("Forbidden {text}")).into_response()
}

/// Verb and the subresources of `nodes` that may allow it, in order (fine-grained authorization).
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
