//! PodSecurity: the pod security standards, by labels on the namespace (`k8s.io/pod-security-admission`).
//!
//! `enforce` refuses pods, `warn` tells who made them, `audit` tells the audit log; for what makes pods
//! (Deployments and the like) only the latter two speak. A policy pinned to an older version is judged by
//! the checks of that version.

mod baseline;
mod restricted;
mod spec;

use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, Context, Operation};
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::{lookup, registry};
use spec::Pod;

const LABEL: &str = "pod-security.kubernetes.io/";
/// Of the pods in a namespace that is being tightened, this many are looked at.
const MOST_EXISTING: usize = 3000;

/// The three standards, from open to closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A standard at a version, as labels name it.
#[derive(Debug, Clone, PartialEq)]
struct Policy {
    level: Level,
    version: String,
}

/// One standard's complaint: its reason and what exactly.
type Fault = (String, String);
type Test = fn(&Pod<'_>) -> Option<Fault>;

/// The newest version there are checks for.
const NEWEST: u32 = 36;

/// One check, as it was from version to version.
struct Check {
    /// Upstream's.
    id: &'static str,
    /// Each from this minor version on; before the first there is no such check.
    versions: &'static [(u32, Test)],
    /// The baseline checks that this one does more strictly.
    replaces: &'static [&'static str],
}

impl Check {
    const fn new(id: &'static str, versions: &'static [(u32, Test)]) -> Self {
        Self { id, versions, replaces: &[] }
    }

    const fn instead_of(self, replaces: &'static [&'static str]) -> Self {
        Self { replaces, ..self }
    }

    fn at(&self, version: u32) -> Option<Test> {
        self.versions.iter().rev().find(|(from, _)| *from <= version).map(|(_, test)| *test)
    }
}

/// What holds where a namespace says nothing, and for whom nothing holds (`PodSecurityConfiguration`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurityConfiguration {
    defaults: std::collections::BTreeMap<String, String>,
    exemptions: Exemptions,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Level {
    fn read(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    /// What this standard asked at a version, in upstream's order.
    fn checks(self, version: u32) -> Vec<Test> {
        let strict: &[Check] = if self == Self::Restricted { restricted::CHECKS } else { &[] };
        let basic: &[Check] = if self == Self::Privileged { &[] } else { baseline::CHECKS };
        let replaced =
            |id: &str| strict.iter().any(|check| check.replaces.contains(&id) && check.at(version).is_some());
        let kept = basic.iter().filter(|check| !replaced(check.id));
        kept.chain(strict).filter_map(|check| check.at(version)).collect()
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        write!(out, "{level}:{}", self.version)
    }
}

impl Policy {
    /// Everything in the pod that this policy forbids, on one line; nothing when it allows the pod.
    fn violations(&self, pod: &Value) -> Option<String> {
        let pod = Pod::of(pod);
        let faults = self.level.checks(minor(&self.version)).into_iter().filter_map(|test| test(&pod));
        let texts: Vec<String> = faults
            .map(|(reason, detail)| if detail.is_empty() { reason } else { format!("{reason} ({detail})") })
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

pub(super) fn admit(context: &Context, write: &mut Attributes) -> Result<()> {
    if write.operation == Operation::Delete {
        return Ok(());
    }
    match (write.group.as_str(), write.resource.as_str(), write.subresource.as_str()) {
        ("", "namespaces", "") => namespace(context, write),
        ("", "pods", "" | "ephemeralcontainers") => pod(context, write),
        (_, _, "") => controller(context, write),
        _ => Ok(()),
    }
}

/// What one mode asks of the pods of a namespace.
fn policy(context: &Context, namespace: &Value, mode: &str) -> Policy {
    let labels = &namespace["metadata"]["labels"];
    let defaults = &context.pod_security.defaults;
    let value = |name: &str| {
        let label = labels[format!("{LABEL}{name}")].as_str();
        label.or_else(|| defaults.get(name).map(String::as_str)).unwrap_or_default().to_owned()
    };
    let written = value(mode);
    let level = match (written.as_str(), mode) {
        ("", _) => Level::Privileged,
        // What cannot be read closes the door; warnings and audit stay silent.
        (text, "enforce") => Level::read(text).unwrap_or(Level::Restricted),
        (text, _) => Level::read(text).unwrap_or(Level::Privileged),
    };
    let version = value(&format!("{mode}-version"));
    Policy { level, version: if version.is_empty() { "latest".into() } else { version } }
}

/// The namespace of a write, unless somebody is exempt.
fn subject(context: &Context, write: &mut Attributes) -> Result<Option<Value>> {
    let exempt = &context.pod_security.exemptions;
    let who = if exempt.namespaces.contains(&write.namespace) {
        "namespace"
    } else if exempt.usernames.contains(&write.user.name) {
        "user"
    } else {
        let found = lookup::object(&context.store, "", "namespaces", "", &write.namespace);
        return found.map(Some).ok_or_else(|| Status::not_found("", "namespaces", &write.namespace));
    };
    write.annotate("pod-security.kubernetes.io/exempt", who);
    Ok(None)
}

fn pod(context: &Context, write: &mut Attributes) -> Result<()> {
    let Some(object) = write.object.clone() else { return Ok(()) };
    if write.old.as_ref().is_some_and(|old| !spec::differs(&object, old)) {
        return Ok(());
    }
    let Some(namespace) = subject(context, write)? else { return Ok(()) };
    if is_exempt_class(context, &object["spec"]) {
        write.annotate("pod-security.kubernetes.io/exempt", "runtimeClass");
        return Ok(());
    }
    let enforced = policy(context, &namespace, "enforce");
    write.annotate("pod-security.kubernetes.io/enforce-policy", &enforced.to_string());
    audit(context, write, &namespace, &object);
    if let Some(violations) = enforced.violations(&object) {
        return Err(write.forbidden(format!("violates PodSecurity \"{enforced}\": {violations}")));
    }
    warn(context, write, &namespace, &object);
    Ok(())
}

/// What makes pods is never refused; its pods will be.
fn controller(context: &Context, write: &mut Attributes) -> Result<()> {
    let template = match (write.group.as_str(), write.resource.as_str()) {
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers") => "/spec/template",
        ("apps", "deployments" | "daemonsets" | "replicasets" | "statefulsets") => "/spec/template",
        ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return Ok(()),
    };
    let Some(template) = write.object.as_ref().and_then(|object| object.pointer(template)).cloned() else {
        return Ok(());
    };
    let Some(namespace) = subject(context, write)? else { return Ok(()) };
    if is_exempt_class(context, &template["spec"]) {
        return Ok(());
    }
    audit(context, write, &namespace, &template);
    warn(context, write, &namespace, &template);
    Ok(())
}

fn is_exempt_class(context: &Context, spec: &Value) -> bool {
    let class = lookup::text(spec, "/runtimeClassName");
    !class.is_empty() && context.pod_security.exemptions.runtime_classes.iter().any(|exempt| exempt == class)
}

fn audit(context: &Context, write: &mut Attributes, namespace: &Value, pod: &Value) {
    let policy = policy(context, namespace, "audit");
    if let Some(violations) = policy.violations(pod) {
        let text = format!("would violate PodSecurity \"{policy}\": {violations}");
        write.annotate("pod-security.kubernetes.io/audit-violations", &text);
    }
}

fn warn(context: &Context, write: &mut Attributes, namespace: &Value, pod: &Value) {
    let policy = policy(context, namespace, "warn");
    if let Some(violations) = policy.violations(pod) {
        write.warnings.push(format!("would violate PodSecurity \"{policy}\": {violations}"));
    }
}

/// Labels must make sense, and who tightens a namespace is told which of its pods would not be let in now.
fn namespace(context: &Context, write: &mut Attributes) -> Result<()> {
    let Some(object) = write.object.clone() else { return Ok(()) };
    let causes = faults(&object);
    if !causes.is_empty() {
        return Err(Status::invalid("", "Namespace", lookup::text(&object, "/metadata/name"), &causes));
    }
    let Some(old) = &write.old else { return Ok(()) };
    let (before, after) = (policy(context, old, "enforce"), policy(context, &object, "enforce"));
    if after == before || after.level <= before.level {
        return Ok(());
    }
    let name = lookup::text(&object, "/metadata/name").to_owned();
    if context.pod_security.exemptions.namespaces.contains(&name) {
        return Ok(());
    }
    let said = existing(context, &name, &after);
    if !said.is_empty() {
        write.warnings.push(format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{after}\""
        ));
        write.warnings.extend(said);
    }
    Ok(())
}

/// One line for each complaint, with the first pod it is about and how many more.
fn existing(context: &Context, namespace: &str, policy: &Policy) -> Vec<String> {
    let Some(row) = registry::by_name("", "pods") else { return Vec::new() };
    let prefix = format!("{namespace}/");
    let page = context.store.list(&row.bucket, &prefix, None, Some(MOST_EXISTING), None);
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for entry in page.map(|page| page.entries).unwrap_or_default() {
        let Ok(pod) = serde_json::from_slice::<Value>(&entry.value) else { continue };
        let Some(violations) = policy.violations(&pod) else { continue };
        let name = lookup::text(&pod, "/metadata/name").to_owned();
        match found.iter_mut().find(|(known, _)| *known == violations) {
            Some((_, pods)) => pods.push(name),
            None => found.push((violations, vec![name])),
        }
    }
    let line = |(violations, pods): (String, Vec<String>)| match pods.as_slice() {
        [one] => format!("{one}: {violations}"),
        [first, _] => format!("{first} (and 1 other pod): {violations}"),
        [first, rest @ ..] => format!("{first} (and {} other pods): {violations}", rest.len()),
        [] => violations,
    };
    found.into_iter().map(line).collect()
}

fn faults(namespace: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let label = |name: &str| namespace["metadata"]["labels"][format!("{LABEL}{name}")].clone();
        let (level, version) = (label(mode), label(&format!("{mode}-version")));
        if level.as_str().is_some_and(|text| Level::read(text).is_none()) {
            let field = format!("metadata.labels[{LABEL}{mode}]");
            causes.push(Cause::invalid(field, &level, "must be one of privileged, baseline, restricted"));
        }
        if version.as_str().is_some_and(|text| !is_version(text)) {
            let field = format!("metadata.labels[{LABEL}{mode}-version]");
            causes.push(Cause::invalid(field, &version, "must be \"latest\" or \"v1.x\""));
        }
    }
    causes
}

fn is_version(text: &str) -> bool {
    let minor = text.strip_prefix("v1.").unwrap_or_default();
    let digits = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
    text == "latest" || (digits && (minor == "0" || !minor.starts_with('0')))
}

/// The minor version a policy is judged by: of what is newer than we are, and of what cannot be read, the
/// newest.
fn minor(version: &str) -> u32 {
    let pinned = version.strip_prefix("v1.").filter(|_| is_version(version));
    pinned.and_then(|minor| minor.parse().ok()).map_or(NEWEST, |minor: u32| minor.min(NEWEST))
}

#[cfg(test)]
mod tests;
