//! How a command ended, as the error channel says it.
//!
//! `v4` and `v5` carry a `metav1.Status` in JSON, in Go's field order; older protocols carry its message
//! and nothing on success. client-go reads `reason` and the `ExitCode` cause to set its own exit code.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the error channel will say.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Success,
    /// The command ran and ended with this code. `text` is what upstream puts after
    /// `command terminated with non-zero exit code: `; see [`Outcome::exited`].
    ExitCode {
        code: i32,
        text: String,
    },
    /// An internal error: `Internal error occurred: ` is put in front.
    Error(String),
    /// A whole Status, as one that came from another server.
    Status(Value),
}

#[derive(Serialize)]
struct Status<'a> {
    metadata: Empty,
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    message: &'a str,
}

/// What the client side needs of a Status that came.
#[derive(Deserialize)]
struct Received {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    details: Option<ReceivedDetails>,
}

#[derive(Deserialize)]
struct ReceivedDetails {
    #[serde(default)]
    causes: Vec<ReceivedCause>,
}

#[derive(Deserialize)]
struct ReceivedCause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Outcome {
    /// A command that ran to its end, in containerd's words; success if the code is 0.
    pub fn exited(code: i32, command: &[String]) -> Self {
        match code {
            0 => Self::Success,
            _ => Self::ExitCode {
                code,
                text: format!("error executing command [{}], exit code {code}", command.join(" ")),
            },
        }
    }

    /// The last bytes of the error channel: a Status for `v4` and later, else text.
    pub fn encode(&self, json: bool) -> Vec<u8> {
        match (self, json) {
            (Self::Success, false) => Vec::new(),
            (Self::Success, true) => status("Success", "", "", None, None),
            (Self::Status(value), true) => value.to_string().into_bytes(),
            (Self::ExitCode { code, .. }, true) => {
                let message = code.to_string();
                let cause = Cause { reason: "ExitCode", message: &message };
                status("Failure", &self.message(), "NonZeroExitCode", Some(cause), None)
            }
            (Self::Error(text), true) => {
                let cause = Cause { reason: "", message: text };
                status("Failure", &self.message(), "InternalError", Some(cause), Some(500))
            }
            (_, false) => self.message().into_bytes(),
        }
    }

    /// As an HTTP status: a command that ran to its end is well, whatever its exit code.
    pub fn code(&self) -> u16 {
        match self {
            Self::Success | Self::ExitCode { .. } => 200,
            Self::Error(_) => 500,
            Self::Status(value) => {
                value["code"].as_u64().and_then(|code| code.try_into().ok()).unwrap_or(500)
            }
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::ExitCode { text, .. } => format!("command terminated with non-zero exit code: {text}"),
            Self::Error(text) => format!("Internal error occurred: {text}"),
            Self::Status(value) => value["message"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// What a client makes of the error stream once it ended (`errorDecoderV4`).
    pub fn decode(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Success;
        }
        let received = match serde_json::from_slice::<Received>(bytes) {
            Ok(received) => received,
            Err(error) => {
                let text = String::from_utf8_lossy(bytes);
                return Self::Error(format!("error stream protocol error: {error} in {text:?}"));
            }
        };
        match (received.status.as_str(), received.reason.as_str()) {
            ("Success", _) => Self::Success,
            ("Failure", "NonZeroExitCode") => match received.exit_code() {
                Some(code) => Self::ExitCode {
                    code: i32::from(code),
                    text: format!("command terminated with exit code {code}"),
                },
                None => Self::Error("error stream protocol error: no ExitCode cause given".into()),
            },
            ("Failure", _) => Self::Error(received.message),
            _ => Self::Error("error stream protocol error: unknown error".into()),
        }
    }
}

impl Received {
    fn exit_code(&self) -> Option<u8> {
        let causes = &self.details.as_ref()?.causes;
        causes.iter().find(|cause| cause.reason == "ExitCode")?.message.parse().ok()
    }
}

fn status(status: &str, message: &str, reason: &str, cause: Option<Cause<'_>>, code: Option<u16>) -> Vec<u8> {
    let details = cause.map(|cause| Details { causes: [cause] });
    let whole = Status { metadata: Empty {}, status, message, reason, details, code };
    serde_json::to_vec(&whole).expect("strings and numbers have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_go_writes_it() {
        assert_eq!(Outcome::Success.encode(true), br#"{"metadata":{},"status":"Success"}"#);
        let seven = Outcome::exited(7, &["sh".into(), "-c".into(), "exit 7".into()]);
        assert_eq!(
            String::from_utf8(seven.encode(true)).unwrap(),
            "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: \
             error executing command [sh -c exit 7], exit code 7\",\"reason\":\"NonZeroExitCode\",\
             \"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"7\"}]}}"
        );
        assert_eq!(
            String::from_utf8(Outcome::Error("no".into()).encode(true)).unwrap(),
            "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Internal error occurred: no\",\
             \"reason\":\"InternalError\",\"details\":{\"causes\":[{\"message\":\"no\"}]},\"code\":500}"
        );
    }

    #[test]
    fn older_protocols_say_it_in_text() {
        assert_eq!(Outcome::Success.encode(false), b"");
        assert_eq!(Outcome::Error("no".into()).encode(false), b"Internal error occurred: no");
    }

    #[test]
    fn a_client_reads_back_what_a_server_wrote() {
        let seven = Outcome::decode(&Outcome::exited(7, &[]).encode(true));
        let text = "command terminated with exit code 7".to_owned();
        assert_eq!(seven, Outcome::ExitCode { code: 7, text });
        assert_eq!(Outcome::decode(&Outcome::Success.encode(true)), Outcome::Success);
        let error = Outcome::decode(&Outcome::Error("no".into()).encode(true));
        assert_eq!(error, Outcome::Error("Internal error occurred: no".into()));
        assert!(matches!(Outcome::decode(b"oh"), Outcome::Error(_)));
        assert!(matches!(Outcome::decode(br#"{"status":"Maybe"}"#), Outcome::Error(_)));
        assert!(matches!(
            Outcome::decode(br#"{"status":"Failure","reason":"NonZeroExitCode"}"#),
            Outcome::Error(_)
        ));
    }
}
