//! `sshd_config`, the few lines of it that are heeded (sshd_config(5)).

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use russh::MethodKind;
use russh::keys::PublicKey;

use crate::tunnel::ssh::SshError;

/// What a server goes by.
#[derive(Debug, Clone)]
pub struct Config {
    pub port: u16,
    pub listen: IpAddr,
    host_keys: Vec<PathBuf>,
    /// `%u` stands for the user's name.
    authorized_keys: String,
    root_may_log_in: bool,
    pub forwards: bool,
    pub max_sessions: usize,
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, SshError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SshError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, why)| SshError::Config { path: path.to_owned(), line, why })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut own = Self {
            port: 22,
            listen: Ipv4Addr::UNSPECIFIED.into(),
            host_keys: Vec::new(),
            authorized_keys: "/etc/ssh/authorized_keys/%u".into(),
            root_may_log_in: true,
            forwards: true,
            max_sessions: 256,
        };
        for (at, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keyword, value) = line.split_once([' ', '\t', '=']).unwrap_or((line, ""));
            own.set(&keyword.to_ascii_lowercase(), value.trim()).map_err(|why| (at, why))?;
        }
        match own.host_keys.is_empty() {
            true => Err((0, "sshd: no hostkeys available -- exiting.".into())),
            false => Ok(own),
        }
    }

    fn set(&mut self, keyword: &str, value: &str) -> Result<(), String> {
        let wrong = |_| format!("unsupported option {value:?} for {keyword}");
        match keyword {
            "port" => self.port = value.parse().map_err(|_| wrong(()))?,
            "listenaddress" => self.listen = value.parse().map_err(|_| wrong(()))?,
            "hostkey" => self.host_keys.push(value.into()),
            "authorizedkeysfile" => value.clone_into(&mut self.authorized_keys),
            "permitrootlogin" => self.root_may_log_in = value != "no",
            "allowtcpforwarding" => self.forwards = matches!(value, "yes" | "all" | "local"),
            "maxsessions" => self.max_sessions = value.parse().map_err(|_| wrong(()))?,
            "passwordauthentication" | "kbdinteractiveauthentication" if value == "no" => {}
            "passwordauthentication" | "kbdinteractiveauthentication" => {
                return Err(format!("{keyword} {value}: this sshd knows public keys only"));
            }
            _ => tracing::warn!(keyword, "this keyword of sshd_config has no effect here"),
        }
        Ok(())
    }

    /// What russh serves by.
    pub fn protocol(&self) -> Result<russh::server::Config, SshError> {
        let load = |path: &PathBuf| {
            russh::keys::load_secret_key(path, None)
                .map_err(|source| SshError::Key { path: path.clone(), source })
        };
        Ok(russh::server::Config {
            keys: self.host_keys.iter().map(load).collect::<Result<_, _>>()?,
            methods: [MethodKind::PublicKey].as_slice().into(),
            auth_rejection_time: Duration::from_millis(100),
            auth_rejection_time_initial: Some(Duration::ZERO),
            // As OpenSSH's MaxAuthTries.
            max_auth_attempts: 6,
            // A tunnel may be silent for long; TCP's keepalive notices a client that is gone.
            inactivity_timeout: None,
            ..Default::default()
        })
    }

    /// Whether this user may log in with this key; the file is read at every login.
    pub fn authorizes(&self, user: &str, key: &PublicKey) -> bool {
        let named = !user.is_empty()
            && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !named || (user == "root" && !self.root_may_log_in) {
            return false;
        }
        let text = std::fs::read_to_string(self.authorized_keys.replace("%u", user)).unwrap_or_default();
        let keys = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        keys.filter_map(|line| PublicKey::from_openssh(line).ok())
            .any(|known| known.key_data() == key.key_data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heeded_is_read_and_what_would_be_a_lie_is_refused() {
        let own = Config::parse("# a\nPort 2222\nHostKey /k\nAllowTcpForwarding no\nUsePAM yes\n").unwrap();
        assert_eq!((own.port, own.forwards, own.max_sessions), (2222, false, 256));
        assert_eq!(Config::parse("HostKey /k\nPasswordAuthentication yes").unwrap_err().0, 2);
        assert!(Config::parse("HostKey /k\nPort x").unwrap_err().1.contains("unsupported option"));
        assert!(Config::parse("Port 22").unwrap_err().1.contains("no hostkeys"));
    }

    #[test]
    fn a_users_name_leads_to_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let key = crate::pki::SshKey::derived(b"a", "b").unwrap();
        std::fs::write(folder.path().join("root"), format!("{} root@control\n", key.public)).unwrap();
        let file = folder.path().join("%u");
        let own = Config::parse(&format!("HostKey /k\nAuthorizedKeysFile {}", file.display())).unwrap();
        let public = PublicKey::from_openssh(&key.public).unwrap();
        assert!(own.authorizes("root", &public));
        assert!(!own.authorizes("../root", &public) && !own.authorizes("", &public));
        let other = crate::pki::SshKey::derived(b"a", "c").unwrap();
        assert!(!own.authorizes("root", &PublicKey::from_openssh(&other.public).unwrap()));
        let no_root = Config { root_may_log_in: false, ..own };
        assert!(!no_root.authorizes("root", &public));
    }
}
