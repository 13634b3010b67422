//! Which host keys are believed: any, as upstream's `InsecureIgnoreHostKey` had it, or those of a file.

use std::path::PathBuf;

use russh::keys::{PublicKey, known_hosts};

/// Whose word it is that a node is the node.
#[derive(Debug, Clone)]
pub enum HostKeys {
    /// Nobody's.
    ///
    /// # Warning
    /// Whoever answers on port 22 is the node. The safe sibling is [`HostKeys::Pinned`], which upstream never
    /// had.
    Ignored,
    /// The lines of a `known_hosts` file, read anew at every handshake.
    Pinned(PathBuf),
}

impl HostKeys {
    /// Whether a host may show this key; else why not, in the words of Go's `knownhosts`.
    pub fn accept(&self, host: &str, port: u16, key: &PublicKey) -> Result<(), &'static str> {
        let Self::Pinned(file) = self else { return Ok(()) };
        match known_hosts::check_known_hosts_path(host, port, key, file) {
            Ok(true) => Ok(()),
            Ok(false) => Err("knownhosts: key is unknown"),
            Err(_) => Err("knownhosts: key mismatch"),
        }
    }
}
