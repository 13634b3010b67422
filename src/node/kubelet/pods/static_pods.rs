//! Static pods: what files on this node ask for, whatever the API says (`staticPodPath`).
//!
//! `pkg/kubelet/config/file.go` and `pkg/kubelet/pod/mirror_client.go`. Each file is one pod; its name gets
//! the node's as an ending, its uid is the hash of where and what it is. The API gets a mirror of it, to look
//! at: deleting the mirror changes nothing here, and another one is made. Whoever can write to the directory
//! runs what he likes on the node, and no admission or authorization is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use ring::digest;
use tokio::sync::mpsc;
use tracing::{error, info};

use super::super::credentials::Ears;

const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";
const MIRROR: &str = "kubernetes.io/config.mirror";
const SOURCE: &str = "kubernetes.io/config.source";
/// No manifest is longer.
const LONGEST: u64 = 1 << 20;

/// Where a node's own pods come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// A directory, or one file.
    pub path: PathBuf,
    pub every: Duration,
    pub node: Node,
}

/// Whether a pod was not asked for by the API.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source != "api") && mirror_of(pod).is_none()
}

/// The hash of the static pod this one is the mirror of.
pub fn mirror_of(pod: &Pod) -> Option<&str> {
    annotation(pod, MIRROR)
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// What the API is to show of a static pod.
pub fn mirror(pod: &Pod) -> Pod {
    let mut mirror = pod.clone();
    let hash = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.into(), hash);
    mirror.status = None;
    mirror
}

impl Source {
    /// Tells the pods now and whenever they change. For ever, or until nobody listens.
    pub async fn follow(self, tell: mpsc::Sender<Vec<Pod>>) {
        let mut last = None;
        loop {
            let pods = self.read();
            let uids: Vec<Option<String>> = pods.iter().map(|pod| pod.metadata.uid.clone()).collect();
            if last.as_ref() != Some(&uids) {
                info!(path = %self.path.display(), pods = uids.len(), "Read static pods");
                last = Some(uids);
                if tell.send(pods).await.is_err() {
                    return;
                }
            }
            // A directory that is not there yet is looked for again.
            let inside = if self.path.is_dir() { self.path.join("any") } else { self.path.clone() };
            let ears = Ears::on(&[inside]).ok();
            tokio::select! {
                () = Ears::hear(ears.as_ref()) => tokio::time::sleep(Duration::from_millis(50)).await,
                () = tokio::time::sleep(self.every) => {}
            }
        }
    }

    /// Every pod of the directory; the first of a name counts.
    pub fn read(&self) -> Vec<Pod> {
        let mut files: Vec<PathBuf> = match self.path.is_dir() {
            true => std::fs::read_dir(&self.path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_file() && !hidden(path))
                .collect(),
            false if self.path.is_file() => vec![self.path.clone()],
            false => Vec::new(),
        };
        files.sort();
        let mut pods = BTreeMap::new();
        for file in files {
            match self.pod(&file) {
                Ok(pod) => {
                    let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
                    pods.entry(key).or_insert(pod);
                }
                Err(why) => error!(path = %file.display(), why, "Can't process manifest file"),
            }
        }
        pods.into_values().collect()
    }

    fn pod(&self, file: &Path) -> Result<Pod, String> {
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size > LONGEST {
            return Err(format!("it has {size} bytes"));
        }
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let value: serde_json::Value = serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())?;
        if value["kind"] != "Pod" {
            return Err("it is no Pod".into());
        }
        let mut pod: Pod = serde_json::from_value(value).map_err(|error| error.to_string())?;
        self.settle(&mut pod, file, &text)?;
        Ok(pod)
    }

    /// What upstream fills in (`applyDefaults`), and the API's own defaults as far as this kubelet reads them.
    fn settle(&self, pod: &mut Pod, file: &Path, text: &str) -> Result<(), String> {
        let node = self.node.metadata.name.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().filter(|name| is_name(name)).ok_or("its name is none")?;
        let namespace = pod.metadata.namespace.clone().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".into());
        if !is_name(&namespace) {
            return Err(format!("{namespace:?} is no namespace"));
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [node.as_bytes(), file.as_os_str().as_encoded_bytes(), text.as_bytes()] {
            hash.update(part);
            hash.update(b"\0");
        }
        let hash: String = hash.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let meta = &mut pod.metadata;
        (meta.name, meta.namespace) = (Some(format!("{name}-{node}")), Some(namespace));
        meta.uid = Some(hash.clone());
        let annotations = meta.annotations.get_or_insert_default();
        annotations.insert(HASH.into(), hash);
        annotations.insert(SEEN.into(), Timestamp::now().to_string());
        annotations.insert(SOURCE.into(), "file".into());
        annotations.remove(MIRROR);
        meta.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: node.clone(),
            uid: self.node.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        pod.status = None;
        let spec =
            pod.spec.as_mut().filter(|spec| !spec.containers.is_empty()).ok_or("it has no containers")?;
        spec.node_name = Some(node);
        spec.restart_policy.get_or_insert_with(|| "Always".into());
        spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
        spec.termination_grace_period_seconds.get_or_insert(30);
        // Its tokens and secrets would come from the API.
        (spec.service_account_name, spec.service_account) = (None, None);
        spec.automount_service_account_token = None;
        let tolerates = Toleration {
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            ..Toleration::default()
        };
        spec.tolerations.get_or_insert_default().push(tolerates);
        Ok(())
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// A DNS subdomain, as names of objects are: it becomes part of paths.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 253
        && name.bytes().all(good)
        && ends(name.bytes().next())
        && ends(name.bytes().last())
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source(path: &Path) -> Source {
        let node = serde_json::from_value(json!({"metadata": {"name": "node-1", "uid": "u"}})).unwrap();
        Source { path: path.to_owned(), every: Duration::from_secs(20), node }
    }

    #[test]
    fn a_file_becomes_a_pod_of_this_node_and_its_mirror_points_back() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = |image: &str| {
            format!(
                "kind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: a, image: {image}}}]}}\n"
            )
        };
        std::fs::write(dir.path().join("web.yaml"), manifest("one")).unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), manifest("two")).unwrap();
        std::fs::write(dir.path().join("other.yaml"), "kind: ConfigMap").unwrap();
        std::fs::write(dir.path().join("evil.yaml"), manifest("x").replace("web", "../../etc")).unwrap();
        let pods = source(dir.path()).read();
        assert_eq!(pods.len(), 1);
        let pod = &pods[0];
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert!(is_static(pod) && mirror_of(pod).is_none());
        let mirror = mirror(pod);
        assert_eq!(mirror_of(&mirror), pod.metadata.uid.as_deref());
        assert!(!is_static(&mirror) && mirror.metadata.uid.is_none());
        let again = source(dir.path()).read();
        assert_eq!(again[0].metadata.uid, pod.metadata.uid);
        std::fs::write(dir.path().join("web.yaml"), manifest("three")).unwrap();
        assert_ne!(source(dir.path()).read()[0].metadata.uid, pod.metadata.uid, "another text, another pod");
    }

    #[test]
    fn a_directory_that_is_not_there_asks_for_nothing() {
        assert!(source(Path::new("/nowhere/at/all")).read().is_empty());
    }
}
