//! The ground an exercise stands on: the running lab, asked as its administrator, by kubectl, or by a command
//! in a host. Whatever is asked has a limit, so that a broken lab makes a check fail and not hang.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::CourseError;
use super::book::Chapter;
use super::progress::Begun;
use crate::attack::role::Answer;
use crate::client;
use crate::lab::plan::{HostKind, Plan};
use crate::lab::protocol::{Control, Exec, Reply, Status};
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;

/// How long one question may take.
pub const ONE_TRY: Duration = Duration::from_secs(10);
/// No more of an answer is read.
const LONGEST: u64 = 4 << 20;

/// A running lab and the exercise in it.
pub struct Ground<'a> {
    pub lab: &'a LabDir,
    pub chapter: &'a Chapter,
    pub begun: Begun,
    pub client: Client,
    pub runtime: Runtime,
    pub plan: Plan,
}

/// How a command ended, and what it said.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: i32,
    pub text: String,
}

impl<'a> Ground<'a> {
    pub fn of(lab: &'a LabDir, chapter: &'a Chapter, begun: Begun) -> Result<Ground<'a>, CourseError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CourseError::Runtime)?;
        let client = runtime.block_on(async { client::from_kubeconfig(lab.kubeconfig()) })?;
        let file = lab.plan_file();
        let failed = |source| CourseError::Read { path: file.display().to_string(), source };
        let plan = std::fs::read(&file).map_err(failed)?;
        let plan = serde_json::from_slice(&plan)
            .map_err(|source| CourseError::Damaged { path: file.display().to_string(), source })?;
        Ok(Ground { lab, chapter, begun, client, runtime, plan })
    }

    /// What the API answers the administrator: status and body, or why there is none.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String), String> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header("Content-Type", kind);
        let request = request.body(bytes).map_err(|error| error.to_string())?;
        let client = self.client.clone();
        let asked = self
            .runtime
            .block_on(async { tokio::time::timeout(ONE_TRY, client.request_text(request)).await });
        match asked {
            Err(_) => Err(format!("the API server did not answer within {ONE_TRY:?}")),
            Ok(Ok(body)) => Ok((200, body)),
            Ok(Err(Error::Api(status))) => Ok((status.code, status.message.clone())),
            Ok(Err(error)) => Err(crate::net::go_text(&error)),
        }
    }

    /// An object or list as the administrator reads it; nothing where it is not.
    pub fn get(&self, path: &str) -> Result<Option<Value>, String> {
        match self.api("GET", path, None)? {
            (200, body) => serde_json::from_str(&body).map(Some).map_err(|error| error.to_string()),
            (404, _) => Ok(None),
            (status, body) => Err(format!("{status} {body}")),
        }
    }

    /// The items of a list.
    pub fn items(&self, path: &str) -> Result<Vec<Value>, String> {
        let list = self.get(path)?.unwrap_or_default();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Deletes an object or a collection at once; one that is not there is as good.
    pub fn delete(&self, path: &str) -> Result<(), String> {
        // Not 0: then a pod's object is gone before its containers are, and the kubelet answers for the next pod
        // of that name out of the old one.
        let soon = json!({"gracePeriodSeconds": 1, "propagationPolicy": "Background"});
        match self.api("DELETE", path, Some(&soon))? {
            (200 | 404, _) => Ok(()),
            (status, body) => Err(format!("delete {path}: {status} {body}")),
        }
    }

    /// Waits for something; `look` says what is still missing.
    pub fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<(), CourseError> {
        let until = Instant::now() + limit;
        loop {
            let last = match look(self) {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            if Instant::now() >= until {
                return Err(CourseError::Late { what: what.to_owned(), last });
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// kubectl as the learner has it.
    pub fn kubectl(&self, words: &[&str]) -> Result<Ran, String> {
        self.runtime.block_on(kubectl(self.lab, words))
    }

    /// A command in a host: its exit code and standard output.
    pub fn command(&self, host: &str, argv: &[String], env: Vec<(String, String)>) -> Result<Ran, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let control = Control::connect(self.lab).map_err(|error| said(&error))?;
        let (stdout, output) = std::io::pipe().map_err(|error| said(&error))?;
        let nothing = std::fs::File::open("/dev/null").map_err(|error| said(&error))?;
        let exec = Exec { host: host.to_owned(), argv: argv.to_vec(), env, terminal: false };
        control
            .exec(exec, &[nothing.as_fd(), output.as_fd(), output.as_fd()])
            .map_err(|error| said(&error))?;
        drop(output);
        let (send, text) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.take(LONGEST).read_to_end(&mut bytes);
            let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        let text = text.recv_timeout(ONE_TRY).map_err(|_| format!("no end within {ONE_TRY:?}"))?;
        loop {
            match control.next().map_err(|error| said(&error))?.0 {
                Reply::Exited { code } => return Ok(Ran { code, text }),
                Reply::Failed { error } | Reply::NotStarted { error } => return Err(error),
                _ => {}
            }
        }
    }

    /// One HTTP question from a host, as its attacker asks it.
    pub fn question(&self, host: &str, words: &[String], token: Option<String>) -> Result<Answer, String> {
        let env = token.map(|token| ("ATTACKER_TOKEN".to_owned(), token)).into_iter().collect();
        let argv: Vec<String> =
            ["attacker", "http"].map(str::to_owned).into_iter().chain(words.iter().cloned()).collect();
        let ran = self.command(host, &argv, env)?;
        let line = ran.text.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|_| format!("no answer from {host}: {}", ran.text.trim()))
    }

    /// A token of a service account.
    pub fn token(&self, namespace: &str, name: &str) -> Result<String, String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let wish = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": 3600}});
        let (status, body) = self.api("POST", &path, Some(&wish))?;
        let tree: Value = serde_json::from_str(&body).unwrap_or_default();
        let token = tree.pointer("/status/token").and_then(Value::as_str).map(str::to_owned);
        token.ok_or_else(|| format!("no token for {namespace}/{name}: {status} {body}"))
    }

    /// Hosts and roles as the supervisor sees them.
    pub fn status(&self) -> Result<Status, CourseError> {
        Ok(Control::connect(self.lab)?.status()?)
    }

    /// Nodes and their addresses.
    pub fn nodes(&self) -> Vec<(String, String)> {
        let nodes = self.plan.hosts.iter().filter(|host| host.kind == HostKind::Node);
        nodes
            .map(|host| {
                let address = host.addresses.first().map(|net| net.addr().to_string());
                (host.name.clone(), address.unwrap_or_default())
            })
            .collect()
    }

    /// The addresses of a host, or of all nodes.
    pub fn addresses(&self, host: &str) -> Vec<String> {
        let meant = |one: &&crate::lab::plan::HostPlan| {
            one.name == host || host == "nodes" && one.kind == HostKind::Node
        };
        let hosts = self.plan.hosts.iter().filter(meant);
        hosts.flat_map(|host| host.addresses.iter().map(|net| net.addr().to_string())).collect()
    }
}

/// kubectl with the lab's kubeconfig; standard output and error together.
pub async fn kubectl(lab: &LabDir, words: &[&str]) -> Result<Ran, String> {
    let mut command = tokio::process::Command::new("kubectl");
    command.args(words).env("KUBECONFIG", lab.kubeconfig()).stdin(Stdio::null()).kill_on_drop(true);
    let line = format!("kubectl {}", words.join(" "));
    match tokio::time::timeout(ONE_TRY, command.output()).await {
        Err(_) => Err(format!("`{line}` did not end within {ONE_TRY:?}")),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("there is no kubectl on PATH".into())
        }
        Ok(Err(error)) => Err(format!("`{line}`: {error}")),
        Ok(Ok(output)) => {
            let text = [&output.stdout[..], &output.stderr[..]].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok(Ran { code: output.status.code().unwrap_or(-1), text })
        }
    }
}

/// The lab's spec as it is on disk.
pub fn spec(lab: &LabDir) -> Result<Spec, CourseError> {
    let path = lab.state.join("lab.yaml");
    let text = std::fs::read_to_string(&path)
        .map_err(|source| CourseError::Read { path: path.display().to_string(), source })?;
    Spec::from_yaml(&text).map_err(|error| CourseError::Spec(error.to_string()))
}

/// The beginning of a text, for a sentence.
pub fn short(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let cut: String = line.chars().take(240).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}
