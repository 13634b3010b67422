//! An API server alone: the real binary with the flags a test wants, on a loopback port, no lab around it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

use super::{clients::Kubectl, eventually, lab};

/// An authority and what it issued.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A leaf; `change` makes it wrong where a test wants that.
    pub fn issue(&self, cn: &str, org: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !org.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, org);
        }
        params.distinguished_name.push(DnType::CommonName, cn);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    pub fn client(&self, cn: &str, org: &str) -> Pair {
        self.issue(cn, org, |_| ())
    }
}

/// A running API server; ends with the value.
pub struct ApiServer {
    pub dir: tempfile::TempDir,
    pub ca: Ca,
    pub front: Ca,
    pub address: SocketAddr,
    child: Child,
}

/// An answer: its code and its body, as JSON where it is that.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }
}

impl ApiServer {
    /// Starts one; `{dir}` in a flag is its directory, in which `files` are written first.
    pub fn start(files: &[(&str, &str)], flags: &[&str]) -> Self {
        let server = Self::spawn(files, flags);
        server.wait();
        server
    }

    /// The same where it is to refuse: its log, when it ends by itself.
    pub fn try_start(files: &[(&str, &str)], flags: &[&str]) -> Result<Self, String> {
        let mut server = Self::spawn(files, flags);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while std::time::Instant::now() < deadline {
            if server.child.try_wait().unwrap().is_some() {
                return Err(server.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn spawn(files: &[(&str, &str)], flags: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("minilab-api-").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (ca, front) = (Ca::new("kubernetes"), Ca::new("front-proxy-ca"));
        let serving = ca.issue("kube-apiserver", "", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        });
        let accounts = KeyPair::generate().unwrap();
        for (name, text) in [
            ("ca.crt", ca.pem.as_str()),
            ("front.crt", front.pem.as_str()),
            ("tls.crt", serving.cert.as_str()),
            ("tls.key", serving.key.as_str()),
            ("sa.key", &accounts.serialize_pem()),
            ("sa.pub", &accounts.public_key_pem()),
            ("tokens.csv", "jane-token,jane,7,\"devs\"\nroot-token,root,0,\"system:masters\"\n"),
        ]
        .into_iter()
        .chain(files.iter().copied())
        {
            std::fs::write(path(name), text.replace("{dir}", &dir.path().display().to_string())).unwrap();
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let link = dir.path().join("kube-apiserver");
        std::os::unix::fs::symlink(lab::binary(), &link).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(&link);
        command.args([
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", address.port()),
            format!("--tls-cert-file={}", path("tls.crt")),
            format!("--tls-private-key-file={}", path("tls.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--requestheader-client-ca-file={}", path("front.crt")),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--enable-bootstrap-token-auth=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            format!("--minilab-store-dir={}", path("store")),
        ]);
        let given: Vec<&str> = flags.iter().map(|flag| flag.split('=').next().unwrap_or(flag)).collect();
        let defaults: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut command = Command::new(&link);
        command.args(defaults.iter().filter(|word| !given.contains(&word.split('=').next().unwrap_or(word))));
        command.args(flags.iter().map(|flag| flag.replace("{dir}", &dir.path().display().to_string())));
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { dir, ca, front, address, child }
    }

    fn wait(&self) {
        eventually(Duration::from_secs(20), "the API server answers", || {
            TcpStream::connect(self.address).map_err(|_| self.log())?;
            let answer = self.ask(None, "GET", "/version", &[("Authorization", "Bearer root-token")], "");
            if answer.code == 200 { Ok(()) } else { Err(format!("{answer:?}\n{}", self.log())) }
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A TLS connection, with a client certificate or without.
    pub fn connect(&self, pair: Option<&Pair>) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain =
                    CertificateDer::pem_slice_iter(pair.cert.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }

    /// A kubeconfig of root's, for stock clients.
    pub fn kubeconfig(&self) -> PathBuf {
        let file = self.file("root.conf");
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://{}', certificate-authority: '{}'}}}}]\nusers: [{{name: u, user: {{token: root-token}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
            self.address,
            self.file("ca.crt").display()
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    /// kubectl against it: exit code, standard output and standard error.
    pub fn kubectl(&self, kubectl: &Kubectl, arguments: &[&str], input: &str) -> (i32, String, String) {
        let mut child = Command::new(&kubectl.path)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// One request over HTTP/1.1, exactly these headers.
    pub fn ask(
        &self,
        pair: Option<&Pair>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        self.raw(pair, (text + "\r\n" + body).as_bytes())
    }

    /// Bytes as they are; the answer is read to its end, or as far as it comes.
    pub fn raw(&self, pair: Option<&Pair>, bytes: &[u8]) -> Answer {
        let mut stream = self.connect(pair);
        // A server may answer and hang up before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(read) = stream.read(&mut piece) {
            if read == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..read]);
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Answer { code, head: head.to_owned(), text: if chunked { unchunk(body) } else { body.to_owned() } }
    }

    /// A request as root; must succeed.
    #[track_caller]
    pub fn root(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(None, method, path, &[("Authorization", "Bearer root-token")], &body);
        assert!(answer.code < 300, "{method} {path}: {} {}", answer.code, answer.text);
        answer.json()
    }
}

fn unchunk(body: &str) -> String {
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || after.len() < size {
            break;
        }
        whole += &after[..size];
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("the API server's log:\n{}", &log[log.len().saturating_sub(6000)..]);
        }
    }
}
