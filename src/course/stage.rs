//! The state an exercise begins in: settings, files, roles, objects. The same steps are start and reset.
//!
//! ```text
//! hosts and roles run ─ files as planned ─ settings switched ─ lab's own objects ─ nodes open
//!    ─ the last exercise's objects gone ─ this one's there and Ready ─ what time it is
//! ```
//! Whatever a learner broke on the way is mended by one of them; where one cannot ([`is_stuck`]) the command
//! line makes the lab anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::CourseError;
use super::book::Chapter;
use super::ground::{Ground, spec};
use super::leftovers;
use super::progress::{Begun, now_micros};
use crate::lab::files::Tree;
use crate::lab::objects;
use crate::lab::paths::{Profile, Setting, Settings, find, meant, rows};
use crate::lab::plan::{Contents, Plan, PlannedFile, plan};
use crate::lab::protocol::{Control, Reply, Request, RoleStatus};
use crate::lab::state::LabDir;
use crate::lab::switch::{self, Switch, kubelets_reachable};

/// How long pods and kubelets may take.
const PATIENCE: Duration = Duration::from_secs(40);
const MANAGER: &str = "minilab-course";

/// Where the audit trail is, in control.
pub const AUDIT_LOG: &str = "/var/log/kubernetes/audit.log";
const AUDIT_POLICY: &str = "/etc/kubernetes/audit-policy.yaml";

/// Brings the lab to the beginning of an exercise; `before` are those it was in.
pub fn begin(lab: &LabDir, chapter: &Chapter, before: &[Chapter]) -> Result<Begun, CourseError> {
    wake(lab, &plan(&spec(lab)?))?;
    write_audit_policy(lab)?;
    switch::mend(lab, &spec(lab)?)?;
    let now = spec(lab)?;
    leftovers::manifests(lab, &plan(&now))?;
    let museum = &chapter.exercise.museum;
    switch::restore(lab, &now, &|host: &str, path: &Path, text| {
        opened(museum, host, path, audited(host, path, text))
    })?;
    let wanted = settings(chapter, &now.modes())?;
    let switch = Switch::to(&now, &wanted);
    if !switch.changed.is_empty() {
        switch.apply(lab)?;
    }
    let mut ground = Ground::of(lab, chapter, Begun::default())?;
    leftovers::filters(&ground);
    mend_objects(&ground)?;
    if !wanted.hardened(Setting::ToKubeletServing) {
        leftovers::serving_certificates(&ground)?;
    }
    open_nodes(&ground)?;
    clear(&ground, before)?;
    put(&ground)?;
    if kubelets_reachable(&wanted) {
        reachable(&ground)?;
    }
    ground.begun = note(&ground)?;
    Ok(ground.begun)
}

/// Whether a lab could not be brought to an exercise by these steps, so that only a new one helps.
pub fn is_stuck(error: &CourseError) -> bool {
    !matches!(
        error,
        CourseError::NoExercise(_)
            | CourseError::NoQuestion { .. }
            | CourseError::NotStarted
            | CourseError::Parse { .. }
    )
}

/// Every setting that can be switched: kubeadm's, and what the exercise says.
fn settings(chapter: &Chapter, now: &Settings) -> Result<Settings, CourseError> {
    let unknown = |error: crate::lab::paths::UnknownSetting| CourseError::Spec(error.to_string());
    let (mut wanted, usual) = (now.clone(), Settings::of(Profile::Default));
    for (_, row) in rows() {
        wanted.put(row.id, usual.mode(row.id));
    }
    // One setting overrides what is said of its path, in whatever order they stand.
    let (of_one, of_path): (Vec<_>, Vec<_>) =
        chapter.exercise.settings.iter().partition(|(word, _)| find(word).is_ok());
    for (word, mode) in of_path.into_iter().chain(of_one) {
        meant(word).map_err(unknown)?.iter().for_each(|row| wanted.set(row.id, *mode));
    }
    Ok(wanted)
}

/// Starts hosts and roles that somebody stopped; one that only a manifest of one's own brought stays away.
fn wake(lab: &LabDir, plan: &Plan) -> Result<(), CourseError> {
    let status = Control::connect(lab)?.status()?;
    let planned = |role: &&RoleStatus| plan.has_role(&role.name, &role.host);
    for host in status.hosts.iter().filter(|host| host.pid.is_none()) {
        asked(lab, &Request::HostStart { host: host.name.clone() })?;
    }
    for role in status.roles.iter().filter(planned).filter(|role| role.state == "stopped") {
        asked(lab, &Request::Start { role: role.name.clone(), host: Some(role.host.clone()) })?;
    }
    Ok(())
}

fn asked(lab: &LabDir, request: &Request) -> Result<(), CourseError> {
    match Control::connect(lab)?.ask_within(request, PATIENCE)? {
        Some(Reply::Failed { error }) => Err(CourseError::Spec(error)),
        Some(_) => Ok(()),
        None => Err(CourseError::Late { what: "starting a role again".into(), last: format!("{request:?}") }),
    }
}

/// The audit trail is the course's own edit of a manifest, made where an administrator would make it.
fn audited(host: &str, path: &Path, text: String) -> String {
    if host != "control" || !path.ends_with("manifests/kube-apiserver.yaml") {
        return text;
    }
    let first = "    - kube-apiserver\n";
    let flags =
        format!("{first}    - --audit-log-path={AUDIT_LOG}\n    - --audit-policy-file={AUDIT_POLICY}\n");
    text.replacen(first, &flags, 1)
}

/// The museum's flag stands in the manifest like any other, so that a learner can take it out.
fn opened(exhibits: &[String], host: &str, path: &Path, text: String) -> String {
    if exhibits.is_empty() || host != "control" || !path.ends_with("manifests/kube-apiserver.yaml") {
        return text;
    }
    let first = "    - kube-apiserver\n";
    text.replacen(first, &format!("{first}    - --minilab-museum={}\n", exhibits.join(",")), 1)
}

fn write_audit_policy(lab: &LabDir) -> Result<(), CourseError> {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                  - {level: None, users: [\"system:kube-scheduler\", \"system:kube-controller-manager\"]}\n\
                  - {level: None, userGroups: [\"system:nodes\"], verbs: [watch]}\n- {level: Metadata}\n";
    let (path, contents) = (AUDIT_POLICY.into(), Contents::Text(policy.to_owned()));
    let file = PlannedFile { path, mode: 0o600, contents };
    Ok(Tree::of(lab, "control")?.write(&file, policy.as_bytes())?)
}

/// What the settings put into the API and somebody took away or changed.
fn mend_objects(ground: &Ground<'_>) -> Result<(), CourseError> {
    for object in &plan(&spec(ground.lab)?).objects {
        mend_object(ground, "minilab", object, false)?;
    }
    Ok(())
}

/// Brings one object to what it should be, and waits until it does what it is for; `anew` where nothing of what
/// somebody made of it may stay.
fn mend_object(ground: &Ground<'_>, manager: &str, object: &Value, anew: bool) -> Result<(), CourseError> {
    let url = objects::url(&ground.client, object).map_err(CourseError::Object)?;
    let live = ground.runtime.block_on(objects::live(&ground.client, object)).map_err(CourseError::Object)?;
    let as_planned = live.as_ref().is_some_and(|live| {
        let ending = !live["metadata"]["deletionTimestamp"].is_null();
        objects::agrees(object, live) && !ending && !leftovers::is_patched(live)
    });
    if as_planned && (!anew || live.as_ref().is_some_and(|live| readiness(live).is_ok())) {
        return Ok(());
    }
    let replaced = |live: &Value| anew && object["kind"] != "Namespace" || leftovers::is_patched(live);
    if live.as_ref().is_some_and(replaced) {
        ground.delete(&url).map_err(CourseError::Spec)?;
    }
    if live.is_some_and(|live| replaced(&live) || !live["metadata"]["deletionTimestamp"].is_null()) {
        gone(ground, &url)?;
    }
    ground.runtime.block_on(objects::put(&ground.client, manager, object)).map_err(CourseError::Object)?;
    if anew { Ok(()) } else { ready(ground, &url) }
}

/// Waits until nothing is there under a name.
fn gone(ground: &Ground<'_>, url: &str) -> Result<(), CourseError> {
    ground.wait(&format!("the end of {url}"), PATIENCE, |ground| match ground.get(url)? {
        None => Ok(()),
        Some(_) => Err("it is still there".into()),
    })
}

fn ready(ground: &Ground<'_>, url: &str) -> Result<(), CourseError> {
    ground.wait(&format!("{url} to be ready"), PATIENCE, |ground| {
        readiness(&ground.get(url)?.ok_or("it is gone")?)
    })
}

/// No node stays cordoned or tainted.
fn open_nodes(ground: &Ground<'_>) -> Result<(), CourseError> {
    for node in ground.items("/api/v1/nodes").map_err(CourseError::Spec)? {
        let shut = node["spec"]["unschedulable"] == true;
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let ours =
            |taint: &Value| taint["key"].as_str().unwrap_or_default().starts_with("node.kubernetes.io/");
        let kept: Vec<&Value> = taints.iter().filter(|taint| ours(taint)).collect();
        if shut || kept.len() < taints.len() {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let patch = json!({"spec": {"unschedulable": null, "taints": kept}});
            ground.api("PATCH", &format!("/api/v1/nodes/{name}"), Some(&patch)).map_err(CourseError::Spec)?;
        }
    }
    Ok(())
}

/// Takes away what this exercise and those before left.
fn clear(ground: &Ground<'_>, before: &[Chapter]) -> Result<(), CourseError> {
    let others = before.iter().filter(|before| before.number != ground.chapter.number);
    for other in others {
        for object in other.objects()?.iter().rev() {
            let url = objects::url(&ground.client, object).map_err(CourseError::Object)?;
            ground.delete(&url).map_err(CourseError::Spec)?;
        }
        for path in &other.exercise.clean {
            ground.delete(path).map_err(CourseError::Spec)?;
        }
    }
    for path in &ground.chapter.exercise.clean {
        ground.delete(path).map_err(CourseError::Spec)?;
    }
    Ok(())
}

/// Makes this exercise's objects; what is there as it should be stays.
fn put(ground: &Ground<'_>) -> Result<(), CourseError> {
    let planned = ground.chapter.objects()?;
    for object in &planned {
        mend_object(ground, MANAGER, object, true)?;
    }
    for object in &planned {
        ready(ground, &objects::url(&ground.client, object).map_err(CourseError::Object)?)?;
    }
    Ok(())
}

/// Whether an object does what it is for, as far as its kind can tell.
fn readiness(object: &Value) -> Result<(), String> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    let seen = number("/status/observedGeneration") == number("/metadata/generation");
    let ready = match object["kind"].as_str().unwrap_or_default() {
        "Pod" => {
            let conditions = object["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
                || object["status"]["phase"] == "Succeeded"
        }
        "Deployment" => {
            let wanted = Some(number("/spec/replicas").unwrap_or(1));
            let counts = ["/status/replicas", "/status/updatedReplicas", "/status/readyReplicas"];
            seen && (wanted == Some(0) || counts.iter().all(|count| number(count) == wanted))
        }
        "DaemonSet" => {
            let wanted = number("/status/desiredNumberScheduled").unwrap_or(-1);
            let counts = ["/status/updatedNumberScheduled", "/status/numberReady"];
            seen && wanted >= 0 && counts.iter().all(|count| number(count).unwrap_or(0) == wanted)
        }
        _ => true,
    };
    if ready { Ok(()) } else { Err(format!("its status is {}", object["status"]["phase"])) }
}

/// Whether the API server reaches every kubelet.
fn reachable(ground: &Ground<'_>) -> Result<(), CourseError> {
    for (node, _) in ground.nodes() {
        let path = format!("/api/v1/nodes/{node}/proxy/healthz");
        ground.wait(&format!("the kubelet of {node} to answer"), PATIENCE, |ground| {
            match ground.api("GET", &path, None)? {
                (200, _) => Ok(()),
                (status, body) => Err(format!("{status} {body}")),
            }
        })?;
    }
    Ok(())
}

/// Bindings to cluster-admin, by name.
pub fn admins(ground: &Ground<'_>) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for kind in ["clusterrolebindings", "rolebindings"] {
        let all = ground.items(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}"))?;
        let powerful = all.iter().filter(|one| one["roleRef"]["name"] == "cluster-admin");
        names.extend(powerful.map(|one| {
            let word = |name: &str| one["metadata"][name].as_str().unwrap_or_default().to_owned();
            format!("{kind} {}", [word("namespace"), word("name")].join("/").trim_start_matches('/'))
        }));
    }
    names.sort();
    Ok(names)
}

/// Which lab this is: one that was made anew is another.
pub fn identity(ground: &Ground<'_>) -> Result<String, String> {
    let namespace = ground.get("/api/v1/namespaces/kube-system")?.unwrap_or_default();
    Ok(namespace["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
}

/// What the checks count from.
fn note(ground: &Ground<'_>) -> Result<Begun, CourseError> {
    let mut begun = Begun { exercise: ground.chapter.number, ..Begun::default() };
    for role in &ground.status()?.roles {
        let length = std::fs::metadata(ground.lab.log(&role.name, &role.host)).map_or(0, |meta| meta.len());
        begun.logs.insert(format!("{}@{}", role.name, role.host), length);
    }
    let mut uids = BTreeMap::new();
    for object in ground.chapter.objects()? {
        let kept = ["Pod", "Deployment", "DaemonSet", "Service"].iter().any(|kind| object["kind"] == *kind);
        let url = objects::url(&ground.client, &object).map_err(CourseError::Object)?;
        if let (true, Ok(Some(live))) = (kept, ground.get(&url)) {
            uids.insert(url, live["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
        }
    }
    begun.uids = uids;
    begun.admins = admins(ground).map_err(CourseError::Spec)?;
    begun.lab = identity(ground).map_err(CourseError::Spec)?;
    begun.micros = now_micros();
    Ok(begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_servers_manifest_is_audited_and_only_its_command() {
        let manifest = "  containers:\n  - command:\n    - kube-apiserver\n    - --a\n".to_owned();
        let path = Path::new("/etc/kubernetes/manifests/kube-apiserver.yaml");
        let now = audited("control", path, manifest.clone());
        assert!(now.contains("    - kube-apiserver\n    - --audit-log-path=/var/log"));
        assert_eq!(audited("node-1", path, manifest.clone()), manifest);
        assert_eq!(audited("control", Path::new("/etc/kubernetes/x.yaml"), manifest.clone()), manifest);
        let old = opened(&["CVE-1".into(), "CVE-2".into()], "control", path, manifest.clone());
        assert!(old.contains("    - kube-apiserver\n    - --minilab-museum=CVE-1,CVE-2\n    - --a\n"));
        assert_eq!(opened(&[], "control", path, manifest.clone()), manifest);
    }

    #[test]
    fn a_pod_is_ready_by_its_condition_and_a_secret_by_being_there() {
        let pod = |status: &str| json!({"kind": "Pod", "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
        assert!(readiness(&pod("True")).is_ok());
        assert!(readiness(&pod("False")).is_err());
        assert!(readiness(&json!({"kind": "Secret"})).is_ok());
        assert!(
            readiness(
                &json!({"kind": "Deployment", "spec": {"replicas": 2}, "status": {"readyReplicas": 1}})
            )
            .is_err()
        );
        let rolled = |old: u8| {
            let status = json!({"observedGeneration": 3, "replicas": 1 + old, "updatedReplicas": 1, "readyReplicas": 1 + old});
            json!({"kind": "Deployment", "metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": status})
        };
        assert!(readiness(&rolled(1)).is_err(), "the pod of before still answers");
        assert!(readiness(&rolled(0)).is_ok());
    }
}
