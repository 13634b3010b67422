//! `POST /run/NAMESPACE/POD[/UID]/CONTAINER?cmd=…`: a command's output as the answer's body.
//!
//! The oldest way to run something in a container, and the handiest for whoever finds a kubelet open.

use axum::http::StatusCode;
use axum::response::Response;

use super::Kubelet;
use super::call::{Call, json, text};
use super::streaming;

pub async fn run(me: &Kubelet, call: &Call, below: &[String]) -> Response {
    let target = match streaming::target(me, below) {
        Ok(target) => target,
        Err(refused) => return refused,
    };
    let words = call.parameter("cmd").unwrap_or_default();
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
