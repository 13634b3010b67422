//! Both halves against each other on the loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::client::{Login, Tunnels};
use super::sshd;
use crate::net::{Dial, DialError, bind, inherit};
use crate::pki::SshKey;

const PATIENCE: Duration = Duration::from_secs(30);
const NONE_OPEN: &str =
    "No SSH tunnels currently open. Were the targets able to accept an ssh-key for user \"root\"?";

/// A node's sshd, and the files of both sides.
struct Node {
    folder: tempfile::TempDir,
    at: SocketAddr,
    /// A runtime of its own, so that it can be ended with every connection, as a process is.
    serving: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

fn key(name: &str) -> SshKey {
    SshKey::derived(b"test", name).unwrap()
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("login", &key("login").private);
        write("host", &key("host").private);
        write("root", &format!("{} root@control\n", key("login").public));
        let at = bind("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr().unwrap();
        let mut own = Self { folder, at, serving: None };
        own.serve();
        own
    }

    fn end(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.shutdown_background();
        }
    }

    fn serve(&mut self) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let text = format!("HostKey {}\nAuthorizedKeysFile {}\n", file("host"), file("%u"));
        std::fs::write(self.folder.path().join("sshd_config"), text).unwrap();
        let config = self.path("sshd_config");
        let listener = loop {
            match std::net::TcpListener::bind(self.at) {
                Ok(listener) => break listener,
                // Its predecessor is just ending.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move { sshd::at(inherit(listener).unwrap(), &config).unwrap().await });
        self.serving = Some(runtime);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Tunnels to this node alone; they are kept while the sender lives.
    fn tunnels(&self, known_hosts: Option<&Path>) -> (Arc<Tunnels>, watch::Sender<BTreeSet<String>>) {
        let keyfile = self.path("login");
        let login = Login { user: "root", keyfile: &keyfile, known_hosts };
        let tunnels = Arc::new(Tunnels::build(login, Some(self.at.port()), Duration::from_secs(60)).unwrap());
        let (tell, nodes) = watch::channel(BTreeSet::from(["127.0.0.1".to_owned()]));
        tokio::spawn(Arc::clone(&tunnels).follow(nodes));
        (tunnels, tell)
    }
}

/// A destination that answers each connection with what it was sent, once that has ended.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
                let _ = stream.write_all(&all).await;
            });
        }
    });
    port
}

async fn dial(tunnels: &Tunnels, port: u16) -> crate::net::BoxStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match tunnels.dial("127.0.0.1", port).await {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn exchange(tunnels: &Tunnels, port: u16, sent: &[u8]) -> Vec<u8> {
    let stream = dial(tunnels, port).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = Vec::new();
    let sending = async {
        write.write_all(sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, outcome) = tokio::join!(sending, timeout(PATIENCE, read.read_to_end(&mut back)));
    outcome.unwrap().unwrap();
    back
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let (node, port) = (Node::start().await, echo().await);
    let (tunnels, _tell) = node.tunnels(None);
    let sent: Vec<u8> = (0..3_000_000u32).map(|at| at.to_le_bytes()[0]).collect();
    assert!(exchange(&tunnels, port, &sent).await == sent);
    assert_eq!(exchange(&tunnels, port, b"").await, b"");
}

#[tokio::test]
async fn a_destination_that_refuses_is_said_in_gos_words_and_the_tunnel_goes_on() {
    let (node, port) = (Node::start().await, echo().await);
    let (tunnels, _tell) = node.tunnels(None);
    dial(&tunnels, port).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = tunnels.dial("127.0.0.1", closed).await.err().unwrap();
    assert_eq!(error.to_string(), "ssh: rejected: connect failed (Connect failed)");
    assert_eq!(exchange(&tunnels, port, b"still").await, b"still");
}

#[tokio::test]
async fn a_tunnel_comes_back_after_its_node_did_and_until_then_the_old_text_is_told() {
    let (mut node, port) = (Node::start().await, echo().await);
    let (tunnels, _tell) = node.tunnels(None);
    let mut open = dial(&tunnels, port).await;
    node.end();
    assert_eq!(timeout(PATIENCE, open.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
    let until = Instant::now() + PATIENCE;
    while !matches!(tunnels.dial("127.0.0.1", port).await, Err(DialError::Tunnel(text)) if text == NONE_OPEN)
    {
        assert!(Instant::now() < until, "the tunnel is still listed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.serve();
    assert_eq!(exchange(&tunnels, port, b"again").await, b"again");
}

#[tokio::test]
async fn a_dial_over_a_connection_that_was_cut_unnoticed_takes_the_next_one() {
    let (mut node, port) = (Node::start().await, echo().await);
    let (tunnels, _tell) = node.tunnels(None);
    let mut open = dial(&tunnels, port).await;
    node.end();
    assert_eq!(timeout(PATIENCE, open.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
    node.serve();
    // A slow machine may take longer than a dial waits; but never is the cut itself told.
    let mut stream = loop {
        match timeout(PATIENCE, tunnels.dial("127.0.0.1", port)).await.unwrap() {
            Ok(stream) => break stream,
            Err(error) => assert_eq!(error.to_string(), NONE_OPEN),
        }
    };
    stream.write_all(b"once").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, b"once");
}

#[tokio::test]
async fn any_host_key_is_believed_unless_they_are_pinned() {
    let (node, port) = (Node::start().await, echo().await);
    let pin = |name: &str| {
        let line = format!("[127.0.0.1]:{} {}\n", node.at.port(), key(name).public);
        std::fs::write(node.path("known_hosts"), line).unwrap();
    };
    pin("another");
    let (ignoring, _tell) = node.tunnels(None);
    assert_eq!(exchange(&ignoring, port, b"any").await, b"any");
    let known = node.path("known_hosts");
    let (pinned, _tell_pinned) = node.tunnels(Some(&known));
    let keyfile = node.path("login");
    let credentials = super::tunnel::Credentials {
        user: "root".into(),
        key: Arc::new(russh::keys::load_secret_key(&keyfile, None).unwrap()),
        hosts: super::known::HostKeys::Pinned(known.clone()),
    };
    let open = async || super::tunnel::Tunnel::open("127.0.0.1", Some(node.at.port()), &credentials).await;
    let error = open().await.err().unwrap().to_string();
    assert_eq!(error, "ssh: handshake failed: knownhosts: key mismatch");
    std::fs::write(&known, "").unwrap();
    let error = open().await.err().unwrap().to_string();
    assert_eq!(error, "ssh: handshake failed: knownhosts: key is unknown");
    assert!(pinned.dial("127.0.0.1", port).await.is_err());
    pin("host");
    assert_eq!(exchange(&pinned, port, b"this one").await, b"this one");
}

#[tokio::test]
async fn a_key_that_is_not_authorized_opens_nothing() {
    let node = Node::start().await;
    std::fs::write(node.path("login"), &key("stranger").private).unwrap();
    let credentials = super::tunnel::Credentials {
        user: "root".into(),
        key: Arc::new(russh::keys::load_secret_key(node.path("login"), None).unwrap()),
        hosts: super::known::HostKeys::Ignored,
    };
    let opened = super::tunnel::Tunnel::open("127.0.0.1", Some(node.at.port()), &credentials).await;
    assert_eq!(
        opened.err().unwrap().to_string(),
        "ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain"
    );
}

#[tokio::test]
async fn one_reader_that_stands_still_is_closed_alone() {
    let (mut far, near) = tokio::io::duplex(1 << 20);
    let (to, _held) = tokio::io::duplex(1024);
    let carried = tokio::spawn(super::channel::carry(near, to, Duration::from_millis(50)));
    far.write_all(&vec![0; 100_000]).await.unwrap();
    let ended = timeout(PATIENCE, carried).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    let (mut far, near) = tokio::io::duplex(1 << 20);
    let (to, mut reading) = tokio::io::duplex(1024);
    tokio::spawn(super::channel::carry(near, to, Duration::from_secs(5)));
    let mut all = Vec::new();
    far.write_all(&vec![7; 100_000]).await.unwrap();
    drop(far);
    timeout(PATIENCE, reading.read_to_end(&mut all)).await.unwrap().unwrap();
    assert_eq!(all.len(), 100_000);
}
