//! What agent and server tell each other in the Connect call's headers (`proto/header`).

use tonic::metadata::{MetadataMap, MetadataValue};

use super::flow::Credits;

pub const AGENT_ID: &str = "agentid";
pub const AGENT_IDENTIFIERS: &str = "agentidentifiers";
const SERVER_ID: &str = "serverid";
const SERVER_COUNT: &str = "servercount";
/// Ours: sent by an agent that keeps to credits, answered by a server that does. Upstream's pass it over.
const CREDITS: &str = "minilab-credits";
const CREDITS_VERSION: &str = "1";

/// Who an agent says it is.
pub fn introduce(metadata: &mut MetadataMap, id: &str, identifiers: &str) -> Result<(), String> {
    let value = |text: &str| MetadataValue::try_from(text).map_err(|_| format!("{text:?} is no header"));
    metadata.insert(AGENT_ID, value(id)?);
    metadata.insert(AGENT_IDENTIFIERS, value(identifiers)?);
    metadata.insert(CREDITS, MetadataValue::from_static(CREDITS_VERSION));
    Ok(())
}

pub fn asked_for_credits(metadata: &MetadataMap) -> Credits {
    match metadata.get(CREDITS) {
        Some(value) if value == CREDITS_VERSION => Credits::Agreed,
        _ => Credits::Unknown,
    }
}

/// The server's answer, before any packet.
pub fn answer(metadata: &mut MetadataMap, id: &str, count: usize, credits: Credits) {
    if let Ok(id) = MetadataValue::try_from(id) {
        metadata.insert(SERVER_ID, id);
    }
    metadata.insert(SERVER_COUNT, MetadataValue::from(count));
    if credits == Credits::Agreed {
        metadata.insert(CREDITS, MetadataValue::from_static(CREDITS_VERSION));
    }
}

/// A server, as its answer describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub id: String,
    pub count: usize,
    pub credits: Credits,
}

/// Reads a server's answer; both values exactly once.
pub fn server(metadata: &MetadataMap) -> Result<Server, String> {
    let one = |name: &str| {
        let values: Vec<_> = metadata.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        match values.as_slice() {
            [one] => Ok((*one).to_owned()),
            other => Err(format!("expected one {name} in the context, got {other:?}")),
        }
    };
    let count = one(SERVER_COUNT)?;
    Ok(Server {
        id: one(SERVER_ID)?,
        count: count.parse().map_err(|_| format!("invalid server count {count:?}"))?,
        credits: asked_for_credits(metadata),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_agreed_only_when_both_say_so() {
        let mut agent = MetadataMap::new();
        introduce(&mut agent, "a", "ipv4=10.0.0.1").unwrap();
        let mut own = MetadataMap::new();
        answer(&mut own, "s", 2, asked_for_credits(&agent));
        assert_eq!(server(&own), Ok(Server { id: "s".into(), count: 2, credits: Credits::Agreed }));
        let mut upstreams = MetadataMap::new();
        answer(&mut upstreams, "s", 1, asked_for_credits(&MetadataMap::new()));
        assert_eq!(server(&upstreams).unwrap().credits, Credits::Unknown);
        assert!(server(&MetadataMap::new()).is_err() && introduce(&mut agent, "a\n", "").is_err());
    }
}
