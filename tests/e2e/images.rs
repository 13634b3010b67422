//! Images that were brought: from an archive, from a registry, and what pods say that have none.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Lab, eventually, random};

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn put(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    tar.append_data(&mut header, path.trim_start_matches('/'), bytes).unwrap();
}

/// A program of this machine, found as a shell finds it.
fn program(name: &str) -> Option<PathBuf> {
    ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The libraries a program of this machine is linked with, the loader among them.
fn libraries(program: &Path) -> Vec<String> {
    let listed = Command::new("ldd").arg(program).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// A small root: busybox where this machine has it, else its own few programs, and a file of ours.
fn layer(marker: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let names = ["sh", "id", "cat", "sleep", "ls"];
    let mut files = BTreeMap::new();
    match program("busybox") {
        Some(busybox) => {
            files.insert("/bin/busybox".to_owned(), busybox.clone());
            files.extend(libraries(&busybox).into_iter().map(|path| (path.clone(), path.into())));
            for name in names {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mode(0o777);
                tar.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
            }
        }
        None => {
            for path in names.map(|name| program(name).unwrap()) {
                files.extend(libraries(&path).into_iter().map(|path| (path.clone(), path.into())));
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                files.insert(format!("/bin/{name}"), path);
            }
        }
    }
    for (at, from) in files {
        put(&mut tar, &at, 0o755, &std::fs::read(from).unwrap());
    }
    put(&mut tar, "etc/marker", 0o644, marker.as_bytes());
    put(&mut tar, "etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n");
    tar.into_inner().unwrap()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids},
        "config": {"Env": ["PATH=/bin", "FROM=image"], "Cmd": ["sleep", "1000"], "WorkingDir": "/etc"}});
    config.to_string().into_bytes()
}

/// As `docker save` writes it; the upper layer takes a file of the lower one away.
fn archive(lab: &Lab, marker: &str) -> PathBuf {
    let lower = layer(marker);
    let mut upper = tar::Builder::new(Vec::new());
    put(&mut upper, "etc/.wh.gone", 0o644, b"");
    put(&mut upper, "etc/above", 0o644, b"above");
    let upper = upper.into_inner().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    put(&mut tar, "config.json", 0o644, &config(&[&lower, &upper]));
    put(&mut tar, "1/layer.tar", 0o644, &lower);
    put(&mut tar, "2/layer.tar", 0o644, &upper);
    let manifest = json!([{"Config": "config.json", "RepoTags": ["busybox:test"],
        "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    put(&mut tar, "manifest.json", 0o644, manifest.to_string().as_bytes());
    let path = lab.home.path().join("busybox.tar");
    std::fs::write(&path, tar.into_inner().unwrap()).unwrap();
    path
}

/// A registry on this machine's loopback that wants a token and keeps one image.
struct Registry {
    port: u16,
    digest: String,
}

impl Registry {
    fn start(marker: &str) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let layer = layer(marker);
        let config = config(&[&layer]);
        let described =
            |bytes: &[u8]| json!({"digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()});
        let manifest =
            json!({"schemaVersion": 2, "config": described(&config), "layers": [described(&layer)]});
        let manifest = manifest.to_string().into_bytes();
        let digest = format!("sha256:{}", sha256(&manifest));
        let base = "/v2/team/app";
        let files = BTreeMap::from([
            (format!("{base}/blobs/sha256:{}", sha256(&config)), config),
            (format!("{base}/blobs/sha256:{}", sha256(&layer)), layer),
            (format!("{base}/manifests/1"), manifest),
        ]);
        let files = Arc::new(files);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let files = Arc::clone(&files);
                std::thread::spawn(move || drop(answer(stream, &files, port)));
            }
        });
        Registry { port, digest }
    }
}

fn answer(
    mut stream: std::net::TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    port: u16,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16384 {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let allowed = head.to_lowercase().contains("authorization: bearer open-sesame");
    let (status, extra, body) = match files.get(&path) {
        _ if path.starts_with("/token?service=test&scope=repository:team/app:pull") => {
            ("200 OK", String::new(), br#"{"token": "open-sesame"}"#.to_vec())
        }
        _ if !allowed => {
            let realm = format!(
                "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"test\"\r\n"
            );
            ("401 Unauthorized", realm, Vec::new())
        }
        Some(body) => ("200 OK", String::new(), body.clone()),
        None => ("404 Not Found", String::new(), Vec::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// The state a container waits in.
fn waiting(lab: &Lab, pod: &str, reasons: &[&str]) -> String {
    eventually(Duration::from_secs(60), &format!("{pod} waits with {reasons:?}"), || {
        let status = lab.object(&["pod", pod])["status"].clone();
        let state = status["containerStatuses"][0]["state"]["waiting"].clone();
        let reason = state["reason"].as_str().unwrap_or_default();
        match reasons.contains(&reason) {
            true => Ok(state["message"].as_str().unwrap_or_default().to_owned()),
            false => Err(status.to_string()),
        }
    })
}

fn listed(lab: &Lab) -> Vec<Value> {
    serde_json::from_str(&lab.minilab(&["image", "list", "-o", "json"]).ok()).unwrap()
}

#[test]
fn a_busybox_of_an_archive_runs_with_users_volumes_and_limits() {
    let lab = Lab::up();
    let marker = format!("marker-{:x}", random());
    let path = archive(&lab, &marker);
    let never = |name: &str| {
        let image = format!("--image={name}");
        lab.kubectl(&["run", "never", &image, "--image-pull-policy=Never", "--restart=Never"]).ok();
    };
    never("busybox:test");
    let message = waiting(&lab, "never", &["ErrImageNeverPull"]);
    assert_eq!(message, "Container image \"busybox:test\" is not present with pull policy of Never");
    lab.minilab(&["image", "load", path.to_str().unwrap()]).ok();
    let images = listed(&lab);
    assert_eq!(images[0]["image"], "docker.io/library/busybox:test");
    assert_eq!(images[0]["nodes"], json!(["node-1", "node-2"]));
    lab.apply(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: colours}
data: {colour: blue}
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  containers:
  - name: box
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'id -u; cat /etc/marker; echo; cat /colours/colour; echo; echo kept > /scratch/file; cat /scratch/file; ls /etc; echo $FROM; echo no > /etc/marker; exec sleep 1000']
    securityContext: {runAsUser: 1000, runAsNonRoot: true, allowPrivilegeEscalation: false}
    resources: {limits: {cpu: 200m, memory: 64Mi}}
    volumeMounts:
    - {name: colours, mountPath: /colours}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - {name: colours, configMap: {name: colours}}
  - {name: scratch, emptyDir: {}}
",
    );
    lab.wait_ready("box");
    let said = eventually(Duration::from_secs(30), "the pod has said all", || {
        let logs = lab.kubectl(&["logs", "box"]).ok();
        if logs.contains("image\n") { Ok(logs) } else { Err(logs) }
    });
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[..4], ["1000", &marker, "blue", "kept"], "{said}");
    assert!(lines.contains(&"above") && !lines.contains(&"gone"), "{said}");
    let status = lab.object(&["pod", "box"])["status"]["containerStatuses"][0].clone();
    assert_eq!(status["imageID"], images[0]["id"], "{status}");
    assert_eq!(status["image"], "docker.io/library/busybox:test");
    // A lab of one id has one person: root's file is the pod's own there.
    let ids = lab.kubectl(&["exec", "box", "--", "cat", "/proc/self/uid_map"]).ok();
    let alone = ids.lines().count() == 1 && ids.split_whitespace().nth(2) == Some("1");
    let marked = if alone { "no\n" } else { &marker };
    assert_eq!(lab.kubectl(&["exec", "box", "--", "cat", "/etc/marker"]).ok(), marked, "{ids}");
    // What runs goes on when its image is taken away, and what comes after finds none.
    lab.minilab(&["image", "remove", "busybox:test"]).ok();
    assert_eq!(listed(&lab), Vec::<Value>::new());
    assert_eq!(lab.kubectl(&["exec", "box", "--", "cat", "/etc/marker"]).ok(), marked);
    let missing = lab.minilab(&["image", "remove", "busybox:test"]).fails_with(1);
    assert!(missing.contains("no node has busybox:test"), "{missing}");
    lab.kubectl(&["run", "late", "--image=busybox:test", "--restart=Never"]).ok();
    let message = waiting(&lab, "late", &["ImagePullBackOff"]);
    assert!(message.starts_with("Back-off pulling image \"busybox:test\": ErrImagePull: "), "{message}");
    let wrong = lab.minilab(&["image", "load", "/etc/passwd"]).fails_with(1);
    assert!(wrong.contains("it is no tar archive"), "{wrong}");
}

#[test]
fn an_image_is_pulled_from_a_registry_outside_the_lab() {
    let lab = Lab::up();
    let marker = format!("marker-{:x}", random());
    let registry = Registry::start(&marker);
    let name = format!("127.0.0.1:{}/team/app", registry.port);
    let missing = lab.minilab(&["image", "pull", &format!("{name}:2")]).fails_with(1);
    assert!(
        missing.contains(&format!("failed to resolve reference \"{name}:2\": {name}:2: not found")),
        "{missing}"
    );
    lab.minilab(&["image", "pull", &format!("{name}:1")]).ok();
    let images = listed(&lab);
    assert_eq!(
        (&images[0]["digest"], &images[0]["image"]),
        (&json!(registry.digest), &json!(format!("{name}:1")))
    );
    // By its own command, whatever the pull policy: there is nobody a node could ask.
    lab.kubectl(&["run", "app", &format!("--image={name}:1"), "--image-pull-policy=Always"]).ok();
    lab.wait_ready("app");
    assert_eq!(lab.kubectl(&["exec", "app", "--", "cat", "marker"]).ok(), marker);
    let status = lab.object(&["pod", "app"])["status"]["containerStatuses"][0].clone();
    assert_eq!(status["imageID"], format!("{name}@{}", registry.digest), "{status}");
}
