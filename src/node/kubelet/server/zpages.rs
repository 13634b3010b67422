//! `/configz`, `/flagz`, `/statusz`: what holds, what was asked for, how long it has run.
//!
//! `k8s.io/component-base/zpages`. `/statusz` has no Go version to show.

use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;

use super::Kubelet;
use super::call::{json, text};
use super::routes::Mux;

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting \
                       compatibility guarantees and is for debugging purposes only.";

pub fn configz(me: &Kubelet) -> Response {
    json(me.config.configz().to_string())
}

pub fn flagz(me: &Kubelet) -> Response {
    let flags: String = me.config.flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    text(StatusCode::OK, format!("\nkubelet flagz\n{WARNING}\n\n{flags}"))
}

pub fn statusz(me: &Kubelet, mux: &Mux) -> Response {
    let up = Timestamp::now().duration_since(me.started).as_secs().max(0);
    let version = super::VERSION.trim_start_matches('v');
    let emulated = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
    let body = format!(
        "\nkubelet statusz\n{WARNING}\n\nStarted: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\n\
         Binary version: {version}\nEmulation version: {emulated}\nPaths: {paths}\n",
        started = me.started.strftime("%a %b %e %H:%M:%S UTC %Y"),
        hours = up / 3600,
        minutes = up / 60 % 60,
        seconds = up % 60,
        paths = mux.listed().join(" "),
    );
    text(StatusCode::OK, body)
}
