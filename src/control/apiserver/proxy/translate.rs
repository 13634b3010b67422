//! WebSockets for kubelets that read only SPDY (`StreamTranslatorHandler`, `TunnelingHandler`).
//!
//! Exec and attach are answered before the kubelet is asked, so whatever fails then comes on the error
//! channel; port-forward asks first, and a failure is an ordinary answer.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::backend::{self, Answer};
use super::splice::splice;
use super::streams::{Streams, dialing, request};
use super::upgrade::{self, Verdict, no_connection};
use super::{Client, headers};
use crate::api::status::Result;
use crate::control::apiserver::kubelet::counts::{TRANSLATED, TUNNELLED};
use crate::control::apiserver::kubelet::{Backend, KubeletClient, Location};
use crate::control::apiserver::request::Query;
use crate::stream::remotecommand::{self, Negotiated, Options, Outcome, SPDY_PROTOCOLS};
use crate::stream::{portforward, websocket};

const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");
/// How much of a kubelet's refusal is repeated.
const REFUSAL: usize = 1 << 20;

impl Streams<'_> {
    /// Exec and attach: v5 on this side, whatever SPDY the kubelet chooses on the other.
    pub(super) fn translate(
        &self,
        to: Location,
        path: String,
        query: &Query,
        client: Client,
    ) -> Result<Response> {
        let on = |name| query.flag(name);
        let options =
            Options { stdin: on("stdin"), stdout: on("stdout"), stderr: on("stderr"), tty: on("tty") };
        let negotiated = match remotecommand::negotiate(&parts(&client)) {
            Ok(negotiated) => negotiated,
            Err(refusal) => {
                self.kubelets.counts.add(TRANSLATED, &[("code", "400")]);
                return Ok(refusal.response());
            }
        };
        let upgraded = client.upgrade.ok_or_else(no_connection)?;
        let response = negotiated.response().map(|()| Body::empty());
        let work = Translation { kubelets: self.kubelets.clone(), to, path, options };
        tokio::spawn(work.run(negotiated, upgraded));
        Ok(response)
    }

    /// Port-forward: SPDY comes in the WebSocket's messages and goes on without them.
    pub(super) async fn untunnel(&self, to: Location, path: String, client: Client) -> Result<Response> {
        let answer = self.tunnel(to, path, client).await;
        let code = answer.as_ref().map_or_else(|status| status.code, |answer| answer.status().as_u16());
        self.kubelets.counts.add(TUNNELLED, &[("code", &code.to_string())]);
        answer
    }

    async fn tunnel(&self, to: Location, path: String, client: Client) -> Result<Response> {
        let negotiated = match portforward::negotiate(&parts(&client)) {
            Ok(negotiated) => negotiated,
            Err(refusal) => return Ok(refusal.response()),
        };
        let request = request(Method::POST, &path, as_spdy(headers::onward(&client)))?;
        let stream =
            self.kubelets.connect(&to, Backend::AsConfigured).await.map_err(|error| dialing(&error))?;
        let answer = upgrade::ask(stream, request).await?;
        let mut answer = match upgrade::accepted(answer, &client, &self.museum).await? {
            Verdict::Accepted(answer) => *answer,
            Verdict::Refused(response) => return Ok(response),
        };
        let upgraded = client.upgrade.ok_or_else(no_connection)?;
        let backend = hyper::upgrade::on(&mut answer.response);
        tokio::spawn(async move {
            let _until_then = answer;
            if let Ok((client, backend)) = tokio::try_join!(upgraded, backend) {
                let tunnel = websocket::Tunnel::server(TokioIo::new(client)).await;
                let outcome = splice(tunnel, TokioIo::new(backend)).await;
                tracing::debug!(?outcome, "a tunnel ended");
            }
        });
        Ok(negotiated.response().map(|()| Body::empty()))
    }
}

/// One translated command.
struct Translation {
    kubelets: KubeletClient,
    to: Location,
    path: String,
    options: Options,
}

impl Translation {
    async fn run(self, negotiated: Negotiated, upgraded: OnUpgrade) {
        let Ok(client) = upgraded.await else { return };
        let Ok(mut client) = negotiated.serve(TokioIo::new(client), self.options).await else { return };
        let asked = tokio::select! {
            asked = self.ask() => asked,
            () = client.closed.cancelled() => return,
        };
        let outcome = match asked {
            Ok((backend, protocol)) => {
                let backend = TokioIo::new(backend);
                remotecommand::translate(&mut client, backend, protocol.as_deref(), self.options).await
            }
            Err(outcome) => Some(outcome),
        };
        let Some(outcome) = outcome else { return };
        self.kubelets.counts.add(TRANSLATED, &[("code", &outcome.code().to_string())]);
        client.finish(outcome).await;
    }

    /// Asks the kubelet by SPDY; the connection and the protocol it chose, or what the client is told.
    async fn ask(&self) -> std::result::Result<(Upgraded, Option<String>), Outcome> {
        let sending = |url: String, error: String| {
            Outcome::Error(format!("error sending request: Post {url:?}: {error}"))
        };
        let url = || format!("https://{}{}", self.to, self.path);
        let stream = self.kubelets.connect(&self.to, Backend::AsConfigured).await;
        let stream = stream.map_err(|error| sending(url(), error.to_string()))?;
        let request = request(Method::POST, &self.path, self.headers())
            .map_err(|status| Outcome::Error(status.message))?;
        let mut answer = backend::ask(stream, request).await.map_err(|error| sending(url(), error))?;
        let head = answer.response.headers();
        let text = |name: HeaderName| head.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (protocol, elsewhere) = (text(VERSION), text(header::LOCATION));
        match (answer.response.status().as_u16(), elsewhere) {
            (101, _) => {
                let upgraded = hyper::upgrade::on(&mut answer.response).await;
                upgraded
                    .map(|upgraded| (upgraded, protocol))
                    .map_err(|error| Outcome::Error(error.to_string()))
            }
            (301 | 302 | 303 | 307 | 308, Some(elsewhere)) => {
                Err(sending(elsewhere, "redirect not allowed".into()))
            }
            _ => Err(refusal(answer).await),
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, SPDY);
        if let Ok(host) = HeaderValue::from_str(&self.to.to_string()) {
            headers.insert(header::HOST, host);
        }
        for name in SPDY_PROTOCOLS {
            headers.append(VERSION, HeaderValue::from_static(name));
        }
        headers
    }
}

/// A kubelet's refusal: its Status as it is, or its text.
async fn refusal(answer: Answer) -> Outcome {
    let body = Limited::new(answer.response.into_body(), REFUSAL).collect().await;
    let Ok(body) = body.map(|body| body.to_bytes()) else {
        return Outcome::Error(
            "unable to upgrade connection: unable to read error from server response".into(),
        );
    };
    match serde_json::from_slice::<Value>(&body) {
        Ok(status) if status["kind"] == "Status" => Outcome::Status(status),
        _ => {
            let text = String::from_utf8_lossy(&body);
            Outcome::Error(format!("unable to upgrade connection: {}", text.trim()))
        }
    }
}

/// A WebSocket request's headers as those of a request for SPDY (`createSPDYRequest`).
fn as_spdy(mut headers: HeaderMap) -> HeaderMap {
    let offered: Vec<String> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().strip_prefix("SPDY/3.1+").map(str::to_owned))
        .filter(|name| name.ends_with(".k8s.io"))
        .collect();
    for name in [
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_EXTENSIONS,
        VERSION,
    ] {
        headers.remove(name);
    }
    headers.insert(header::UPGRADE, SPDY);
    for name in offered.iter().filter_map(|name| HeaderValue::from_str(name).ok()) {
        headers.append(VERSION, name);
    }
    headers
}

/// The head of the client's request, as the stream codecs read it.
fn parts(client: &Client) -> http::request::Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = client.method.clone();
    parts.uri = client.uri.clone();
    parts.headers = client.headers.clone();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnels_request_becomes_one_for_spdy() {
        let headers = HeaderMap::from_iter([
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("x")),
            (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("SPDY/3.1+portforward.k8s.io")),
        ]);
        let spdy = as_spdy(headers);
        assert_eq!(spdy[header::UPGRADE], SPDY);
        assert_eq!(spdy[VERSION], "portforward.k8s.io");
        assert!(
            !spdy.contains_key(header::SEC_WEBSOCKET_PROTOCOL)
                && !spdy.contains_key(header::SEC_WEBSOCKET_KEY)
        );
    }
}
