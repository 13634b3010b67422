//! What the API server does with any object: applying, custom kinds, admission by others.
//!
//! Against an API server alone: nothing here needs a node.

mod aggregated;
mod apply;
mod custom;
mod operators;
mod policies;
mod versions;
mod webhooks;

use crate::kit::clients::{self, Kubectl};
use crate::kit::server::ApiServer;

/// kubectl with this input; must succeed.
#[track_caller]
fn ok(server: &ApiServer, arguments: &[&str], input: &str) -> String {
    ok_of(server, clients::any(), arguments, input)
}

#[track_caller]
fn ok_of(server: &ApiServer, kubectl: &Kubectl, arguments: &[&str], input: &str) -> String {
    let (code, stdout, stderr) = server.kubectl(kubectl, arguments, input);
    assert_eq!(code, 0, "kubectl {arguments:?}: {stdout}{stderr}");
    stdout
}

/// kubectl with this input; must fail, and what it says then.
#[track_caller]
fn refused(server: &ApiServer, arguments: &[&str], input: &str) -> String {
    let (code, stdout, stderr) = server.kubectl(clients::any(), arguments, input);
    assert_ne!(code, 0, "kubectl {arguments:?}: {stdout}");
    stderr
}
