//! TLS secrets for whoever listens inside the same host: what `SSLKEYLOGFILE` is to a browser.
//!
//! Nothing is written down. A role sends each secret to a socket in `/run` of its own host, and only while
//! somebody holds that socket, which only the host's root can: with its process the listener is gone.
//!
//! # Warning
//! Whoever has these lines and the packets can read the connection. `minilab wire --with-keys` asks for them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustls::KeyLog;

const SOCKET: &str = "/run/minilab-tls-keys.sock";
/// More than any line of the format.
const LONGEST: usize = 512;

/// Tells secrets while somebody listens.
#[derive(Debug)]
pub struct WhileAsked;

impl KeyLog for WhileAsked {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}", hex(client_random), hex(secret));
        let Ok(socket) = UnixDatagram::unbound() else { return };
        // A listener that does not read must hold nobody up; one that died left only its name.
        if socket.set_nonblocking(true).is_ok() {
            let _ = socket.send_to(line.as_bytes(), SOCKET);
        }
    }

    fn will_log(&self, _: &str) -> bool {
        Path::new(SOCKET).exists()
    }
}

/// The listening end; its name goes with it.
#[derive(Debug)]
pub struct KeyListener(tokio::net::UnixDatagram);

impl KeyListener {
    /// Takes the place of one that was killed.
    pub fn open() -> io::Result<KeyListener> {
        match std::fs::remove_file(SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(SOCKET)?;
        std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        tokio::net::UnixDatagram::from_std(socket).map(KeyListener)
    }

    /// The next line of the key log format.
    pub async fn next(&self) -> io::Result<String> {
        let mut buffer = [0; LONGEST];
        let count = self.0.recv(&mut buffer).await?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }
}

impl Drop for KeyListener {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = std::fs::remove_file(SOCKET);
    }
}
