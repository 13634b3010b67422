//! A lab of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::clients::{self, Kubectl};
use super::eventually;

/// Where a lab of a test lives: directories of its own and a name.
pub struct Lab {
    pub home: tempfile::TempDir,
    pub name: String,
}

/// A finished command, ready to be complained about.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    line: String,
}

impl Ran {
    fn new(line: String, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr), line }
    }

    /// The standard output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "`{}` failed\n{}{}", self.line, self.stdout, self.stderr);
        self.stdout
    }

    /// The standard error of a command that must fail with this exit code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert_eq!(self.code, code, "`{}`\n{}{}", self.line, self.stdout, self.stderr);
        self.stderr
    }
}

pub fn binary() -> PathBuf {
    std::env::var_os("MINILAB_BIN").map_or_else(|| env!("CARGO_BIN_EXE_minilab").into(), PathBuf::from)
}

impl Lab {
    /// Directories and a name, nothing started.
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let home = tempfile::Builder::new().prefix("minilab-test-").tempdir().unwrap();
        std::fs::create_dir(home.path().join("run")).unwrap();
        Self { home, name }
    }

    /// A lab with both nodes Ready.
    pub fn up() -> Self {
        let lab = Self::new();
        lab.minilab(&["up"]).ok();
        lab
    }

    /// A lab whose settings are written before it is first put up.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let lab = Self::new();
        let state = lab.home.path().join("state/minilab").join(&lab.name);
        std::fs::create_dir_all(&state).unwrap();
        let rows: String = settings.iter().map(|(name, mode)| format!("  {name}: {mode}\n")).collect();
        let spec = format!(
            "apiVersion: minilab.dev/v1alpha1\nkind: Lab\nname: {}\nnodes: 2\nport: {}\nsettings:\n{rows}",
            lab.name,
            free_port()
        );
        std::fs::write(state.join("lab.yaml"), spec).unwrap();
        lab.minilab(&["up"]).ok();
        lab
    }

    /// A command in this lab's surroundings and no other's.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .env("XDG_RUNTIME_DIR", self.home.path().join("run"))
            .env("MINILAB_LAB", &self.name)
            .env_remove("KUBECONFIG")
            .env_remove("SUDO_UID")
            .stdin(Stdio::null());
        command
    }

    pub fn minilab(&self, arguments: &[&str]) -> Ran {
        let output = self.command(binary()).args(arguments).output().unwrap();
        Ran::new(format!("minilab {}", arguments.join(" ")), &output)
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Ran {
        self.kubectl_of(clients::any(), arguments)
    }

    pub fn kubectl_of(&self, kubectl: &Kubectl, arguments: &[&str]) -> Ran {
        let output = self.kubectl_command(kubectl).args(arguments).output().unwrap();
        Ran::new(format!("kubectl {}", arguments.join(" ")), &output)
    }

    pub fn kubectl_command(&self, kubectl: &Kubectl) -> Command {
        self.command(&kubectl.path)
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, manifest: &str) -> String {
        let file = self.home.path().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]).ok()
    }

    /// One object as JSON.
    pub fn object(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat()).ok();
        serde_json::from_str(&text).unwrap()
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.minilab(&["status", "-o", "json"]).stdout).unwrap()
    }

    /// The process id of a role, as the machine numbers it; one that is being started again is waited for.
    pub fn pid(&self, role: &str, host: &str) -> i32 {
        eventually(Duration::from_secs(30), &format!("{role}@{host} has a process"), || {
            let status = self.status();
            let mut roles = status["roles"].as_array().into_iter().flatten();
            let found = roles.find(|entry| entry["name"] == role && entry["host"] == host);
            found.and_then(|entry| entry["pid"].as_i64()).ok_or_else(|| status.to_string())
        }) as i32
    }

    /// A command in a host, which must succeed.
    pub fn on(&self, host: &str, command: &[&str]) -> String {
        self.minilab(&[&["exec", host, "--"], command].concat()).ok()
    }

    /// Gives the API server these flags in its manifest, instead of those whose names they have, and waits
    /// until it serves with them. An empty value takes a flag out.
    pub fn api_server_flags(&self, flags: &[&str]) {
        let manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";
        let before = self.api_server();
        let mut script = String::new();
        for flag in flags {
            let name = flag.split('=').next().unwrap_or(flag);
            script += &format!("/^    - {name}=/d;");
            if !flag.ends_with('=') {
                script += &format!("s|^    - kube-apiserver$|&\\n    - {flag}|;");
            }
        }
        self.on("control", &["sed", "-i", &script, manifest]);
        eventually(Duration::from_secs(60), "the API server serves with other flags", || {
            let now = self.api_server();
            let argv: Vec<&str> =
                now["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let has = |flag: &&str| match flag.strip_suffix('=') {
                Some(name) => !argv.iter().any(|word| word.split('=').next() == Some(name)),
                None => argv.contains(flag),
            };
            let ready =
                now["state"] == "ready" && (now["pid"] != before["pid"] || now["argv"] == before["argv"]);
            if ready && flags.iter().all(has) { Ok(()) } else { Err(now.to_string()) }
        });
        eventually(Duration::from_secs(60), "the API server answers", || {
            let ran = self.kubectl(&["get", "--raw", "/readyz"]);
            if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
        });
    }

    /// The API server as `status` shows it.
    fn api_server(&self) -> Value {
        let status = self.status();
        let mut roles = status["roles"].as_array().into_iter().flatten();
        roles.find(|role| role["name"] == "kube-apiserver").cloned().unwrap_or_default()
    }

    /// Starts the toolbox with a shell command and waits until it is Ready.
    pub fn run(&self, pod: &str, script: &str) {
        self.kubectl(&["run", pod, "--image=minilab/toolbox", "--restart=Never", "--", "sh", "-c", script])
            .ok();
        self.wait_ready(pod);
    }

    /// The same on a node of one's choice.
    pub fn run_on(&self, node: &str, pod: &str, script: &str) {
        let overrides = format!("{{\"spec\":{{\"nodeName\":{node:?}}}}}");
        let overrides = format!("--overrides={overrides}");
        let words =
            ["run", pod, "--image=minilab/toolbox", "--restart=Never", &overrides, "--", "sh", "-c", script];
        self.kubectl(&words).ok();
        self.wait_ready(pod);
    }

    pub fn wait_ready(&self, pod: &str) {
        let pod = format!("pod/{pod}");
        self.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=30s"]).ok();
    }

    /// The keeper's process id: the root of everything the lab runs.
    pub fn keeper(&self) -> i32 {
        self.status()["keeperPid"].as_i64().expect("status names the keeper") as i32
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Drop for Lab {
    fn drop(&mut self) {
        let keep = std::env::var("MINILAB_KEEP").is_ok_and(|when| when == "failure");
        if keep && std::thread::panicking() {
            self.home.disable_cleanup(true);
            let home = self.home.path().display();
            eprintln!(
                "kept: XDG_STATE_HOME={home}/state XDG_RUNTIME_DIR={home}/run minilab --lab {} status",
                self.name
            );
            return;
        }
        let gone = self.minilab(&["delete"]);
        if !std::thread::panicking() {
            gone.ok();
        }
    }
}
