//! The Corefile: CoreDNS' configuration, as far as a cluster's DNS uses it.
//!
//! Server blocks with the plugins kubeadm's ConfigMap has, and `log`. Those without an effect here
//! (`errors`, `cache`, `loop`, `reload`) are taken as given; a plugin nobody here knows is refused with
//! CoreDNS' words, so that a configuration never says more than it does.

use std::net::SocketAddr;
use std::time::Duration;

/// One server block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Without the trailing dot; empty is the root.
    pub zones: Vec<String>,
    pub port: u16,
    pub kubernetes: Option<Kubernetes>,
    /// Who is asked about what is not known here: addresses, or resolv.conf files.
    pub forward: Option<Vec<String>>,
    pub health: Option<Health>,
    pub ready: Option<SocketAddr>,
    pub prometheus: Option<SocketAddr>,
    pub log: bool,
    pub loadbalance: bool,
}

/// The `kubernetes` plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    pub zones: Vec<String>,
    pub ttl: u32,
    pub pods: Pods,
    /// Zones whose unknown names are the next plugin's; `Some` and empty means all.
    pub fallthrough: Option<Vec<String>>,
}

/// How `10-244-1-2.default.pod.cluster.local` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    Disabled,
    /// By the address in the name, whether or not there is such a pod.
    Insecure,
    /// Only when a pod of the namespace has the address.
    Verified,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub address: SocketAddr,
    /// How long it goes on answering after it was told to stop.
    pub lameduck: Duration,
}

/// Why a Corefile cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line} - Error during parsing: {problem}")]
pub struct CorefileError {
    file: String,
    line: usize,
    problem: String,
}

/// Reads a Corefile; `file` names it in errors.
pub fn parse(file: &str, text: &str) -> Result<Vec<Block>, CorefileError> {
    let mut lines = Lines { file, lines: tokens(text), at: 0 };
    let mut blocks = Vec::new();
    while let Some(heads) = lines.next() {
        let Some((&"{", heads)) = heads.split_last() else {
            return Err(
                lines.problem("Wrong argument count or unexpected line ending after the zones".into())
            );
        };
        blocks.push(block(&mut lines, heads)?);
    }
    Ok(blocks)
}

fn tokens(text: &str) -> Vec<(usize, Vec<&str>)> {
    let bare = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = bare.enumerate().map(|(at, line)| (at + 1, line.split_whitespace().collect::<Vec<_>>()));
    words.filter(|(_, words)| !words.is_empty()).collect()
}

struct Lines<'a> {
    file: &'a str,
    lines: Vec<(usize, Vec<&'a str>)>,
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<Vec<&'a str>> {
        let line = self.lines.get(self.at)?.1.clone();
        self.at += 1;
        Some(line)
    }

    /// The next line of a block; nothing at its closing brace.
    fn inside(&mut self) -> Result<Option<Vec<&'a str>>, CorefileError> {
        match self.next() {
            Some(line) if line == ["}"] => Ok(None),
            Some(line) => Ok(Some(line)),
            None => Err(self.problem("Unexpected EOF; expecting '}'".into())),
        }
    }

    fn problem(&self, problem: String) -> CorefileError {
        let line = self.lines.get(self.at.saturating_sub(1)).map_or(0, |(line, _)| *line);
        CorefileError { file: self.file.to_owned(), line, problem }
    }
}

fn block(lines: &mut Lines<'_>, heads: &[&str]) -> Result<Block, CorefileError> {
    let mut block = Block {
        zones: Vec::new(),
        port: 53,
        kubernetes: None,
        forward: None,
        health: None,
        ready: None,
        prometheus: None,
        log: false,
        loadbalance: false,
    };
    for head in heads {
        let head = head.trim_end_matches(',').trim_start_matches("dns://");
        let (zone, port) = head.rsplit_once(':').unwrap_or((head, "53"));
        block.port = port.parse().map_err(|_| lines.problem(format!("invalid port {port:?}")))?;
        block.zones.push(normal(zone));
    }
    while let Some(line) = lines.inside()? {
        let opens = line.last() == Some(&"{");
        let words = &line[..line.len() - usize::from(opens)];
        let Some((name, arguments)) = words.split_first() else {
            return Err(lines.problem("Unexpected '{'".into()));
        };
        let mut options = Vec::new();
        while opens && let Some(option) = lines.inside()? {
            options.push(option);
        }
        plugin(&mut block, lines, name, arguments, &options)?;
    }
    Ok(block)
}

fn plugin(
    block: &mut Block,
    lines: &Lines<'_>,
    name: &str,
    arguments: &[&str],
    options: &[Vec<&str>],
) -> Result<(), CorefileError> {
    let listen = |default: &str| {
        let text = arguments.first().copied().unwrap_or(default);
        let text = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
        text.parse::<SocketAddr>().map_err(|_| lines.problem(format!("invalid address {text:?}")))
    };
    match name {
        "errors" | "cache" | "loop" | "reload" => {}
        "log" => block.log = true,
        "loadbalance" => block.loadbalance = true,
        "ready" => block.ready = Some(listen(":8181")?),
        "prometheus" => block.prometheus = Some(listen("127.0.0.1:9153")?),
        "health" => {
            let lameduck =
                options.iter().find(|option| option[0] == "lameduck").and_then(|option| option.get(1));
            let lameduck = lameduck.map_or(Ok(Duration::ZERO), |text| {
                crate::api::go_duration::parse(text).map_err(|why| lines.problem(why))
            })?;
            block.health = Some(Health { address: listen(":8080")?, lameduck });
        }
        "forward" => {
            let Some((_, to)) = arguments.split_first().filter(|(_, to)| !to.is_empty()) else {
                return Err(
                    lines.problem("Wrong argument count or unexpected line ending after 'forward'".into())
                );
            };
            block.forward = Some(to.iter().map(|&one| one.to_owned()).collect());
        }
        "kubernetes" => block.kubernetes = Some(kubernetes(&block.zones, lines, arguments, options)?),
        unknown => return Err(lines.problem(format!("Unknown directive '{unknown}'"))),
    }
    Ok(())
}

fn kubernetes(
    own: &[String],
    lines: &Lines<'_>,
    arguments: &[&str],
    options: &[Vec<&str>],
) -> Result<Kubernetes, CorefileError> {
    let zones = match arguments {
        [] => own.to_vec(),
        zones => zones.iter().map(|zone| normal(zone)).collect(),
    };
    let mut plugin = Kubernetes { zones, ttl: 5, pods: Pods::Disabled, fallthrough: None };
    for option in options {
        match (option[0], option.get(1).copied()) {
            ("pods", Some("disabled")) => plugin.pods = Pods::Disabled,
            ("pods", Some("insecure")) => plugin.pods = Pods::Insecure,
            ("pods", Some("verified")) => plugin.pods = Pods::Verified,
            ("ttl", Some(text)) => {
                let ttl = text.parse().ok().filter(|ttl| *ttl <= 3600);
                plugin.ttl = ttl.ok_or_else(|| lines.problem("ttl must be in range [0, 3600]".into()))?;
            }
            ("fallthrough", _) => {
                plugin.fallthrough = Some(option[1..].iter().map(|zone| normal(zone)).collect())
            }
            (unknown, _) => return Err(lines.problem(format!("unknown property '{unknown}'"))),
        }
    }
    Ok(plugin)
}

/// Lower case, without the trailing dot.
fn normal(zone: &str) -> String {
    zone.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether `name` is `zone` or below it; both without trailing dots.
pub fn is_below(name: &str, zone: &str) -> bool {
    zone.is_empty() || name == zone || name.strip_suffix(zone).is_some_and(|front| front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBEADMS: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
    }
    loop
    reload
    loadbalance
}
";

    #[test]
    fn kubeadms_corefile_is_understood() {
        let blocks = parse("Corefile", KUBEADMS).unwrap();
        let [block] = &blocks[..] else { panic!("{blocks:?}") };
        assert_eq!((block.zones.as_slice(), block.port), (&[String::new()][..], 53));
        let kubernetes = block.kubernetes.as_ref().unwrap();
        assert_eq!(kubernetes.zones, ["cluster.local", "in-addr.arpa", "ip6.arpa"]);
        assert_eq!((kubernetes.ttl, kubernetes.pods), (30, Pods::Insecure));
        assert_eq!(block.health.as_ref().unwrap().lameduck, Duration::from_secs(5));
        assert_eq!(block.ready.unwrap().port(), 8181);
        assert_eq!(block.forward.as_deref(), Some(&["/etc/resolv.conf".to_owned()][..]));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let said = |text| parse("Corefile", text).unwrap_err().to_string();
        assert_eq!(
            said(".:53 {\n  nosuch\n}\n"),
            "Corefile:2 - Error during parsing: Unknown directive 'nosuch'"
        );
        assert_eq!(
            said(".:53 {\n  errors\n"),
            "Corefile:2 - Error during parsing: Unexpected EOF; expecting '}'"
        );
        assert!(said(".:53 {\n kubernetes a {\n ttl 9999\n }\n}").contains("ttl must be in range [0, 3600]"));
    }

    #[test]
    fn a_name_is_below_a_zone_by_whole_labels() {
        assert!(is_below("a.cluster.local", "cluster.local") && is_below("cluster.local", "cluster.local"));
        assert!(!is_below("xcluster.local", "cluster.local") && is_below("anything", ""));
    }
}
