//! What an agent says it can reach, and how one is chosen for a destination
//! (`pkg/agent/identifiers`, `pkg/server/backend_manager.go`).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// An agent's `agentidentifiers` header.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identifiers {
    /// Of `ipv4`, `ipv6` and `host`: compared with the destination as text.
    pub hosts: Vec<String>,
    pub networks: Vec<IpNet>,
    pub default_route: bool,
}

impl Identifiers {
    /// Reads a URL query; keys that are unknown are ignored, as upstream's server does.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(';') {
            return Err("invalid semicolon separator in query".into());
        }
        let mut own = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value)?;
            match unescape(key)?.as_str() {
                "ipv4" | "ipv6" | "host" => own.hosts.push(value),
                "cidr" => own.networks.extend(value.parse::<IpNet>().ok()),
                "default-route" => own.default_route |= value == "true",
                _ => {}
            }
        }
        Ok(own)
    }

    fn holds(&self, address: IpAddr) -> Option<u8> {
        let holding = self.networks.iter().filter(|net| net.contains(&address));
        holding.map(IpNet::prefix_len).max()
    }
}

/// Go's `url.QueryUnescape`.
fn unescape(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
                let value = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                let wrong = || {
                    let end = (at + 3).min(bytes.len());
                    format!("invalid URL escape {:?}", String::from_utf8_lossy(&bytes[at..end]))
                };
                out.push(value.ok_or_else(wrong)?);
                at += 2;
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// One of `--proxy-strategies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Any agent.
    Default,
    /// The agent that named the destination.
    DestHost,
    /// An agent that said it reaches everything.
    DefaultRoute,
    /// Ours: the agent whose `cidr` holds the destination, the narrowest first, so that a pod is reached
    /// through its own node and its bytes cross no other link.
    Cidr,
}

impl Strategy {
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "default" => Self::Default,
            "destHost" => Self::DestHost,
            "defaultRoute" => Self::DefaultRoute,
            "cidr" => Self::Cidr,
            other => return Err(format!("unknown proxy strategy {other}")),
        })
    }

    /// How well an agent serves a destination: more is better, nothing is not at all.
    pub fn rank(self, agent: &Identifiers, host: &str) -> Option<u8> {
        match self {
            Self::Default => Some(0),
            Self::DestHost => agent.hosts.iter().any(|own| own == host).then_some(0),
            Self::DefaultRoute => agent.default_route.then_some(0),
            Self::Cidr => agent.holds(host.parse().ok()?),
        }
    }

    /// Whether an agent belongs to the strategy at all: what readiness counts.
    pub fn admits(self, agent: &Identifiers) -> bool {
        match self {
            Self::Default => true,
            Self::DestHost => !agent.hosts.is_empty(),
            Self::DefaultRoute => agent.default_route,
            Self::Cidr => !agent.networks.is_empty(),
        }
    }

    /// Several agents of the same rank are taken at random; of one destination, the oldest stays.
    pub fn is_random(self) -> bool {
        matches!(self, Self::Default | Self::DefaultRoute)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Default => "default",
            Self::DestHost => "destHost",
            Self::DefaultRoute => "defaultRoute",
            Self::Cidr => "cidr",
        })
    }
}

/// The destination without its port.
pub fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_a_query_whose_unknown_keys_do_not_matter() {
        let own = Identifiers::parse("ipv4=192.0.2.11&host=node%2D1&cidr=10.244.1.0/24&cidr=bad&x=y");
        let own = own.unwrap();
        assert_eq!(own.hosts, ["192.0.2.11", "node-1"]);
        assert_eq!(own.networks.len(), 1);
        assert!(!own.default_route && Identifiers::parse("default-route=true").unwrap().default_route);
        assert_eq!(Identifiers::parse(""), Ok(Identifiers::default()));
        assert!(Identifiers::parse("a;b").is_err() && Identifiers::parse("host=%2").is_err());
    }

    #[test]
    fn a_destination_is_matched_by_name_by_network_or_not_at_all() {
        let node = Identifiers::parse("ipv4=192.0.2.11&cidr=10.244.1.0/24&cidr=10.0.0.0/8").unwrap();
        assert_eq!(Strategy::DestHost.rank(&node, "192.0.2.11"), Some(0));
        assert_eq!(Strategy::DestHost.rank(&node, "192.0.2.12"), None);
        assert_eq!(Strategy::Cidr.rank(&node, "10.244.1.9"), Some(24));
        assert_eq!(Strategy::Cidr.rank(&node, "10.1.1.9"), Some(8));
        assert_eq!(Strategy::Cidr.rank(&node, "a.example"), None);
        assert_eq!(Strategy::DefaultRoute.rank(&node, "10.1.1.9"), None);
        assert_eq!(Strategy::Default.rank(&node, "anything"), Some(0));
    }

    #[test]
    fn the_port_of_a_destination_is_left_out() {
        for (address, host) in [("a:1", "a"), ("[::1]:80", "::1"), ("10.0.0.1:443", "10.0.0.1"), ("a", "a")] {
            assert_eq!(host_of(address), host);
        }
    }
}
