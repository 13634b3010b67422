//! `/healthz` and its checks (`k8s.io/apiserver/pkg/server/healthz`), and what `/metrics/slis` says of them.
//!
//! Upstream's `log` check asks whether klog's flush daemon lives; here every line is written at once, so it
//! always passes.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::Kubelet;
use super::call::{Call, http_error, text};
use crate::node::page::Page;

/// Upstream's names, in its order.
const CHECKS: &[&str] = &["ping", "log", "syncloop"];

/// How often each check passed and failed.
#[derive(Debug, Default)]
pub struct Verdicts([(AtomicU64, AtomicU64); CHECKS.len()]);

impl Verdicts {
    fn note(&self, check: &str, passed: bool) {
        if let Some(at) = CHECKS.iter().position(|name| *name == check) {
            let (good, bad) = &self.0[at];
            if passed { good } else { bad }.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All checks.
pub fn all(me: &Kubelet, call: &Call, checks: &[&str]) -> Response {
    let mut excluded: Vec<&str> = call.all("exclude").collect();
    excluded.sort_unstable();
    excluded.dedup();
    let (mut told, mut failed) = (String::new(), false);
    for check in checks {
        if let Some(at) = excluded.iter().position(|name| name == check) {
            excluded.remove(at);
            told += &format!("[+]{check} excluded: ok\n");
            continue;
        }
        match verdict(me, check) {
            Ok(()) => told += &format!("[+]{check} ok\n"),
            Err(_) => {
                failed = true;
                told += &format!("[-]{check} failed: reason withheld\n");
            }
        }
    }
    if !excluded.is_empty() {
        let quoted: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = quoted.join(",");
        told += &format!("warn: some health checks cannot be excluded: no matches for {names}\n");
    }
    if failed {
        return http_error(StatusCode::INTERNAL_SERVER_ERROR, told + "healthz check failed");
    }
    let mut response = match call.parameter("verbose") {
        None => text(StatusCode::OK, "ok"),
        Some(_) => text(StatusCode::OK, told + "healthz check passed\n"),
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Every check of :10250.
pub fn page(me: &Kubelet, call: &Call) -> Response {
    all(me, call, CHECKS)
}

/// One check.
pub fn one(me: &Kubelet, check: &str) -> Response {
    match verdict(me, check) {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(why) => http_error(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}")),
    }
}

fn verdict(me: &Kubelet, check: &str) -> Result<(), String> {
    let verdict = match check {
        "syncloop" if me.pods.is_stuck() => Err("sync Loop took longer than expected".to_owned()),
        _ => Ok(()),
    };
    me.verdicts.note(check, verdict.is_ok());
    verdict
}

/// `/metrics/slis`.
pub fn slis(me: &Kubelet) -> Page {
    let mut page = Page::default();
    page.family(
        "kubernetes_healthcheck",
        "gauge",
        "[STABLE] This metric records the result of a single healthcheck.",
    );
    for check in CHECKS {
        let passed = verdict(me, check).is_ok();
        page.sample("kubernetes_healthcheck", &[("name", check), ("type", "healthz")], u8::from(passed));
    }
    let name = "kubernetes_healthchecks_total";
    page.family(name, "counter", "[STABLE] This metric records the results of all healthcheck.");
    for (check, (good, bad)) in CHECKS.iter().zip(&me.verdicts.0) {
        for (status, count) in [("success", good), ("error", bad)] {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                page.sample(name, &[("name", check), ("status", status), ("type", "healthz")], count);
            }
        }
    }
    page
}
