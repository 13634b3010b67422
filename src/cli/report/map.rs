//! The map of paths: who dials whom across which ground, each way in the colour of what came of it.

use std::fmt::Write;

use crate::attack::{Report, Verdict};

/// From where to where a path is drawn; both ends' x, and the line's y.
struct Way {
    path: &'static str,
    from: u16,
    to: u16,
    y: u16,
}

/// Control's edge, wire's two, and the nodes'.
const CONTROL: u16 = 190;
const NEAR: u16 = 320;
const FAR: u16 = 400;
const NODE: u16 = 530;

const fn way(path: &'static str, from: u16, to: u16, y: u16) -> Way {
    Way { path, from, to, y }
}

const WAYS: &[Way] = &[
    way("node-to-apiserver", NODE, CONTROL, 70),
    way("pod-to-apiserver", NODE, CONTROL, 105),
    // By way of the load balancer's address, which is on wire.
    way("components-to-apiserver", CONTROL, NEAR, 140),
    way("apiserver-access", NEAR, CONTROL, 175),
    way("apiserver-to-kubelet", CONTROL, NODE, 210),
    way("kubelet-access", FAR, NODE, 245),
    way("apiserver-proxy", CONTROL, NODE, 280),
    way("apiserver-egress", CONTROL, NODE, 315),
];

/// The states of the lab that were tried: one, or each setting open and then shut.
pub fn states(reports: &[Report]) -> Vec<(&'static str, Vec<&Report>)> {
    let of = |mode: &str| reports.iter().filter(|report| report.mode == mode).collect::<Vec<_>>();
    let (open, shut) = (of("insecure"), of("hardened"));
    let both = open.iter().any(|one| shut.iter().any(|other| other.path == one.path));
    match both {
        true => vec![("While each setting is insecure", open), ("While each is hardened", shut)],
        false => vec![("The lab as it is", reports.iter().collect())],
    }
}

pub fn draw(reports: &[&Report]) -> String {
    let mut out = "<svg viewBox=\"0 0 720 350\" role=\"img\" aria-label=\"map of paths\">".to_owned();
    for (class, x, width, label) in [
        ("place", 10, CONTROL - 10, "control plane"),
        ("ground", NEAR, FAR - NEAR, "wire"),
        ("place", NODE, 180, "nodes and pods"),
    ] {
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{x}\" y=\"40\" width=\"{width}\" height=\"300\" rx=\"8\"/>\
             <text x=\"{}\" y=\"30\" text-anchor=\"middle\">{label}</text>",
            x + width / 2
        );
    }
    for Way { path, from, to, y } in WAYS {
        let verdict = worst(path, reports).map_or_else(|| "untried".to_owned(), |worst| worst.to_string());
        let back = if from < to { to - 9 } else { to + 9 };
        let _ = write!(
            out,
            "<a href=\"#{path}\"><path class=\"way {verdict}\" d=\"M{from},{y} L{to},{y} M{back},{} L{to},{y} \
             L{back},{}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{path}</text></a>",
            y - 6,
            y + 6,
            from.midpoint(*to),
            y - 9
        );
    }
    out + "</svg>"
}

/// What came of a path: one setting that gives way is enough.
fn worst(path: &str, reports: &[&Report]) -> Option<Verdict> {
    let of_path = reports.iter().filter(|report| report.path.split('.').next() == Some(path));
    of_path.map(|report| report.verdict).min_by_key(|verdict| match verdict {
        Verdict::Compromised => 0,
        Verdict::Inconclusive => 1,
        Verdict::Defeated => 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::paths::PATHS;

    #[test]
    fn every_path_has_its_way_on_the_map() {
        assert_eq!(WAYS.len(), PATHS.len());
        assert!(PATHS.iter().all(|path| WAYS.iter().any(|way| way.path == path.name)));
    }
}
