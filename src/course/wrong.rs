//! Repairs that are none: the ways learners make a symptom go away, each called by its name.
//!
//! Those an exercise names are its own (`wrong:`); these are everybody's. Some spoil the mark by themselves,
//! others are only named beside a check that fails anyway.

use serde::Serialize;
use serde_json::Value;

use super::check::{Line, Seen, probe};
use super::ground::Ground;
use super::stage::admins;
use crate::pki::Request;

/// On what checks put into the API.
const CHECK: &str = "minilab.dev/check";

/// A wrong repair that was recognised.
#[derive(Debug, Clone, Serialize)]
pub struct Named {
    pub name: String,
    pub say: String,
}

impl Named {
    fn new(name: &str, say: impl Into<String>) -> Named {
        Named { name: name.to_owned(), say: say.into() }
    }
}

/// Every wrong repair there is a sign of.
pub fn recognise(
    ground: &Ground<'_>,
    lines: &[Line],
    works: &Seen,
    exploited: jiff::Timestamp,
) -> Vec<Named> {
    let mut named: Vec<Named> = Vec::new();
    for wrong in &ground.chapter.exercise.wrong {
        if probe(ground, &wrong.when).holds {
            named.push(Named::new(&wrong.name, &wrong.say));
        }
    }
    named.extend(powerful(ground));
    named.extend(approved(ground, exploited));
    let fails = |name: &str| lines.iter().any(|line| line.name == name && !line.passed);
    if fails("unharmed") {
        let say = "You took away what was attacked. Nobody can attack a workload that is gone, and nobody can use it.";
        named.push(Named::new("workload-deleted", say));
    }
    if fails("roles") {
        let line = lines.iter().find(|line| line.name == "roles");
        let role = line.map(|line| line.evidence.clone()).unwrap_or_default();
        let say =
            format!("A part of the cluster does not run ({role}). What is switched off is not repaired.");
        named.push(Named::new("role-stopped", say));
    }
    if !works.holds {
        named.extend(broken(ground, works));
    }
    if lines.iter().any(|line| !line.passed) {
        named.extend(skipped(ground));
    }
    named
}

/// Somebody was made an administrator.
fn powerful(ground: &Ground<'_>) -> Option<Named> {
    let now = admins(ground).ok()?;
    let new = now.iter().find(|name| !ground.begun.admins.contains(name))?;
    let say = format!(
        "{new} makes somebody cluster-admin. That makes an error go away by letting everybody in who has that \
         credential; give the one right that is missing, or none."
    );
    Some(Named::new("cluster-admin", say))
}

/// A serving certificate was approved for somebody else's address since the exploit.
fn approved(ground: &Ground<'_>, exploited: jiff::Timestamp) -> Option<Named> {
    let all = ground.items("/apis/certificates.k8s.io/v1/certificatesigningrequests").ok()?;
    let bad = all.iter().find(|csr| foreign(ground, csr) && approved_after(csr, exploited))?;
    let say = format!(
        "You approved {}, which asks for an address that is not its node's. Whoever approves every request signs \
         whatever an attacker sends; compare the addresses first.",
        bad["metadata"]["name"].as_str().unwrap_or_default()
    );
    Some(Named::new("approved-everything", say))
}

fn approved_after(csr: &Value, then: jiff::Timestamp) -> bool {
    let conditions = csr["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| {
        let at = one["lastUpdateTime"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        one["type"] == "Approved" && at.is_some_and(|at| at > then)
    })
}

/// Whether a kubelet's request has an address that its node has not.
fn foreign(ground: &Ground<'_>, csr: &Value) -> bool {
    use base64::Engine;
    // One that a check sent to see what happens is nobody's mistake.
    let ours = !csr["metadata"]["labels"][CHECK].is_null();
    if ours || csr["spec"]["signerName"] != "kubernetes.io/kubelet-serving" {
        return false;
    }
    let text = csr["spec"]["request"].as_str().unwrap_or_default();
    let Ok(pem) = base64::prelude::BASE64_STANDARD.decode(text) else { return false };
    let Ok(request) = Request::from_pem(&String::from_utf8_lossy(&pem)) else { return false };
    let node = request.cn.strip_prefix("system:node:").unwrap_or_default().to_owned();
    let own = ground.addresses(&node);
    let ips: Vec<String> = request.ips.iter().map(ToString::to_string).collect();
    if own.is_empty() {
        // Of a node that has left: its address was its own, unless somebody has it.
        let somebodys =
            |ip: &String| ground.plan.hosts.iter().any(|host| ground.addresses(&host.name).contains(ip));
        return ips.iter().any(somebodys);
    }
    ips.iter().any(|ip| !own.contains(ip)) || request.dns.iter().any(|name| *name != node)
}

/// Why logs, exec and port-forward do not work, where it is the learner's doing.
fn broken(ground: &Ground<'_>, works: &Seen) -> Option<Named> {
    if works.evidence.contains("Debug endpoints are disabled") || works.evidence.contains("MethodNotAllowed")
    {
        let say = "You switched the kubelet's debugging handlers off. Nobody can attack logs and exec that way, and \
                   nobody can use them.";
        return Some(Named::new("handlers-disabled", say));
    }
    for (node, address) in ground.nodes() {
        let question = [format!("https://{address}:10250/healthz")];
        let near = ground.question(&node, &question, None);
        let far = ground.question("control", &question, None);
        let answers = |answer: &Result<crate::attack::role::Answer, String>| {
            answer.as_ref().is_ok_and(|answer| answer.status.is_some())
        };
        if answers(&near) && !answers(&far) {
            let say = format!(
                "The kubelet of {node} listens and the control plane cannot reach it: somebody drops 10250 on the \
                 way. That keeps the attacker out, and everybody else as well."
            );
            return Some(Named::new("traffic-dropped", say));
        }
    }
    None
}

/// kubectl was told not to look.
fn skipped(ground: &Ground<'_>) -> Option<Named> {
    let requests = super::check::requests(ground).ok()?;
    let told = |event: &Value| {
        let uri = event["requestURI"].as_str().unwrap_or_default();
        uri.contains("insecureSkipTLSVerifyBackend=true")
    };
    requests.iter().any(told).then(|| {
        let say = "--insecure-skip-tls-verify-backend makes one kubectl not look. The API server still believes \
                   whoever answers, and so does everybody else's kubectl.";
        Named::new("verification-skipped", say)
    })
}
