//! The scene of an attack: the marker nobody could have guessed, the objects it needs, commands in hosts and
//! pods, and the clearing away. What a killed attack left is found by its label and cleared by its guard, or by
//! the next one.

pub mod guard;
mod pods;
mod sweep;

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Error};
use ring::rand::SecureRandom;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::AttackError;
use super::question::Question;
use super::role::Answer;
use super::running::{Running, start};
use crate::client::{self, Backoff};
use crate::lab::plan::{HostKind, Plan};
use crate::lab::state::LabDir;
use guard::Guard;

/// How long the cluster may take for what a learner would wait for.
const PATIENCE: Duration = Duration::from_secs(60);
/// No more of a log is read.
const LONGEST_LOG: u64 = 4 << 20;
/// On everything an attack makes.
const LABEL: &str = "minilab.dev/attack";
/// The lab's own accounts' namespace.
pub const SYSTEM: &str = "minilab-system";
/// The lab's own client there: its Deployment and its account.
pub const PHONE: &str = "phone-home";

/// Where an attack happens.
pub struct Scene<'a> {
    lab: &'a LabDir,
    pub plan: Plan,
    runtime: Runtime,
    client: Client,
    /// What only this attack knows.
    pub marker: String,
    namespace: Option<String>,
    pods: usize,
    guard: Option<Guard>,
}

/// A node and where it is.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    pub address: String,
}

/// Whose token a pod is given.
#[derive(Debug, Clone, Copy)]
pub enum Account<'a> {
    Nobody,
    /// The default account of the attack's own namespace.
    Default,
    /// One of the lab's own.
    System(&'a str),
}

impl<'a> Scene<'a> {
    pub fn set(lab: &'a LabDir) -> Result<Scene<'a>, AttackError> {
        let mut scene = Self::of(lab)?;
        scene.clear();
        // One that finds another's note follows one that was killed.
        if scene.note().exists() {
            scene.sweep()?;
        }
        scene.guard = Some(Guard::post(lab)?);
        std::fs::write(scene.note(), &scene.marker)?;
        Ok(scene)
    }

    fn of(lab: &'a LabDir) -> Result<Scene<'a>, AttackError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AttackError::Runtime)?;
        let client = runtime.block_on(async { client::from_kubeconfig(lab.kubeconfig()) })?;
        let plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
        let marker = format!("marker-{}", random_word()?);
        Ok(Scene { lab, plan, runtime, client, marker, namespace: None, pods: 0, guard: None })
    }

    /// Takes everything away that attacks have made, this one and those that were killed.
    pub fn strike(mut self) {
        self.clear();
        // A note that stays only has the next one look once more.
        let _ = std::fs::remove_file(self.note());
        self.guard.take().into_iter().for_each(Guard::dismiss);
    }

    /// Says on disk that an attack is going on.
    fn note(&self) -> PathBuf {
        self.lab.state.join("attack.marker")
    }

    fn clear(&self) {
        let client = self.client.clone();
        self.runtime.block_on(async {
            let ours = ListParams::default().labels(LABEL);
            let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
            for pod in pods.list(&ours).await.map(|list| list.items).unwrap_or_default() {
                let _ = pods.delete(&pod.metadata.name.unwrap_or_default(), &at_once).await;
            }
            let namespaces: Api<Namespace> = Api::all(client);
            for space in namespaces.list(&ours).await.map(|list| list.items).unwrap_or_default() {
                let gone = space.metadata.deletion_timestamp.is_some();
                if !gone {
                    let _ = namespaces.delete(&space.metadata.name.unwrap_or_default(), &at_once).await;
                }
            }
        });
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> Vec<Node> {
        let nodes = self.plan.hosts.iter().filter(|host| host.kind == HostKind::Node);
        nodes
            .map(|host| Node {
                name: host.name.clone(),
                address: host.addresses.first().map(|net| net.addr().to_string()).unwrap_or_default(),
            })
            .collect()
    }

    /// The first node, where N stands.
    pub fn node(&self) -> Result<Node, AttackError> {
        self.nodes().into_iter().next().ok_or_else(|| AttackError::Scene("the lab has no node".into()))
    }

    /// The attack's own namespace, with a Secret `marker` in it that holds the marker.
    pub fn namespace(&mut self) -> Result<String, AttackError> {
        if let Some(namespace) = &self.namespace {
            return Ok(namespace.clone());
        }
        let name = format!("attack-{}", &self.marker["marker-".len()..]);
        let labels = json!({LABEL: "", "app.kubernetes.io/managed-by": "minilab"});
        let space = json!({"metadata": {"name": name, "labels": labels}});
        self.create::<Namespace>(None, space)?;
        self.namespace = Some(name.clone());
        let secret = json!({"metadata": {"name": "marker"}, "stringData": {"marker": self.marker}});
        self.create::<Secret>(Some(&name), secret)?;
        Ok(name)
    }

    /// What the Secret's JSON has of the marker.
    pub fn marker_in_secret(&self) -> String {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode(&self.marker)
    }

    /// Where the marker's Secret is asked for.
    pub fn secret_path(&mut self) -> Result<String, AttackError> {
        Ok(format!("/api/v1/namespaces/{}/secrets/marker", self.namespace()?))
    }

    fn create<K>(&self, namespace: Option<&str>, object: Value) -> Result<K, AttackError>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
        Api<K>: Sized,
    {
        let doing = format!("create a {}", K::kind(&()));
        let url = K::url_path(&(), namespace);
        let client = self.client.clone();
        self.patiently(&doing, || {
            let (client, url, object) = (client.clone(), url.clone(), object.clone());
            async move {
                let mut object = object;
                object["apiVersion"] = json!(K::api_version(&()));
                object["kind"] = json!(K::kind(&()));
                let body = serde_json::to_vec(&object).map_err(Error::SerdeError)?;
                let request = http::Request::post(url)
                    .header("Content-Type", "application/json")
                    .body(body)
                    .map_err(Error::HttpError)?;
                client.request::<K>(request).await
            }
        })
    }

    /// Gives the default account of a namespace the role `edit` there.
    pub fn grant_edit(&self, namespace: &str) -> Result<(), AttackError> {
        let binding = json!({
            "metadata": {"name": "edit"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        });
        self.create::<RoleBinding>(Some(namespace), binding).map(drop)
    }

    /// Asks again while the far end does not listen yet.
    pub fn ask_until_served(
        &self,
        host: &str,
        token: &str,
        question: &Question,
    ) -> Result<Answer, AttackError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask_from_host(host, Some(token), question)?;
            if answer.status != Some(503) || Instant::now() >= until {
                return Ok(answer);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Tries while the cluster may only need a moment.
    fn patiently<T, F>(&self, doing: &str, attempt: impl Fn() -> F) -> Result<T, AttackError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            let mut backoff = Backoff::new();
            loop {
                match attempt().await {
                    Ok(value) => return Ok(value),
                    Err(Error::Api(status)) if status.code == 409 || Instant::now() >= until => {
                        return Err(AttackError::Api { doing: doing.into(), source: Error::Api(status) });
                    }
                    Err(source) if Instant::now() >= until => {
                        return Err(AttackError::Api { doing: doing.into(), source });
                    }
                    Err(_) => backoff.wait().await,
                }
            }
        })
    }

    /// What the API answers the administrator; a refusal is an answer too.
    pub fn api_get(&self, path: &str) -> Answer {
        let client = self.client.clone();
        let request = http::Request::get(path).body(Vec::new());
        let Ok(request) = request else { return Answer::default() };
        match self.runtime.block_on(client.request_text(request)) {
            Ok(body) => Answer::of(200, body.as_bytes(), Some(&self.marker)),
            Err(Error::Api(status)) => Answer::of(status.code, status.message.as_bytes(), Some(&self.marker)),
            Err(error) => Answer { error: crate::net::go_text(&error), ..Answer::default() },
        }
    }

    /// An object as the administrator reads it; nothing where it cannot be read.
    pub fn api_json(&self, path: &str) -> Option<Value> {
        let client = self.client.clone();
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        let body = self.runtime.block_on(client.request_text(request)).ok()?;
        serde_json::from_str(&body).ok()
    }

    /// Takes away what the attacker made where it had no namespace.
    pub fn api_delete(&self, path: &str) {
        let client = self.client.clone();
        if let Ok(request) = http::Request::delete(path).body(Vec::new()) {
            // What is gone already is as well.
            let _ = self.runtime.block_on(client.request_text(request));
        }
    }

    /// A merge patch by the administrator, to put something right again.
    pub fn api_patch(&self, path: &str, patch: &Value) -> Result<(), AttackError> {
        let body = patch.to_string().into_bytes();
        let client = self.client.clone();
        self.patiently("put the object right", || {
            let (client, body) = (client.clone(), body.clone());
            async move {
                let request = http::Request::patch(path)
                    .header("Content-Type", "application/merge-patch+json")
                    .body(body)
                    .map_err(Error::HttpError)?;
                client.request_text(request).await.map(drop)
            }
        })
    }

    /// A token of a service account, bound to a pod where one is given.
    pub fn token(&self, namespace: &str, account: &str, pod: Option<&Pod>) -> Result<String, AttackError> {
        let mut spec = json!({"audiences": [], "expirationSeconds": 3600});
        if let Some(pod) = pod {
            let meta = &pod.metadata;
            spec["boundObjectRef"] =
                json!({"kind": "Pod", "apiVersion": "v1", "name": meta.name, "uid": meta.uid});
        }
        let request: TokenRequest = serde_json::from_value(json!({"spec": spec}))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let made = self.patiently("ask for a token", || {
            let (accounts, request) = (accounts.clone(), request.clone());
            async move { accounts.create_token_request(account, &PostParams::default(), &request).await }
        })?;
        let token = made.status.and_then(|status| status.token);
        token.ok_or_else(|| AttackError::Scene("the API server gave no token".into()))
    }

    /// A Secret's field as text, once somebody has filled it in; nothing where there is no such Secret.
    pub fn secret_field(&self, namespace: &str, name: &str, field: &str) -> Option<String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let until = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            while Instant::now() < until {
                let secret = secrets.get_opt(name).await.ok()??;
                if let Some(bytes) = secret.data.and_then(|mut data| data.remove(field)) {
                    return String::from_utf8(bytes.0).ok();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None
        })
    }

    /// How long a role's log is now.
    pub fn log_length(&self, role: &str, host: &str) -> u64 {
        std::fs::metadata(self.lab.log(role, host)).map_or(0, |meta| meta.len())
    }

    /// The first line with these words that a role has logged since.
    pub fn log_line_since(&self, role: &str, host: &str, since: u64, words: &str) -> Option<String> {
        let mut file = std::fs::File::open(self.lab.log(role, host)).ok()?;
        file.seek(SeekFrom::Start(since)).ok()?;
        let mut text = Vec::new();
        file.take(LONGEST_LOG).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.lines().find(|line| line.contains(words)).map(str::to_owned)
    }

    /// One question asked from a host, with a token where one is given.
    pub fn ask_from_host(
        &self,
        host: &str,
        token: Option<&str>,
        question: &Question,
    ) -> Result<Answer, AttackError> {
        let env = token.map(|token| ("ATTACKER_TOKEN".to_owned(), token.to_owned()));
        let said = self.output(host, question.words(), env.into_iter().collect())?;
        serde_json::from_str(said.lines().last().unwrap_or_default()).map_err(|error| AttackError::Host {
            host: host.to_owned(),
            what: "attacker http".into(),
            why: format!("{error}: {said}"),
        })
    }

    /// A command's output in a host.
    pub fn output(
        &self,
        host: &str,
        argv: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<String, AttackError> {
        let running = self.start(host, argv, env)?;
        let until = Instant::now() + PATIENCE;
        let mut text = String::new();
        while let Some(line) = running.line(until) {
            text += &line;
            text.push('\n');
        }
        Ok(text)
    }

    /// Starts a command in a host; it ends when what this gives is dropped.
    pub fn start(
        &self,
        host: &str,
        argv: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Running, AttackError> {
        start(self.lab, host, argv, env)
    }
}

fn random_word() -> Result<String, AttackError> {
    let mut bytes = [0; 6];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| AttackError::Scene("the system gave no random bytes".into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
