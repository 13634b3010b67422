//! tokencleaner: deletes bootstrap tokens when they expire, to the second.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tracing::info;

use crate::client::informer::{key_of, split_key};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.tokens.on_change(move |_, new| {
        if let Some(token) = new {
            fed.add(key_of(&**token));
        }
    });
    let actor = world.actor("token-cleaner", "token-cleaner");
    let world = world.clone();
    Box::pin(async move { queue.work("tokencleaner", 1, |key| clean(&world, &actor, key)).await })
}

/// A field of a token's Secret, as text.
pub fn field<'a>(token: &'a Secret, name: &str) -> Option<&'a str> {
    token.data.as_ref()?.get(name).and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
}

/// How long a token still counts; `None` = for ever. What cannot be read has expired.
pub fn remaining(token: &Secret, now: Timestamp) -> Option<Duration> {
    let expiration = field(token, "expiration").filter(|text| !text.is_empty())?;
    let left = expiration.parse::<Timestamp>().map_or(0, |end| end.as_millisecond() - now.as_millisecond());
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

async fn clean(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(token) = world.tokens.get(&key) else { return Ok(Next::Done) };
    match remaining(&token, Timestamp::now()) {
        None => return Ok(Next::Done),
        Some(left) if !left.is_zero() => return Ok(Next::After(left)),
        Some(_) => {}
    }
    let (namespace, name) = split_key(&key);
    let api: Api<Secret> = Api::namespaced(actor.client.clone(), namespace);
    let only_this = Preconditions { uid: token.metadata.uid.clone(), resource_version: None };
    match api.delete(name, &DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() }).await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => other.map(drop)?,
    }
    info!(secret = key, "deleted an expired bootstrap token");
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn a_token_without_an_end_stays_and_an_unreadable_end_is_now() {
        let now = Timestamp::from_second(1000).unwrap();
        let token = |expiration: &str| Secret {
            data: Some([("expiration".to_owned(), ByteString(expiration.as_bytes().to_vec()))].into()),
            ..Secret::default()
        };
        assert_eq!(remaining(&Secret::default(), now), None);
        assert_eq!(remaining(&token("1970-01-01T00:20:00Z"), now), Some(Duration::from_secs(200)));
        assert_eq!(remaining(&token("1970-01-01T00:00:00Z"), now), Some(Duration::ZERO));
        assert_eq!(remaining(&token("soon"), now), Some(Duration::ZERO));
    }
}
