//! Ed25519 keys as OpenSSH keeps them, made from a seed: a login's, and hosts'.

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;

use super::PkiError;

/// A private key and the line that names its public half.
pub struct SshKey {
    /// `-----BEGIN OPENSSH PRIVATE KEY-----`
    pub private: String,
    /// `ssh-ed25519 AAAA…`, as in `authorized_keys`.
    pub public: String,
}

impl SshKey {
    /// The key of a name: the same for the same secret, and nobody's without it.
    pub fn derived(secret: &[u8], name: &str) -> Result<Self, PkiError> {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let tag = ring::hmac::sign(&key, name.as_bytes());
        let seed = tag.as_ref().try_into().map_err(|_| PkiError::Key)?;
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        let private = key.to_openssh(LineEnding::LF).map_err(|_| PkiError::Key)?;
        let public = key.public_key().to_openssh().map_err(|_| PkiError::Key)?;
        Ok(Self { private: private.to_string(), public: public.trim_end().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_key_and_what_is_written_can_be_read() {
        let key = |secret: &[u8], name| SshKey::derived(secret, name).unwrap();
        let own = key(b"a", "node-1");
        assert_eq!(own.private, key(b"a", "node-1").private);
        assert!(own.public != key(b"a", "node-2").public && own.public != key(b"b", "node-1").public);
        let read = PrivateKey::from_openssh(&own.private).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap().trim_end(), own.public);
        assert!(own.public.starts_with("ssh-ed25519 AAAA") && own.private.starts_with("-----BEGIN OPENSSH"));
    }
}
