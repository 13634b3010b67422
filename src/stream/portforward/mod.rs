//! Port forwarding: many connections to a pod's ports over one upgraded connection.
//!
//! Stands for `k8s.io/cri-streaming/pkg/streaming/portforward` and the tunnel of the API server
//! (`streamtunnel.go`). Three clients speak three forms: SPDY with a pair of streams a connection; the
//! same SPDY inside WebSocket messages (`SPDY/3.1+portforward.k8s.io`, what kubectl does); and plain
//! WebSocket channels (`v4.channel.k8s.io`), one connection a port, which other clients use.

mod channels;
mod forward;
mod negotiate;
mod pairs;
#[cfg(test)]
mod tests;

pub use negotiate::negotiate;

/// The only stream protocol of port forwarding.
pub const PROTOCOL: &str = "portforward.k8s.io";

/// What error texts name: `error forwarding port 80 to pod NAME, uid UID: …`.
#[derive(Debug, Clone)]
pub struct Target {
    /// The sandbox's id, as a CRI runtime names the pod.
    pub pod: String,
    /// Empty in a CRI runtime.
    pub uid: String,
}

impl Target {
    /// What the client reads on an error stream.
    fn failure(&self, port: u16, cause: &impl std::fmt::Display) -> String {
        format!("error forwarding port {port} to pod {}, uid {}: {cause}", self.pod, self.uid)
    }
}
