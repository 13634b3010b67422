//! ConfigMaps, Secrets and tokens as a pod's containers and volumes need them, read from the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Mutex;

use super::super::api_text;
use super::PodError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    ConfigMap,
    Secret,
}

impl Source {
    /// As error messages write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// An object's keys, or nothing where there is no such object.
pub type Data = Option<Arc<BTreeMap<String, Vec<u8>>>>;

/// What has been read for one container or volume.
#[derive(Debug, Clone, Default)]
pub struct Fetched(BTreeMap<(Source, String), Data>);

impl Fetched {
    pub fn get(&self, source: Source, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.0.get(&(source, name.to_owned()))?.as_deref()
    }

    pub fn insert(&mut self, source: Source, name: &str, data: Data) {
        self.0.insert((source, name.to_owned()), data);
    }

    pub fn contains(&self, source: Source, name: &str) -> bool {
        self.0.contains_key(&(source, name.to_owned()))
    }
}

/// Reads one pod's objects; keeps its tokens until they are due.
pub struct Objects {
    client: Client,
    namespace: String,
    tokens: Mutex<BTreeMap<(String, i64), Token>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    refresh_at: Timestamp,
}

impl Objects {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.into(), tokens: Mutex::default() }
    }

    /// Reads what is not in `into` yet.
    pub async fn fetch(&self, into: &mut Fetched, wanted: &[(Source, String)]) -> Result<(), PodError> {
        for (source, name) in wanted {
            if !into.contains(*source, name) {
                let data = self.read(*source, name).await?;
                into.insert(*source, name, data);
            }
        }
        Ok(())
    }

    async fn read(&self, source: Source, name: &str) -> Result<Data, PodError> {
        let outcome = match source {
            Source::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
                api.get_opt(name).await.map(|found| {
                    found.map(|map| {
                        let texts =
                            map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
                        let bytes = map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0));
                        Arc::new(texts.chain(bytes).collect())
                    })
                })
            }
            Source::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
                api.get_opt(name).await.map(|found| {
                    found.map(|secret| {
                        Arc::new(
                            secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect(),
                        )
                    })
                })
            }
        };
        outcome.map_err(|error| PodError::Api { message: api_text(&error) })
    }

    /// The directory of the node that a claim stands for.
    pub async fn claimed(&self, claim: &str) -> Result<HostPathVolumeSource, PodError> {
        let api = |error: kube::Error| PodError::Api { message: api_text(&error) };
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = claims.get_opt(claim).await.map_err(api)?;
        let Some(found) = found else {
            return Err(PodError::Volume(format!("persistentvolumeclaim {claim:?} not found")));
        };
        let name = found.spec.and_then(|spec| spec.volume_name).filter(|name| !name.is_empty());
        let Some(name) = name else {
            return Err(PodError::Volume(format!("persistentvolumeclaim {claim:?} is not bound")));
        };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = volumes.get_opt(&name).await.map_err(api)?;
        let spec = volume.and_then(|volume| volume.spec);
        let Some(spec) = spec else {
            return Err(PodError::Volume(format!("persistentvolume {name:?} not found")));
        };
        let local = spec
            .local
            .map(|local| HostPathVolumeSource { path: local.path, type_: Some("Directory".into()) });
        spec.host_path.or(local).ok_or_else(|| {
            PodError::Volume(format!(
                "no volume plugin matched: the kind of persistentvolume {name:?} is not supported"
            ))
        })
    }

    /// A token bound to the pod; a new one when four fifths of its life (or a day) are over.
    pub async fn token(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<String, PodError> {
        let now = Timestamp::now();
        let key = (audience.to_owned(), seconds);
        let mut tokens = self.tokens.lock().await;
        if let Some(token) = tokens.get(&key).filter(|token| now < token.refresh_at) {
            return Ok(token.text.clone());
        }
        match self.request(pod, audience, seconds).await {
            Ok(text) => {
                let life = SignedDuration::from_secs((seconds / 5 * 4).min(24 * 3600));
                let refresh_at = now.saturating_add(life).unwrap_or(now);
                tokens.insert(key, Token { text: text.clone(), refresh_at });
                Ok(text)
            }
            // An old one may still be good for a fifth of its life.
            Err(error) => tokens.get(&key).map(|token| token.text.clone()).ok_or(error),
        }
    }

    async fn request(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<String, PodError> {
        let account =
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let wish = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience.to_owned()]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    kind: Some("Pod".into()),
                    api_version: Some("v1".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let failed = |message: String| PodError::Token { message };
        let answer: TokenRequest = api
            .create_subresource("token", account, &PostParams::default(), &wish)
            .await
            .map_err(|error| failed(api_text(&error)))?;
        let token = answer.status.and_then(|status| status.token).filter(|token| !token.is_empty());
        token.ok_or_else(|| failed("the API server answered without a token".into()))
    }
}
