//! Asking a registry for an image, by the distribution protocol.
//!
//! Stands for containerd's resolver and fetcher, and is what `minilab image pull` does on the machine's side: a
//! lab has no way out. What it fetches it writes as an OCI layout in a tar, every digest checked, for the
//! nodes to take in. Left out on purpose: credentials of a person (public images and registries that give a
//! token to anybody), mirrors, and fetching in parallel.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::archive::for_this_machine;
use super::{Reference, hex};
use crate::net::{self, BoxStream, Dial, DialError, Direct, Protocols, TlsDialer, Verify};

/// Manifests are no larger (the specification's limit).
const MOST_JSON: usize = 4 << 20;
/// A redirection leads to where blobs lie, seldom further.
const MOST_REDIRECTIONS: usize = 5;
/// A registry that says nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(60);
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// Why an image could not be fetched, in containerd's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("failed to resolve reference \"{reference}\": {reference}: not found")]
    NotFound { reference: String },
    #[error(
        "failed to resolve reference \"{reference}\": unexpected status from {method} request to {url}: {status}"
    )]
    Status { reference: String, method: &'static str, url: String, status: StatusCode },
    #[error("failed to do request: Get \"{url}\"")]
    Dial { url: String, source: DialError },
    #[error("failed to do request: Get \"{url}\"")]
    Http { url: String, source: hyper::Error },
    #[error("failed to do request: Get \"{url}\": it says nothing for {} s", PATIENCE.as_secs())]
    Silent { url: String },
    #[error("{url} sends what it should not: {what}")]
    Nonsense { url: String, what: String },
    #[error("no match for platform in manifest: not found (linux/{})", super::arch())]
    Platform,
    #[error("cannot write what was fetched")]
    Write(#[from] io::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] net::NetError),
}

/// What was fetched.
#[derive(Debug)]
pub struct Pulled {
    pub digest: String,
    pub bytes: u64,
}

/// A registry as it is asked for one repository.
pub struct Registry {
    authority: String,
    repository: String,
    reference: String,
    plain: bool,
    /// None where the machine believes nobody.
    tls: Option<TlsDialer>,
    token: Option<String>,
}

struct Manifest {
    digest: String,
    bytes: Vec<u8>,
    value: Value,
}

struct Blob {
    digest: String,
    size: u64,
}

impl Registry {
    /// The registry of an image. `trust` is whom to believe, in PEM; `plain` speaks HTTP, as everybody does
    /// with a registry of the machine's own.
    pub fn of(reference: &Reference, trust: Vec<u8>, plain: bool) -> Result<Registry, PullError> {
        let (host, repository) = reference.repository.split_once('/').unwrap_or(("docker.io", ""));
        let own = host.split(':').next().is_some_and(|name| matches!(name, "localhost" | "127.0.0.1"));
        let tls = match trust.is_empty() {
            true => None,
            false => {
                let config = net::client_config(&Verify::Bundle(trust), None, Protocols::H1)?;
                Some(TlsDialer { road: Arc::new(Direct), config })
            }
        };
        Ok(Registry {
            authority: if host == "docker.io" { "registry-1.docker.io".into() } else { host.to_owned() },
            repository: repository.to_owned(),
            reference: reference.to_string(),
            plain: plain || own,
            tls,
            token: None,
        })
    }

    /// Fetches the image for this machine into `archive`.
    pub async fn pull(&mut self, reference: &Reference, archive: &mut File) -> Result<Pulled, PullError> {
        let wanted = reference.digest.as_deref().or(reference.tag.as_deref()).unwrap_or("latest");
        let mut found = self.manifest(wanted).await?;
        let top = found.digest.clone();
        if let Some(entries) = found.value["manifests"].as_array() {
            let own = entries.iter().find(|entry| !entry["platform"].is_null() && for_this_machine(entry));
            let inner = own.and_then(|entry| entry["digest"].as_str()).ok_or(PullError::Platform)?.to_owned();
            found = self.manifest(&inner).await?;
        }
        let mut bytes = 0;
        let mut fetched = BTreeSet::new();
        let layers = found.value["layers"].as_array().into_iter().flatten();
        for part in std::iter::once(&found.value["config"]).chain(layers) {
            let blob = self.described(part)?;
            if fetched.insert(blob.digest.clone()) {
                self.blob(&blob, archive).await?;
                bytes += blob.size;
            }
        }
        write_file(archive, &blob_path(&found.digest), &found.bytes)?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": found.digest, "size": found.bytes.len(),
            "annotations": {"io.containerd.image.name": reference.to_string()},
        }]});
        write_file(archive, "index.json", &serde_json::to_vec(&index).expect("its keys are strings"))?;
        write_file(archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        // Two empty blocks end a tar.
        archive.write_all(&[0; 1024])?;
        Ok(Pulled { digest: top, bytes })
    }

    async fn manifest(&mut self, wanted: &str) -> Result<Manifest, PullError> {
        let url = self.url(&format!("manifests/{wanted}"));
        let mut answer = self.get(&url, MANIFESTS).await?;
        let nonsense = |what: String| PullError::Nonsense { url: url.clone(), what };
        let mut bytes = Vec::new();
        while let Some(chunk) = next(&mut answer, &url).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MOST_JSON {
                return Err(nonsense("a manifest of more than 4 MiB".into()));
            }
        }
        let digest = format!("sha256:{}", hex(ring::digest::digest(&SHA256, &bytes).as_ref()));
        if wanted.starts_with("sha256:") && wanted != digest {
            return Err(nonsense(format!("{digest} instead of {wanted}")));
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| nonsense(error.to_string()))?;
        Ok(Manifest { digest, bytes, value })
    }

    fn described(&self, part: &Value) -> Result<Blob, PullError> {
        let digest = part["digest"].as_str().filter(|digest| {
            digest
                .strip_prefix("sha256:")
                .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        });
        match (digest, part["size"].as_u64()) {
            (Some(digest), Some(size)) => Ok(Blob { digest: digest.to_owned(), size }),
            _ => {
                let what = "a manifest whose parts have no digest and size".to_owned();
                Err(PullError::Nonsense { url: self.url("manifests"), what })
            }
        }
    }

    /// Fetches one blob into the archive.
    async fn blob(&mut self, blob: &Blob, archive: &mut File) -> Result<(), PullError> {
        let url = self.url(&format!("blobs/{}", blob.digest));
        let mut answer = self.get(&url, "*/*").await?;
        archive.write_all(header_of(&blob_path(&blob.digest), blob.size)?.as_bytes())?;
        let (mut context, mut left) = (Context::new(&SHA256), blob.size);
        let nonsense = |what: String| PullError::Nonsense { url: url.clone(), what };
        while let Some(chunk) = next(&mut answer, &url).await? {
            left = left
                .checked_sub(chunk.len() as u64)
                .ok_or_else(|| nonsense(format!("more than the {} bytes it said", blob.size)))?;
            context.update(&chunk);
            archive.write_all(&chunk)?;
        }
        let digest = format!("sha256:{}", hex(context.finish().as_ref()));
        if left > 0 || digest != blob.digest {
            return Err(nonsense(format!("{digest}, {left} bytes short, instead of {}", blob.digest)));
        }
        pad(archive, blob.size)?;
        Ok(())
    }

    fn url(&self, what: &str) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        format!("{scheme}://{}/v2/{}/{what}", self.authority, self.repository)
    }

    /// Asks, with a token when the registry wants one, and follows where it sends us.
    async fn get(&mut self, url: &str, accept: &str) -> Result<Response<Incoming>, PullError> {
        let (mut at, mut asked) = (url.to_owned(), false);
        for _ in 0..MOST_REDIRECTIONS {
            // The token is the registry's, not that of wherever it sends us.
            let token = self.token.as_deref().filter(|_| at == url);
            let answer = self.ask(&at, accept, token).await?;
            let said = |name: header::HeaderName| {
                answer
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned()
            };
            match answer.status() {
                StatusCode::OK => return Ok(answer),
                StatusCode::NOT_FOUND => {
                    return Err(PullError::NotFound { reference: self.reference.clone() });
                }
                StatusCode::UNAUTHORIZED if !asked && at == url => {
                    asked = true;
                    let challenge = said(header::WWW_AUTHENTICATE);
                    self.token = Some(self.fetch_token(&challenge, &at).await?);
                }
                status if status.is_redirection() && !said(header::LOCATION).is_empty() => {
                    let location = said(header::LOCATION);
                    at = match location.starts_with('/') {
                        true => format!("{}{location}", origin(&at)),
                        false => location,
                    };
                }
                status => {
                    let (reference, url) = (self.reference.clone(), at);
                    return Err(PullError::Status { reference, method: "GET", url, status });
                }
            }
        }
        Err(PullError::Nonsense { url: url.to_owned(), what: "one redirection after the other".into() })
    }

    /// A token for anybody, by the distribution's `Bearer` challenge.
    async fn fetch_token(&self, challenge: &str, url: &str) -> Result<String, PullError> {
        let refused = || PullError::Status {
            reference: self.reference.clone(),
            method: "GET",
            url: url.to_owned(),
            status: StatusCode::UNAUTHORIZED,
        };
        let words = challenge.strip_prefix("Bearer ").ok_or_else(refused)?;
        let word = |name: &str| {
            let (_, rest) = words.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let realm = word("realm").ok_or_else(refused)?;
        let scope = format!("repository:{}:pull", self.repository);
        let service = word("service").unwrap_or_default();
        let at = format!("{realm}?service={service}&scope={scope}");
        let mut answer = self.ask(&at, "application/json", None).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = next(&mut answer, &at).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MOST_JSON {
                return Err(refused());
            }
        }
        let said: Value = serde_json::from_slice(&bytes).map_err(|_| refused())?;
        let token = said["token"].as_str().or(said["access_token"].as_str());
        token.map(str::to_owned).ok_or_else(refused)
    }

    /// One request on a connection of its own.
    async fn ask(
        &self,
        url: &str,
        accept: &str,
        token: Option<&str>,
    ) -> Result<Response<Incoming>, PullError> {
        let nonsense = |what: String| PullError::Nonsense { url: url.to_owned(), what };
        let uri: Uri = url.parse().map_err(|error| nonsense(format!("{error}")))?;
        let host = uri.host().ok_or_else(|| nonsense("an address without a host".into()))?;
        let plain = uri.scheme_str() == Some("http");
        // Only who was asked for plain HTTP may lead to it.
        if plain && !self.plain {
            return Err(nonsense("it leads from https to http".into()));
        }
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let failed = |source| PullError::Dial { url: url.to_owned(), source };
        let stream: BoxStream = match (plain, &self.tls) {
            (true, _) => Direct.dial(host, port).await.map_err(failed)?,
            (false, Some(tls)) => Box::new(tls.connect(host, port, None).await.map_err(failed)?),
            (false, None) => {
                return Err(nonsense("a certificate, and this machine has no authorities".into()));
            }
        };
        let http = |source| PullError::Http { url: url.to_owned(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // It ends with the answer's last byte, or when the answer is dropped.
        tokio::spawn(connection);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("minilab/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| nonsense(error.to_string()))?;
        match tokio::time::timeout(PATIENCE, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(http),
            Err(_) => Err(PullError::Silent { url: url.to_owned() }),
        }
    }
}

/// The next bytes of an answer.
async fn next(answer: &mut Response<Incoming>, url: &str) -> Result<Option<Bytes>, PullError> {
    loop {
        let frame = tokio::time::timeout(PATIENCE, answer.body_mut().frame()).await;
        match frame.map_err(|_| PullError::Silent { url: url.to_owned() })? {
            None => return Ok(None),
            Some(Err(source)) => return Err(PullError::Http { url: url.to_owned(), source }),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// `https://host:port` of an address.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find('/').map_or(url, |end| &url[..start + end])
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"))
}

fn header_of(path: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    Ok(header)
}

fn write_file(archive: &mut File, path: &str, bytes: &[u8]) -> io::Result<()> {
    archive.write_all(header_of(path, bytes.len() as u64)?.as_bytes())?;
    archive.write_all(bytes)?;
    pad(archive, bytes.len() as u64)
}

/// A tar's files begin at multiples of 512.
fn pad(archive: &mut File, size: u64) -> io::Result<()> {
    let length = usize::try_from((512 - size % 512) % 512).unwrap_or(0);
    archive.write_all(&[0; 512][..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_without_a_host_stays_with_the_registry() {
        assert_eq!(origin("https://r.example:5000/v2/a/blobs/b"), "https://r.example:5000");
        assert_eq!(origin("http://r.example"), "http://r.example");
    }

    #[test]
    fn what_is_written_is_a_layout_that_can_be_read_back() {
        let mut file = tempfile::tempfile().unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        write_file(&mut file, &blob_path(&digest), br#"{"config": {"digest": "sha256:00"}, "layers": []}"#)
            .unwrap();
        let index = json!({"manifests": [{"digest": digest,
            "annotations": {"io.containerd.image.name": "r.example/a:1"}}]});
        write_file(&mut file, "index.json", index.to_string().as_bytes()).unwrap();
        file.write_all(&[0; 1024]).unwrap();
        let archive = super::super::archive::Archive::open(file, tempfile::tempfile).unwrap();
        let found = archive.images(None).unwrap();
        assert_eq!(
            (found[0].names[0].to_string().as_str(), found[0].manifest.as_ref()),
            ("r.example/a:1", Some(&digest))
        );
    }
}
