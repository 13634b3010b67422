//! `POST /run/NAMESPACE/POD[/UID]/CONTAINER?cmd=…`: a command's output as the answer's body.
//!
//! The oldest way to run something in a container, and the handiest for whoever finds a kubelet open. The
//! command may also be a form's field (`curl -d cmd=id`): upstream asks Go's `FormValue`, which prefers it.

use axum::body::Body;
use axum::extract::Query;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::Kubelet;
use super::call::{Call, json, text};
use super::streaming;

/// Go reads no longer form.
const LARGEST: usize = 10 << 20;

pub async fn run(me: &Kubelet, call: &Call, body: Body, below: &[String]) -> Response {
    let target = match streaming::target(me, below) {
        Ok(target) => target,
        Err(refused) => return refused,
    };
    let sent = if is_form(&call.parts.headers) { field(body).await } else { None };
    let words = sent.as_deref().or(call.parameter("cmd")).unwrap_or_default();
    let command: Vec<String> = words.split(' ').map(str::to_owned).collect();
    match me.runtime.exec_sync(&target.sandbox, &target.container, &command, None).await {
        Ok(output) if output.exit_code == 0 && output.text().is_empty() => text(StatusCode::OK, ""),
        Ok(output) if output.exit_code == 0 => json(output.text()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let body = format!("command '{words}' exited with {}: {said}", output.exit_code);
            text(StatusCode::INTERNAL_SERVER_ERROR, body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let name = kind.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The field `cmd` of a form. People send it raw as well as escaped (`-d 'cmd=ls /'`), and Go takes both.
async fn field(body: Body) -> Option<String> {
    let bytes = axum::body::to_bytes(body, LARGEST).await.ok()?;
    let mut form = "/?".to_owned();
    for byte in bytes {
        match byte {
            b'%' | b'&' | b'=' | b'+' => form.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => form.push(char::from(byte)),
            _ => form.push_str(&format!("%{byte:02x}")),
        }
    }
    let Query(fields) = Query::<Vec<(String, String)>>::try_from_uri(&form.parse().ok()?).ok()?;
    fields.into_iter().find(|(name, _)| name == "cmd").map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_read_from_a_form_and_from_nothing_else() {
        let headers = |kind: &'static str| {
            HeaderMap::from_iter([(CONTENT_TYPE, axum::http::HeaderValue::from_static(kind))])
        };
        assert!(is_form(&headers("application/x-www-form-urlencoded; charset=utf-8")));
        assert!(!is_form(&headers("text/plain")) && !is_form(&HeaderMap::new()));
        assert_eq!(field(Body::from("x=1&cmd=ls+-l%20/")).await.as_deref(), Some("ls -l /"));
        assert_eq!(field(Body::from("cmd=ls \"/a b\"")).await.as_deref(), Some("ls \"/a b\""));
        assert_eq!(field(Body::from("ls")).await, None);
    }
}
