//! One HTTPS question, asked as somebody from somewhere, and whether its answer is the one that must come.

use serde_json::Value;

use super::Seen;
use crate::attack::role::Answer;
use crate::course::ground::{Ground, short};
use crate::course::schema::Ask;
use crate::lab::plan::endpoint;

/// A token that nobody ever issued.
const JUNK: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2JvZHkifQ.";
/// Where a kubelet keeps the certificate it shows.
const NODE_PEM: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Who asks, as far as the question's words tell.
enum Who<'a> {
    Admin,
    Token(String),
    Node(&'a str),
    Nobody,
}

pub fn ask(ground: &Ground<'_>, ask: &Ask) -> Result<Seen, String> {
    let who = who(ground, ask.who.as_deref().unwrap_or("none"))?;
    if let (Who::Admin, Some(path)) = (&who, &ask.path) {
        let body = ask.body.as_ref().map(|text| serde_json::from_str(text)).transpose();
        let body: Option<Value> = body.map_err(|error| format!("its body: {error}"))?;
        let (status, said) = ground.api(ask.method.as_deref().unwrap_or("GET"), path, body.as_ref())?;
        return Ok(judge(ask, Some(status), &said, &said));
    }
    let url = match (&ask.url, &ask.path) {
        (Some(url), _) => url.clone(),
        (None, Some(path)) => format!("{}{path}", endpoint()),
        (None, None) => return Err("a question has a path or a url".into()),
    };
    let mut words = vec![url];
    let mut with = |flag: &str, value: Option<&str>| {
        words.extend(value.map(|value| format!("--{flag}={value}")));
    };
    with("method", ask.method.as_deref());
    with("data", ask.body.as_deref());
    with("content-type", ask.body.as_ref().map(|_| "application/json"));
    with("find", ask.contains.as_deref());
    let (token, usual) = match &who {
        Who::Token(token) => (Some(token.clone()), "wire"),
        Who::Node(node) => {
            with("identity", Some(NODE_PEM));
            (None, *node)
        }
        _ => (None, "wire"),
    };
    let from = ask.from.as_deref().unwrap_or(usual);
    let answer = match from.strip_prefix("pod ") {
        Some(pod) => from_pod(ground, pod, &words, token)?,
        None => ground.question(from, &words, token)?,
    };
    let said = answer.line();
    let mut seen = judge(ask, answer.status, &answer.body, &said);
    // What is looked for may be farther into the answer than what is kept of it.
    if ask.contains.is_some()
        && !answer.found
        && !answer.error.contains(ask.contains.as_deref().unwrap_or(""))
    {
        seen.holds = false;
    }
    Ok(seen)
}

fn who<'a>(ground: &Ground<'_>, words: &'a str) -> Result<Who<'a>, String> {
    Ok(match words.split_once(' ') {
        None if words == "none" => Who::Nobody,
        None if words == "admin" => Who::Admin,
        None if words == "junk" => Who::Token(JUNK.into()),
        Some(("token", text)) => Who::Token(text.to_owned()),
        Some(("node", node)) => Who::Node(node),
        Some(("account", name)) => {
            let (namespace, name) = name.split_once('/').ok_or("an account is NS/NAME")?;
            Who::Token(ground.token(namespace, name)?)
        }
        _ => return Err(format!("nobody is called {words:?}")),
    })
}

/// By the pod's own toolbox.
fn from_pod(
    ground: &Ground<'_>,
    pod: &str,
    words: &[String],
    token: Option<String>,
) -> Result<Answer, String> {
    let (namespace, pod) = pod.split_once('/').ok_or("a pod is NS/NAME")?;
    let token = format!("ATTACKER_TOKEN={}", token.unwrap_or_default());
    let mut line = vec!["exec", "-n", namespace, pod, "--", "env"];
    if token.ends_with('=') {
        line.extend(["-u", "ATTACKER_TOKEN"]);
    } else {
        line.push(&token);
    }
    line.extend(["attacker", "http"]);
    line.extend(words.iter().map(String::as_str));
    let ran = ground.kubectl(&line)?;
    let said = ran.text.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(said).map_err(|_| format!("no answer from the pod: {}", short(&ran.text)))
}

fn judge(ask: &Ask, status: Option<u16>, body: &str, said: &str) -> Seen {
    let status_fits = ask.status.is_none_or(|wanted| status == Some(wanted));
    let answered =
        status.is_some() || ask.status.is_none() && (ask.contains.is_some() || ask.lacks.is_some());
    let has = match (&ask.contains, status) {
        (Some(wanted), None) => said.contains(wanted.as_str()),
        (Some(wanted), Some(_)) => body.contains(wanted.as_str()),
        (None, _) => true,
    };
    let clean = ask.lacks.as_ref().is_none_or(|unwanted| !body.contains(unwanted.as_str()));
    let value = ask.pointer.as_ref().map(|pointer| {
        let tree: Value = serde_json::from_str(body).unwrap_or_default();
        match tree.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    });
    let equal = match (&value, &ask.equals) {
        (Some(value), Some(wanted)) => value == wanted,
        (Some(value), None) => !value.is_empty(),
        _ => true,
    };
    let evidence = match value {
        Some(value) => format!("{} is {value:?}", ask.pointer.as_deref().unwrap_or_default()),
        None => match status {
            Some(status) if !said.starts_with(&status.to_string()) => format!("{status} {}", short(said)),
            _ => short(said),
        },
    };
    Seen::new(status_fits && answered && has && clean && equal, evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_by_its_status_its_words_and_its_fields() {
        let ask = |text: &str| -> Ask { serde_yaml_ng::from_str(text).unwrap() };
        let body = r#"{"kind": "Secret", "data": {"a": "b"}}"#;
        assert!(judge(&ask("{path: /, status: 200, contains: Secret}"), Some(200), body, body).holds);
        assert!(!judge(&ask("{path: /, status: 403}"), Some(200), body, body).holds);
        assert!(!judge(&ask("{path: /, lacks: Secret}"), Some(200), body, body).holds);
        assert!(judge(&ask("{path: /, pointer: /data/a, equals: b}"), Some(200), body, body).holds);
        assert!(!judge(&ask("{path: /, pointer: /data/c}"), Some(200), body, body).holds);
    }

    #[test]
    fn where_nothing_answers_only_a_text_about_that_can_hold() {
        let ask = |text: &str| -> Ask { serde_yaml_ng::from_str(text).unwrap() };
        let error = "dial tcp 192.0.2.11:10255: connect: connection refused";
        assert!(judge(&ask("{url: x, contains: connection refused}"), None, "", error).holds);
        assert!(!judge(&ask("{url: x}"), None, "", error).holds);
        assert!(!judge(&ask("{url: x, status: 200}"), None, "", error).holds);
    }
}
