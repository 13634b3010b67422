//! Which form of port forwarding a request asks for, and serving it.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use super::super::upgrade::{negotiate_spdy, negotiate_websocket, websocket_protocols};
use super::super::{Connection, IDLE, Refusal, StreamError, is_websocket, spdy, websocket};
use super::{PROTOCOL, Target, channels, pairs};

/// kubectl's subprotocol: each binary message is a piece of a SPDY connection.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &[&str] = &["", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// A channel number is a byte, and each port takes two.
const MOST_PORTS: usize = 127;

#[derive(Debug)]
enum Form {
    Spdy,
    Tunnel,
    Channels { base64: bool, ports: Vec<u16> },
}

/// A request that will be upgraded.
#[derive(Debug)]
pub struct Negotiated {
    form: Form,
    response: Response<()>,
    idle: Duration,
}

/// Whether a WebSocket request asks for SPDY inside (`IsWebSocketRequestWithTunnelingProtocol`).
pub fn wants_tunnel(headers: &HeaderMap) -> bool {
    let offered = websocket_protocols(headers);
    is_websocket(headers)
        && offered.iter().any(|name| name.starts_with("SPDY/3.1+") && name.ends_with(".k8s.io"))
}

/// Decides how to serve a request, or with which words to refuse it.
pub fn negotiate(parts: &Parts) -> Result<Negotiated, Refusal> {
    if wants_tunnel(&parts.headers) {
        let (_, response) = negotiate_websocket(parts, &[TUNNEL])?;
        return Ok(Negotiated { form: Form::Tunnel, response, idle: IDLE });
    }
    if is_websocket(&parts.headers) {
        let ports = ports(parts.uri.query().unwrap_or_default())
            .map_err(|text| Refusal::error(StatusCode::BAD_REQUEST, text))?;
        let (chosen, response) = negotiate_websocket(parts, CHANNELS)?;
        return Ok(Negotiated {
            form: Form::Channels { base64: chosen.contains("base64"), ports },
            response,
            idle: IDLE,
        });
    }
    let (_, response) = negotiate_spdy(&parts.headers, &[PROTOCOL])?;
    Ok(Negotiated { form: Form::Spdy, response, idle: IDLE })
}

impl Negotiated {
    /// The 101 to answer with.
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.response.status();
        *response.headers_mut() = self.response.headers().clone();
        response
    }

    /// Closes the connection once nothing has come for so long.
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Serves until the client is gone. `connect` makes a connection to a port inside the pod's network
    /// namespace; its error's text reaches the user. Dropping the future ends every forwarded connection.
    pub async fn serve<C, F, S, E>(
        self,
        io: impl Connection,
        target: Target,
        connect: C,
    ) -> Result<(), StreamError>
    where
        C: Fn(u16) -> F + Clone + Send + 'static,
        F: Future<Output = Result<S, E>> + Send + 'static,
        S: Connection,
        E: Display + Send + 'static,
    {
        match self.form {
            Form::Spdy => pairs::serve(spdy::Session::server_idle(io, self.idle), target, connect).await,
            Form::Tunnel => {
                let tunnel = websocket::Tunnel::server(io).await;
                pairs::serve(spdy::Session::server_idle(tunnel, self.idle), target, connect).await
            }
            Form::Channels { base64, ports } => {
                channels::serve(io, base64, ports, target, connect, self.idle).await
            }
        }
    }
}

/// The ports of `?port=80&port=81,82`, in upstream's words when there is something wrong with them.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let values: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("port=")).collect();
    if values.is_empty() {
        return Err("query parameter \"port\" is required".into());
    }
    let mut ports = Vec::new();
    for value in values {
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        let value = value.replace("%2C", ",").replace("%2c", ",");
        for number in value.split(',') {
            let port = parse(number).map_err(|why| format!("unable to parse {value:?} as a port: {why}"))?;
            if port == 0 {
                return Err(format!("port {value:?} must be > 0"));
            }
            ports.push(port);
        }
    }
    if ports.len() > MOST_PORTS {
        return Err(format!("at most {MOST_PORTS} ports can be forwarded over one connection"));
    }
    Ok(ports)
}

/// Go's `strconv.ParseUint(number, 10, 16)` and its errors.
pub(super) fn parse(number: &str) -> Result<u16, String> {
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    match number.parse() {
        Ok(port) if digits => Ok(port),
        _ => Err(format!("strconv.ParseUint: parsing {number:?}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn websocket(protocol: &str) -> Vec<(&'static str, &str)> {
        vec![
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", protocol),
        ]
    }

    #[test]
    fn ports_are_read_and_refused_as_upstream_does() {
        assert_eq!(ports("port=80&x=1&port=81,82"), Ok(vec![80, 81, 82]));
        assert_eq!(ports("").unwrap_err(), "query parameter \"port\" is required");
        assert_eq!(ports("port=").unwrap_err(), "query parameter \"port\" cannot be empty");
        assert_eq!(
            ports("port=a").unwrap_err(),
            "unable to parse \"a\" as a port: strconv.ParseUint: parsing \"a\": invalid syntax"
        );
        assert_eq!(
            ports("port=70000").unwrap_err(),
            "unable to parse \"70000\" as a port: strconv.ParseUint: parsing \"70000\": value out of range"
        );
        assert_eq!(ports("port=0").unwrap_err(), "port \"0\" must be > 0");
        assert!(ports(&format!("port={}", vec!["1"; 128].join(","))).is_err());
    }

    #[test]
    fn each_client_gets_its_form() {
        let form = |parts: &Parts| negotiate(parts).map(|chosen| (chosen.form, chosen.response));
        let (tunnel, response) = form(&parts("/portForward/a/b", &websocket(TUNNEL))).unwrap();
        assert!(matches!(tunnel, Form::Tunnel));
        assert_eq!(response.headers()["sec-websocket-protocol"], TUNNEL);
        let plain = parts("/portForward/a/b?port=80", &websocket("v4.base64.channel.k8s.io"));
        assert!(matches!(form(&plain).unwrap().0, Form::Channels { base64: true, .. }));
        let no_port = parts("/portForward/a/b", &websocket("v4.channel.k8s.io"));
        assert_eq!(form(&no_port).unwrap_err().body, "query parameter \"port\" is required\n");
        let other = parts("/portForward/a/b", &websocket("SPDY/3.1+other.k8s.io"));
        assert_eq!(form(&other).unwrap_err().status, 403);
        let spdy = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "portforward.k8s.io"),
        ];
        assert!(matches!(form(&parts("/portForward/a/b", &spdy)).unwrap().0, Form::Spdy));
    }
}
