//! A lab of the benchmark's own.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

pub struct Lab {
    home: tempfile::TempDir,
}

pub fn binary() -> PathBuf {
    std::env::var_os("MINILAB_BIN").map_or_else(|| env!("CARGO_BIN_EXE_minilab").into(), PathBuf::from)
}

impl Lab {
    pub fn new() -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("minilab-bench-").tempdir()?;
        std::fs::create_dir(home.path().join("run"))?;
        Ok(Self { home })
    }

    pub fn up() -> anyhow::Result<Self> {
        let lab = Self::new()?;
        lab.minilab(&["up"])?;
        Ok(lab)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let home = self.home.path();
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env("HOME", home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("MINILAB_LAB", "bench")
            .env_remove("KUBECONFIG");
        command
    }

    /// A command that goes on while others run.
    pub fn start(&self, arguments: &[&str], output: Stdio) -> anyhow::Result<Child> {
        Ok(self.command(arguments).stdin(Stdio::null()).stdout(output).spawn()?)
    }

    pub fn minilab(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.command(arguments).output()?;
        if !output.status.success() {
            bail!("minilab {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(output)
    }

    /// For a command whose exit code is an answer too.
    pub fn answer(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    pub fn status(&self) -> anyhow::Result<Value> {
        // A role that is being restarted makes it exit 4, and the report is there all the same.
        Ok(serde_json::from_slice(&self.command(&["status", "-o", "json"]).output()?.stdout)?)
    }

    /// Where the lab's keys are.
    pub fn pki(&self) -> PathBuf {
        self.home.path().join("state/minilab/bench/pki")
    }

    pub fn kubeconfig_path(&self) -> PathBuf {
        self.home.path().join("state/minilab/bench/kubeconfig")
    }

    /// The lab's kubeconfig, as it was written for the user.
    pub fn kubeconfig(&self) -> anyhow::Result<serde_yaml_ng::Value> {
        let path = self.kubeconfig_path();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(serde_yaml_ng::from_str(&text)?)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.minilab(&["delete"]) {
            eprintln!("{error:#}");
        }
    }
}
