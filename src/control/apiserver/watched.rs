//! A configuration file that is read again when somebody writes it (`apiserver/pkg/util/filesystem`).

use std::path::PathBuf;
use std::sync::Weak;
use std::time::Duration;

/// How often it is looked at; upstream notices at once, and looks each minute besides.
const LOOK: Duration = Duration::from_secs(1);

/// One file and what it last said.
pub struct Watched {
    path: PathBuf,
    seen: Option<String>,
}

impl Watched {
    pub fn new(path: PathBuf) -> Self {
        let seen = std::fs::read_to_string(&path).ok();
        Self { path, seen }
    }

    /// Waits until the file says something else; nothing when nobody needs it any more. A file that is gone
    /// for a moment is one being replaced.
    pub async fn changed<T>(&mut self, user: &Weak<T>) -> Option<String> {
        loop {
            tokio::time::sleep(LOOK).await;
            if user.strong_count() == 0 {
                return None;
            }
            let Ok(text) = tokio::fs::read_to_string(&self.path).await else { continue };
            if self.seen.as_deref() != Some(text.as_str()) {
                self.seen = Some(text.clone());
                return Some(text);
            }
        }
    }
}
