//! Reading `--authentication-config` again when it changes, as upstream does: providers are replaced once the
//! new ones have their keys, a file with a fault changes nothing, and what it says of anonymous requests counts
//! at the start only.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::{error, info};

use super::jwt::Provider;
use super::tokens::Tokens;
use super::{Anonymous, config};
use crate::control::apiserver::watched::Watched;
use crate::net::Roads;

/// New providers have this long to show their keys.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is watched, and what it said at the start.
pub(super) struct Reload {
    pub(super) path: PathBuf,
    pub(super) anonymous: Option<Anonymous>,
    pub(super) roads: Roads,
}

impl Reload {
    /// Follows the file as long as anybody authenticates by it.
    pub(super) async fn follow(self, tokens: Weak<Tokens>) {
        let mut file = Watched::new(self.path.clone());
        while let Some(text) = file.changed(&tokens).await {
            let Some(tokens) = tokens.upgrade() else { return };
            match self.apply(&text, &tokens).await {
                Ok(()) => info!(path = %self.path.display(), "reloaded authentication config"),
                Err(why) => {
                    error!(path = %self.path.display(), error = why, "failed to load authentication config; the one before stays");
                }
            }
        }
    }

    async fn apply(&self, text: &str, tokens: &Arc<Tokens>) -> Result<(), String> {
        let said = config::read(text)?;
        if said.anonymous != self.anonymous {
            return Err("the anonymous field cannot be changed while the server runs".into());
        }
        let mut providers = Vec::new();
        for (rules, verify) in said.providers {
            providers.push(Provider::new(rules, verify, &self.roads).map_err(|error| error.to_string())?);
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !providers.iter().all(Provider::is_ready) {
            if tokio::time::Instant::now() > deadline {
                return Err("a provider did not become healthy within a minute".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokens.replace_providers(providers);
        Ok(())
    }
}
