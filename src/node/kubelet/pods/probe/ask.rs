//! Asking a container how it is: by HTTP, TCP, gRPC, or a command in it (`pkg/probe`).

use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::time::timeout;

use super::super::env::expand;
use super::super::step::go_duration;
use super::{Outcome, grpc};
use crate::net::{BoxStream, Dial, Direct, Protocols, TlsDialer, Verify, client_config, go_text};
use crate::node::shim::{Runtime, ShimError};

/// As much of a command's output is looked at.
const MOST_OUTPUT: usize = 10 * 1024;

/// A running container that can be asked.
#[derive(Debug, Clone)]
pub struct Subject {
    pub runtime: Runtime,
    pub sandbox: String,
    pub container: Container,
    pub id: String,
    /// The pod's address.
    pub address: String,
}

impl Subject {
    pub(super) async fn ask(&self, probe: &Probe, limit: Duration) -> Outcome {
        if let Some(exec) = &probe.exec {
            return self.exec(exec, limit).await;
        }
        if let Some(get) = &probe.http_get {
            let url = self.url(get);
            return match timeout(limit, self.http(get, &url)).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Failure(format!(
                    "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                )),
            };
        }
        if let Some(socket) = &probe.tcp_socket {
            let host = socket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.address);
            let port = self.port(&socket.port);
            return match timeout(limit, Direct.dial(host, port)).await {
                Ok(Ok(_)) => Outcome::Success,
                Ok(Err(error)) => Outcome::Failure(error.to_string()),
                Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
            };
        }
        match &probe.grpc {
            Some(action) => {
                let port = u16::try_from(action.port).unwrap_or(0);
                let service = action.service.as_deref().unwrap_or_default();
                match grpc::check(&self.address, port, service, limit).await {
                    Ok(()) => Outcome::Success,
                    Err(why) => Outcome::Failure(why),
                }
            }
            None => Outcome::Errored(format!("missing probe handler for {}", self.container.name)),
        }
    }

    /// A command's exit code decides; what it printed is the reason.
    async fn exec(&self, action: &ExecAction, limit: Duration) -> Outcome {
        let command = self.expanded(action.command.as_deref().unwrap_or_default());
        match self.runtime.exec_sync(&self.sandbox, &self.id, &command, Some(limit)).await {
            Ok(output) if output.exit_code == 0 => Outcome::Success,
            Ok(output) => {
                let mut text = output.text();
                text.truncate(MOST_OUTPUT);
                Outcome::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            Err(ShimError::TimedOut { command, within }) => Outcome::Failure(format!(
                "command timed out: {command:?} timed out after {}",
                go_duration(within)
            )),
            Err(error) => Outcome::Errored(format!("rpc error: code = Unknown desc = {error}")),
        }
    }

    /// With the container's own plain variables; those from elsewhere are left as they are written.
    fn expanded(&self, command: &[String]) -> Vec<String> {
        let plain = |name: &str| {
            let mut all = self.container.env.iter().flatten().rev();
            all.find(|variable| variable.name == name && variable.value_from.is_none())
                .map(|variable| variable.value.clone().unwrap_or_default())
        };
        command.iter().map(|word| expand(word, plain)).collect()
    }

    fn port(&self, port: &IntOrString) -> u16 {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named =
                    self.container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port).or_else(|| name.parse().ok())
            }
        };
        number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
    }

    pub fn url(&self, get: &HTTPGetAction) -> String {
        let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.address);
        let path = get.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{scheme}://{host}:{}{slash}{path}", self.port(&get.port))
    }

    async fn http(&self, get: &HTTPGetAction, url: &str) -> Outcome {
        match fetch(get, url, "kube-probe/1.36").await {
            Ok(status) if (200..400).contains(&status) => Outcome::Success,
            Ok(status) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(error) => Outcome::Failure(format!("Get \"{url}\": {}", go_text(&*error))),
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks a URL in the name of `agent`; the status.
pub async fn fetch(get: &HTTPGetAction, url: &str, agent: &str) -> Result<u16, Failure> {
    let uri: http::Uri = url.parse()?;
    let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(0));
    let stream: BoxStream = match get.scheme.as_deref() {
        // Upstream's probes and hooks verify no certificate either.
        Some("HTTPS") => {
            let config = client_config(&Verify::Unverified, None, Protocols::H1)?;
            Box::new(TlsDialer { road: Arc::new(Direct), config }.connect(&host, port, None).await?)
        }
        _ => Direct.dial(&host, port).await?,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::USER_AGENT, agent)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
    let status = response.status().as_u16();
    // The body is not read to its end: only the status counts.
    let _ = timeout(Duration::from_millis(50), response.into_body().frame()).await;
    driver.abort();
    Ok(status)
}
