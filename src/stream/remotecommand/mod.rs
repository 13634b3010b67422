//! Running a command in a container from afar: exec and attach, over WebSocket or SPDY.
//!
//! Stands for `k8s.io/kubelet/pkg/cri/streaming/remotecommand` (server), `client-go/tools/remotecommand`
//! (the SPDY client) and the API server's `StreamTranslatorHandler`. The protocols are `v5`, `v4` and the
//! older `channel.k8s.io` names; what differs between them is how standard input ends (v5 only) and
//! whether the error channel carries a `Status` (v4, v5) or plain text.
//!
//! A kubelet's handler: [`Options::from_query`], [`negotiate`], answer with [`Negotiated::response`], then
//! [`Negotiated::serve`] on the upgraded connection, then [`Streams::finish`].

mod client;
mod last_word;
mod outcome;
mod resize;
mod server;
#[cfg(test)]
mod tests;
mod translate;

pub use client::PROTOCOLS as SPDY_PROTOCOLS;
#[cfg(test)]
pub use client::connect;
pub use last_word::{FromClient, FromKubelet, last_word};
pub use outcome::Outcome;
pub use resize::Resizes;
pub use server::{Negotiated, Streams, negotiate};
pub use translate::translate;

use http::StatusCode;

use super::Refusal;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V1: &str = "channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const V1_BASE64: &str = "base64.channel.k8s.io";

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Options {
    /// From the kubelet's parameters (`input output error tty`, each exactly `1`). With a terminal,
    /// standard error is silently left out, as upstream does.
    pub fn from_query(query: &str) -> Result<Self, Refusal> {
        let on = |name: &str| {
            let first = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            first == Some("1")
        };
        let tty = on("tty");
        let options = Self { stdin: on("input"), stdout: on("output"), stderr: on("error") && !tty, tty };
        if options.stdin || options.stdout || options.stderr {
            return Ok(options);
        }
        let text = "you must specify at least 1 of stdin, stdout, stderr";
        Err(Refusal::error(StatusCode::BAD_REQUEST, text))
    }
}

#[cfg(test)]
mod options {
    use super::*;

    #[test]
    fn parameters_are_exactly_one_and_a_terminal_has_no_standard_error() {
        let options = Options::from_query("command=ls&input=1&output=1&error=1&tty=1").unwrap();
        assert_eq!(options, Options { stdin: true, stdout: true, stderr: false, tty: true });
        let options = Options::from_query("output=true&error=1").unwrap();
        assert_eq!(options, Options { stderr: true, ..Options::default() });
        let refusal = Options::from_query("stdout=1&output=0").unwrap_err();
        assert_eq!(refusal.body, "you must specify at least 1 of stdin, stdout, stderr\n");
        assert_eq!(refusal.status, 400);
    }
}
