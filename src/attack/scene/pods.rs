//! Pods of an attack: victims that hold the marker, and the attacker's own foot in the door.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::{Account, LABEL, PATIENCE, PHONE, SYSTEM, Scene};
use crate::attack::AttackError;
use crate::attack::question::Question;
use crate::attack::role::Answer;

/// Where every pod has its account's token.
const ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

impl Scene<'_> {
    /// Starts a pod of the toolbox and waits until it runs.
    pub fn pod(
        &mut self,
        node: Option<&str>,
        account: Account<'_>,
        command: &[String],
    ) -> Result<Pod, AttackError> {
        let (namespace, pod) = self.make_pod(node, account, command)?;
        let name = pod.metadata.name.unwrap_or_default();
        self.watch_pod(&namespace, &name, "start a pod", |pod| {
            let phase = pod.status.as_ref()?.phase.as_deref()?;
            (phase == "Running").then(|| pod.clone())
        })
    }

    fn make_pod(
        &mut self,
        node: Option<&str>,
        account: Account<'_>,
        command: &[String],
    ) -> Result<(String, Pod), AttackError> {
        self.pods += 1;
        let own = self.namespace()?;
        let (namespace, service_account) = match account {
            Account::System(name) => (SYSTEM.to_owned(), name),
            _ => (own, "default"),
        };
        let name = format!("attack-{}-{}", &self.marker["marker-".len()..], self.pods);
        let mut spec = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "serviceAccountName": service_account,
            "automountServiceAccountToken": !matches!(account, Account::Nobody),
            "containers": [{"name": "toolbox", "image": "minilab/toolbox", "command": command,
                "env": [{"name": "MARKER", "value": self.marker}]}],
        });
        if let Some(node) = node {
            spec["nodeName"] = json!(node);
        }
        let pod = json!({"metadata": {"name": name, "labels": {LABEL: ""}}, "spec": spec});
        let pod = self.create::<Pod>(Some(&namespace), pod)?;
        Ok((namespace, pod))
    }

    fn watch_pod<T>(
        &self,
        namespace: &str,
        name: &str,
        doing: &str,
        look: impl Fn(&Pod) -> Option<T>,
    ) -> Result<T, AttackError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let until = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            while Instant::now() < until {
                if let Ok(Some(pod)) = pods.get_opt(name).await
                    && let Some(found) = look(&pod)
                {
                    return Ok(found);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(AttackError::Late { doing: doing.into() })
        })
    }

    /// The pod of the lab's own client and its address, once it is the one its Deployment now asks for.
    pub fn phone(&self) -> Result<(String, String), AttackError> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(found) = self.settled_phone() {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(AttackError::Late { doing: format!("find the pod of {SYSTEM}/{PHONE}") })
    }

    fn settled_phone(&self) -> Option<(String, String)> {
        let deployment = self.api_json(&format!("/apis/apps/v1/namespaces/{SYSTEM}/deployments/{PHONE}"))?;
        let status = &deployment["status"];
        let rolled_out = status["observedGeneration"] == deployment["metadata"]["generation"]
            && status["updatedReplicas"] == 1
            && status["availableReplicas"] == 1;
        let pods = self.api_json(&format!("/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app%3D{PHONE}"))?;
        match pods["items"].as_array()?.as_slice() {
            [pod] if rolled_out && pod["metadata"]["deletionTimestamp"].is_null() => {
                let word = |pointer: &str| Some(pod.pointer(pointer)?.as_str()?.to_owned());
                Some((word("/metadata/name")?, word("/status/podIP")?))
            }
            _ => None,
        }
    }

    /// Deletes a pod and waits until it is gone.
    pub fn delete_pod(&self, pod: &Pod) -> Result<(), AttackError> {
        let meta = &pod.metadata;
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let until = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            let _ = pods.delete(&name, &at_once).await;
            while Instant::now() < until {
                if matches!(pods.get_opt(&name).await, Ok(None)) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(AttackError::Late { doing: "delete a pod".into() })
        })
    }

    /// One question asked from a pod.
    pub fn ask_from_pod(&mut self, account: Account<'_>, question: &Question) -> Result<Answer, AttackError> {
        let mut command = question.words();
        command.extend(["--into".into(), "/dev/termination-log".into()]);
        if !matches!(account, Account::Nobody) {
            command.extend(["--token-file".into(), ACCOUNT_TOKEN.into()]);
        }
        let (namespace, pod) = self.make_pod(None, account, &command)?;
        let name = pod.metadata.name.unwrap_or_default();
        let said = self.watch_pod(&namespace, &name, "ask from a pod", |pod| {
            let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
            let ended = statuses.first()?.state.as_ref()?.terminated.as_ref()?;
            Some(ended.message.clone().unwrap_or_default())
        })?;
        let unread =
            |why: String| AttackError::Host { host: "a pod".into(), what: "attacker http".into(), why };
        serde_json::from_str(&said).map_err(|error| unread(format!("{error}: {said}")))
    }
}
