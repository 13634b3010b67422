//! `pods/exec`, `pods/attach` and `pods/portforward`: to the kubelet of the pod's node
//! (`pkg/registry/core/pod/rest/subresources.go`, `strategy.go`).
//!
//! Three ways lead there. A kubelet that declares `ExtendWebSocketsToKubelet` gets a WebSocket as it came;
//! for one that does not, WebSockets are translated to SPDY; everything else is passed on untouched.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;

use super::backend::Answer;
use super::commands::Commands;
use super::museum::Museum;
use super::upgrade::Verdict;
use super::{Client, headers, upgrade, websocket};
use crate::api::status::{Result, Status};
use crate::control::apiserver::features::{Feature, Features};
use crate::control::apiserver::kubelet::counts::ROUTED;
use crate::control::apiserver::kubelet::{Backend, KubeletClient, Location, Params, container_of, pod_of};
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::registry;
use crate::control::apiserver::request::{Query, ResourceRequest};

/// What a node says of itself when its kubelet reads WebSockets.
const DECLARED: &str = "ExtendWebSocketsToKubelet";

/// The way of streams through one listener.
pub struct Streams<'a> {
    pub kubelets: &'a KubeletClient,
    pub features: &'a Features,
    pub museum: Museum,
    pub commands: &'a Commands,
}

/// Which of the three is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exec,
    Attach,
    PortForward,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }

    /// What lets WebSockets of this kind be translated.
    fn gate(self) -> Feature {
        match self {
            Self::PortForward => Feature::PortForwardWebsockets,
            Self::Exec | Self::Attach => Feature::TranslateStreamCloseWebsocketRequests,
        }
    }
}

/// How a request gets to the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    AsItIs,
    /// A WebSocket that speaks v5, to SPDY.
    Translated,
    /// SPDY in a WebSocket, taken out of it.
    Untunnelled,
}

impl Streams<'_> {
    /// Finds out where the request goes and passes it on.
    pub async fn answer(&self, asked: &ResourceRequest, query: &Query, client: Client) -> Result<Response> {
        let kind = match asked.subresource.as_str() {
            "exec" => Kind::Exec,
            "attach" => Kind::Attach,
            _ => Kind::PortForward,
        };
        let (location, path) = self.find(asked, query, kind)?;
        self.count(kind, &location);
        match self.way(kind, &client.headers, &location) {
            Way::Translated => self.translate(location, path, query, client),
            Way::Untunnelled => self.untunnel(location, path, client).await,
            Way::AsItIs if kind == Kind::PortForward || crate::stream::is_websocket(&client.headers) => {
                self.pass(location, path, client).await
            }
            Way::AsItIs => self.follow(location, path, client).await,
        }
    }

    /// The kubelet, and what to ask it.
    fn find(&self, asked: &ResourceRequest, query: &Query, kind: Kind) -> Result<(Location, String)> {
        let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
        let row = registry::by_name("", "pods").ok_or_else(Status::no_such_path)?;
        let params = params(kind, query)?;
        let pod = pod_of(self.kubelets.store(), row, namespace, name)?;
        let container = match kind {
            Kind::PortForward => String::new(),
            _ => format!("/{}", container_of(&pod, query.get("container").unwrap_or_default())?),
        };
        let node = text(&pod, "/spec/nodeName");
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let verb = match kind {
            Kind::Exec => "exec",
            Kind::Attach => "attach",
            Kind::PortForward => "portForward",
        };
        let location = self.kubelets.locate(node)?;
        Ok((location, format!("/{verb}/{namespace}/{name}{container}{params}")))
    }

    fn way(&self, kind: Kind, headers: &HeaderMap, kubelet: &Location) -> Way {
        if self.reads_websockets(kubelet) || !self.features.enabled(kind.gate()) {
            return Way::AsItIs;
        }
        match kind {
            Kind::PortForward if websocket::tunnels(headers) => Way::Untunnelled,
            Kind::Exec | Kind::Attach if websocket::closes_streams(headers) => Way::Translated,
            _ => Way::AsItIs,
        }
    }

    fn reads_websockets(&self, kubelet: &Location) -> bool {
        self.features.enabled(Feature::ExtendWebSocketsToKubelet) && kubelet.declares(DECLARED)
    }

    /// Counts where a WebSocket would go, as upstream does before it looks whether this is one.
    fn count(&self, kind: Kind, kubelet: &Location) {
        if self.features.enabled(kind.gate()) {
            let how = match self.reads_websockets(kubelet) {
                true => "proxied_to_kubelet",
                false => "translated_at_apiserver",
            };
            self.kubelets.counts.add(ROUTED, &[("proxy_type", how), ("subresource", kind.name())]);
        }
    }

    async fn pass(&self, to: Location, path: String, client: Client) -> Result<Response> {
        match self.ask(to, &path, &client).await? {
            Verdict::Refused(response) => Ok(response),
            Verdict::Accepted(answer) => {
                Ok(upgrade::joined(*answer, client.upgrade.ok_or_else(upgrade::no_connection)?))
            }
        }
    }

    /// exec and attach by SPDY.
    async fn follow(&self, to: Location, path: String, client: Client) -> Result<Response> {
        let mut answer = match self.ask(to, &path, &client).await? {
            Verdict::Refused(response) => return Ok(response),
            Verdict::Accepted(answer) => *answer,
        };
        let upgraded = client.upgrade.ok_or_else(upgrade::no_connection)?;
        let backend = hyper::upgrade::on(&mut answer.response);
        let protocol = answer.response.headers().get("x-stream-protocol-version");
        let protocol = protocol.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (Answer { response, sender, connection }, commands) = (answer, self.commands.clone());
        self.commands.spawn(async move {
            let _until_then = (sender, connection);
            if let Ok((client, backend)) = tokio::try_join!(upgraded, backend) {
                commands.carry(TokioIo::new(client), TokioIo::new(backend), &protocol).await;
            }
        });
        Ok(response.map(|_| Body::empty()))
    }

    /// Asks the kubelet for the upgrade.
    async fn ask(&self, to: Location, path: &str, client: &Client) -> Result<Verdict> {
        if !upgrade::is_wanted(&client.headers) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let request = request(client.method.clone(), path, headers::onward(client))?;
        let stream =
            self.kubelets.connect(&to, Backend::AsConfigured).await.map_err(|error| dialing(&error))?;
        upgrade::accepted(upgrade::ask(stream, request).await?, client, &self.museum).await
    }
}

/// A request without a body.
pub(super) fn request(method: Method, path: &str, headers: HeaderMap) -> Result<Request<Body>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty())
        .map_err(|error| Status::new(500, "", format!("error sending request: {error}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Why a backend could not be reached, before anything was upgraded.
pub(super) fn dialing(error: &dyn std::fmt::Display) -> Status {
    Status::new(500, "", format!("error dialing backend: {error}"))
}

/// The API's options under the kubelet's names (`streamParams`).
fn params(kind: Kind, query: &Query) -> Result<Params> {
    let mut params = Params::default();
    if kind == Kind::PortForward {
        let ports = ports(query)?;
        if !ports.is_empty() {
            params.add("port", &ports.join(","));
        }
        return Ok(params);
    }
    if kind == Kind::Exec {
        query.all("command").for_each(|word| params.add("command", word));
    }
    for (name, own) in [("stderr", "error"), ("stdin", "input"), ("stdout", "output"), ("tty", "tty")] {
        if query.flag(name) {
            params.add(own, "1");
        }
    }
    Ok(params)
}

/// Ports as numbers, one or several a parameter.
fn ports(query: &Query) -> Result<Vec<String>> {
    let words = query.all("ports").flat_map(|value| value.split(','));
    words
        .map(|word| {
            let complaint = |why| Status::bad_request(format!("strconv.ParseInt: parsing {word:?}: {why}"));
            match word.parse::<i32>() {
                Ok(port) => Ok(port.to_string()),
                Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => {
                    Err(complaint("value out of range"))
                }
                Err(_) => Err(complaint("invalid syntax")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, query: &str) -> String {
        params(kind, &Query::parse(Some(query))).unwrap().to_string()
    }

    #[test]
    fn options_go_on_under_the_kubelets_names_sorted_as_go_sorts_them() {
        assert_eq!(
            of(
                Kind::Exec,
                "container=a&command=sh&command=-c&command=a%20b&stdin=true&stdout=1&stderr=false&tty="
            ),
            "?command=sh&command=-c&command=a+b&input=1&output=1&tty=1"
        );
        assert_eq!(of(Kind::Attach, "command=sh&stderr=true"), "?error=1");
        assert_eq!(of(Kind::PortForward, "ports=80&ports=81,82"), "?port=80%2C81%2C82");
        assert_eq!(of(Kind::Exec, ""), "");
    }

    #[test]
    fn a_port_that_is_no_number_is_refused_in_gos_words() {
        let error = ports(&Query::parse(Some("ports=http"))).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (400, "strconv.ParseInt: parsing \"http\": invalid syntax")
        );
    }
}
