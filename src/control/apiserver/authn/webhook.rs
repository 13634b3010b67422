//! `--authentication-token-webhook-config-file`: asks another server whose token it is
//! (`apiserver/plugin/pkg/authenticator/token/webhook`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::lookup::text;
use super::super::remote::Remote;
use super::super::user::UserInfo;
use super::tokens::Owner;

const CACHED: usize = 4096;

/// A remote TokenReview.
pub(super) struct TokenWebhook {
    remote: Remote,
    version: String,
    /// `--authentication-token-webhook-cache-ttl`, for yes and no alike.
    ttl: Duration,
    known: Mutex<Known>,
}

/// Answers by token and audiences, each with its end.
type Known = HashMap<(String, Vec<String>), (Instant, Option<Owner>)>;

impl TokenWebhook {
    pub(super) fn new(remote: Remote, version: &str, ttl: Duration) -> Self {
        Self { remote, version: version.to_owned(), ttl, known: Mutex::default() }
    }

    /// Whose token the other server says it is.
    pub(super) async fn owner(
        &self,
        token: &str,
        wanted: &[String],
        api: &[String],
    ) -> Result<Option<Owner>, String> {
        let key = (token.to_owned(), wanted.to_vec());
        {
            let known = self.known.lock().expect("nothing panics while holding the lock");
            if let Some((_, owner)) = known.get(&key).filter(|(until, _)| Instant::now() < *until) {
                return Ok(owner.clone());
            }
        }
        let review = json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": wanted},
            "status": {"user": {}},
        });
        let answer = self.remote.post(&review).await.map_err(|error| chain(&error))?;
        let owner = read(&answer["status"], wanted, api)?;
        let mut known = self.known.lock().expect("nothing panics while holding the lock");
        if known.len() >= CACHED {
            known.clear();
        }
        known.insert(key, (Instant::now() + self.ttl, owner.clone()));
        Ok(owner)
    }
}

/// What a review's status says.
fn read(status: &Value, wanted: &[String], api: &[String]) -> Result<Option<Owner>, String> {
    if status["authenticated"] != true {
        return match text(status, "/error") {
            "" => Ok(None),
            error => Err(error.to_owned()),
        };
    }
    let said = strings(&status["audiences"]);
    // A server that knows no audiences speaks for the API server's own.
    let of_token = if said.is_empty() { api } else { &said };
    let audiences: Vec<String> = wanted.iter().filter(|one| of_token.contains(one)).cloned().collect();
    if audiences.is_empty() {
        return Ok(None);
    }
    let user = &status["user"];
    let extra: BTreeMap<String, Vec<String>> = user["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.clone(), strings(values)))
        .collect();
    let user = UserInfo {
        name: text(user, "/username").into(),
        uid: text(user, "/uid").into(),
        groups: strings(&user["groups"]),
        extra,
    };
    Ok(Some(Owner::new(user, audiences)))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
