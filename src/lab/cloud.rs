//! The cloud's side of the route controller: a line with every node's pod network comes in, an answer goes
//! back when the routes are set.
//!
//! Upstream's route controller calls a cloud provider, which programs its routers; here the routers are
//! `wire` and the nodes, and the supervisor programs them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The environment variable that names a controller manager's end of the connection.
pub const CLOUD: &str = "MINILAB_CLOUD_FD";

/// What the controller wants: all of it, each time.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    routes: Vec<NodeRoute>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NodeRoute {
    node: String,
    cidr: Ipv4Net,
    via: Ipv4Addr,
}

/// What it gets back.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Ok(bool),
    Error(String),
}

/// By node: the pods behind it, and where it is.
pub type Routes = BTreeMap<String, (Ipv4Net, Ipv4Addr)>;

/// Reads one line of the controller's.
pub fn read(line: &str) -> Result<Routes, serde_json::Error> {
    let wanted: Wanted = serde_json::from_str(line)?;
    let route = |route: NodeRoute| (route.node, (route.cidr.trunc(), route.via));
    Ok(wanted.routes.into_iter().map(route).collect())
}

/// The line that answers it.
pub fn answer(outcome: Result<(), String>) -> String {
    let answer = outcome.map_or_else(Answer::Error, |()| Answer::Ok(true));
    let mut line = serde_json::to_string(&answer).expect("an answer is a string or a bool");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_answered_as_agreed() {
        let line = r#"{"routes":[{"node":"node-1","cidr":"10.244.1.0/24","via":"192.0.2.11"}]}"#;
        let routes = read(line).unwrap();
        let expected = ("10.244.1.0/24".parse().unwrap(), "192.0.2.11".parse().unwrap());
        assert_eq!(routes["node-1"], expected);
        assert!(read(r#"{"routes":[{"node":"x","cidr":"y","via":"z"}]}"#).is_err());
        assert_eq!(answer(Ok(())), "{\"ok\":true}\n");
        assert_eq!(answer(Err("no".into())), "{\"error\":\"no\"}\n");
    }
}
