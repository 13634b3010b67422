//! What the lab itself says happened since an exercise began: the audit trail, roles' logs, objects' uids.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use super::Seen;
use crate::course::ground::{Ground, short};
use crate::course::schema::{Audit, Log};
use crate::course::stage::AUDIT_LOG;
use crate::lab::files::Tree;

/// No more of a log is read.
const LONGEST: u64 = 4 << 20;

/// Finished requests since the exercise began.
pub fn requests(ground: &Ground<'_>) -> Result<Vec<Value>, String> {
    let tree = Tree::of(ground.lab, "control").map_err(|error| error.to_string())?;
    let bytes = tree.tail(Path::new(AUDIT_LOG)).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let since = |event: &Value| {
        let stamp = event["requestReceivedTimestamp"].as_str().unwrap_or_default();
        stamp.parse::<jiff::Timestamp>().is_ok_and(|stamp| stamp.as_microsecond() >= ground.begun.micros)
    };
    Ok(events.filter(|event| event["stage"] != "RequestReceived" && since(event)).collect())
}

pub fn audit(ground: &Ground<'_>, wanted: &Audit) -> Result<Seen, String> {
    let found = requests(ground)?.into_iter().find(|event| fits(event, wanted));
    Ok(match found {
        None => Seen::new(false, "the audit trail has no such request yet"),
        Some(event) => {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (who, verb) = (word(&event["user"]["username"]), word(&event["verb"]));
            let (uri, code) = (word(&event["requestURI"]), &event["responseStatus"]["code"]);
            Seen::new(true, format!("audit: {who} {verb} {uri}: {code}"))
        }
    })
}

fn fits(event: &Value, wanted: &Audit) -> bool {
    let is = |value: &Value, word: &Option<String>| word.as_ref().is_none_or(|word| value == word.as_str());
    let begins = |value: &Value, word: &Option<String>| {
        word.as_ref().is_none_or(|word| value.as_str().is_some_and(|value| value.starts_with(word.as_str())))
    };
    let has = |value: &Value, word: &Option<String>| {
        word.as_ref().is_none_or(|word| value.as_str().is_some_and(|value| value.contains(word.as_str())))
    };
    let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
    is(&event["user"]["username"], &wanted.user)
        && is(&event["verb"], &wanted.verb)
        && begins(&event["requestURI"], &wanted.path)
        && is(&event["objectRef"]["resource"], &wanted.resource)
        && is(&event["objectRef"]["subresource"], &wanted.subresource)
        && has(&event["userAgent"], &wanted.agent)
        && wanted.status.is_none_or(|status| code == u64::from(status))
        && wanted.code_below.is_none_or(|limit| code < u64::from(limit))
}

/// A line with these words in a role's log since the exercise began.
pub fn log(ground: &Ground<'_>, wanted: &Log) -> Result<Seen, String> {
    let path = ground.lab.log(&wanted.role, &wanted.host);
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(&path)?;
        let since = ground.begun.logs.get(&format!("{}@{}", wanted.role, wanted.host)).copied();
        file.seek(SeekFrom::Start(since.unwrap_or_default()))?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().map_err(|error| format!("the log of {}: {error}", wanted.role))?;
    let found = text.lines().find(|line| line.contains(&wanted.contains));
    Ok(match found {
        Some(line) => Seen::new(true, format!("{}: {}", wanted.role, short(line))),
        None => Seen::new(false, format!("the log of {}@{} does not say it", wanted.role, wanted.host)),
    })
}

/// Whether objects (`pods NS/NAME`, or their paths) are the ones that were there when the exercise began.
pub fn same(ground: &Ground<'_>, objects: &[String]) -> Seen {
    for object in objects {
        let Some(url) = url(object) else { return Seen::new(false, format!("{object:?} names no object")) };
        let live = match ground.get(&url) {
            Ok(Some(live)) => live,
            Ok(None) => return Seen::new(false, format!("{url} is gone")),
            Err(error) => return Seen::new(false, error),
        };
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default();
        if !live["metadata"]["deletionTimestamp"].is_null() {
            return Seen::new(false, format!("{url} is being deleted"));
        }
        if ground.begun.uids.get(&url).is_some_and(|before| before != uid) {
            return Seen::new(false, format!("{url} is another one of that name"));
        }
        let replicas = &live["spec"]["replicas"];
        if live["kind"] == "Deployment" && replicas == 0 {
            return Seen::new(false, format!("{url} was scaled to nothing"));
        }
    }
    Seen::new(true, "")
}

fn url(object: &str) -> Option<String> {
    if object.starts_with('/') {
        return Some(object.to_owned());
    }
    let (kind, name) = object.split_once(' ')?;
    let (namespace, name) = name.split_once('/')?;
    let group = match kind {
        "deployments" | "daemonsets" | "replicasets" => "/apis/apps/v1",
        _ => "/api/v1",
    };
    Some(format!("{group}/namespaces/{namespace}/{kind}/{name}"))
}

/// Whether these roles serve; without names, all of them.
pub fn running(ground: &Ground<'_>, roles: &[String]) -> Seen {
    let status = match ground.status() {
        Ok(status) => status,
        Err(error) => return Seen::new(false, error.to_string()),
    };
    let name = |role: &crate::lab::protocol::RoleStatus| format!("{}@{}", role.name, role.host);
    let meant = |role: &&crate::lab::protocol::RoleStatus| {
        roles.is_empty() || roles.iter().any(|wanted| *wanted == role.name || *wanted == name(role))
    };
    // One that only a manifest of one's own brought may be taken away again.
    let wanted = |role: &&crate::lab::protocol::RoleStatus| {
        role.state != "stopped" || ground.plan.has_role(&role.name, &role.host)
    };
    let mut needed = status.roles.iter().filter(meant).filter(wanted);
    let broken = needed.find(|role| !role.ready && role.state != "finished");
    match broken {
        Some(role) => Seen::new(false, format!("{} is {}", name(role), role.state)),
        None => Seen::new(true, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_fits_by_each_word_that_is_asked_for() {
        let event = json!({"stage": "ResponseComplete", "verb": "get", "requestURI": "/api/v1/secrets?limit=5",
            "user": {"username": "system:anonymous"}, "objectRef": {"resource": "secrets"},
            "responseStatus": {"code": 403}, "userAgent": "curl/8"});
        let wanted = |text: &str| -> Audit { serde_yaml_ng::from_str(text).unwrap() };
        assert!(fits(
            &event,
            &wanted("{user: 'system:anonymous', path: /api/v1/secrets, status: 403, agent: curl}")
        ));
        assert!(!fits(&event, &wanted("{subresource: exec}")));
        assert!(!fits(&event, &wanted("{code-below: 400}")));
    }

    #[test]
    fn objects_are_named_by_kind_or_path() {
        assert_eq!(url("pods default/web").unwrap(), "/api/v1/namespaces/default/pods/web");
        assert_eq!(url("deployments a/b").unwrap(), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(url("pods web"), None);
    }
}
