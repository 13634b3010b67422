//! TLS secrets of the roles of one host, for the learner who owns them: no attacker on wire has these.

use clap::Args;
use serde_json::json;

use super::kubelet::told_to_end;
use super::say;
use crate::net::KeyListener;

#[derive(Debug, Args)]
pub struct Keys {}

impl Keys {
    pub async fn run(self) -> anyhow::Result<()> {
        let listener = KeyListener::open()?;
        say(&json!({"event": "ready"}));
        let ended = told_to_end();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                line = listener.next() => say(&json!({"event": "key", "line": line?})),
                () = &mut ended => return Ok(()),
            }
        }
    }
}
