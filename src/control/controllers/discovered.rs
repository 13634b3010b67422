//! Which kinds the API server has, asked from itself: for loops that work on all of them.

use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList};
use kube::Client;
use kube::core::ApiResource;

/// A kind as discovery describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Discovered {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// Every top-level resource of every group's preferred version.
pub async fn kinds(client: &Client) -> Result<Vec<Discovered>, kube::Error> {
    let (all, unanswered) = found(client).await?;
    unanswered.into_iter().next().map_or(Ok(all), |(_, error)| Err(error))
}

/// Every top-level resource that could be learned of, and the groups whose own server did not answer.
pub async fn found(client: &Client) -> Result<(Vec<Discovered>, Vec<(String, kube::Error)>), kube::Error> {
    let (mut all, mut unanswered) = (Vec::new(), Vec::new());
    let core: APIResourceList = get(client, "/api/v1").await?;
    all.extend(read("", "v1", core));
    let groups: APIGroupList = get(client, "/apis").await?;
    for group in groups.groups {
        let preferred = group.preferred_version.or_else(|| group.versions.first().cloned());
        let Some(version) = preferred else { continue };
        match get::<APIResourceList>(client, &format!("/apis/{}", version.group_version)).await {
            Ok(list) => all.extend(read(&group.name, &version.version, list)),
            Err(error) => unanswered.push((group.name, error)),
        }
    }
    Ok((all, unanswered))
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, kube::Error> {
    let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

fn read(group: &str, version: &str, list: APIResourceList) -> Vec<Discovered> {
    let top = list.resources.into_iter().filter(|one| !one.name.contains('/'));
    top.map(|one| Discovered {
        resource: ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
            kind: one.kind,
            plural: one.name,
        },
        namespaced: one.namespaced,
        verbs: one.verbs,
    })
    .collect()
}
