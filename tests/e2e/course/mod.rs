//! The course as a learner walks it: every exercise there is in `labs/`, by the same code.
//!
//! In the ordinary run the first exercises are failed by doing nothing, passed by their solutions and pages; the
//! others, and the rest of it (solutions twice, by hand, each repair undone, each wrong repair, broken labs) run
//! with `MINILAB_SOAK=1` (`just labs`).

mod engine;
mod page;
mod walk;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::kit::lab::binary;
use crate::kit::{Lab, clients};

/// An exercise's folder.
pub struct Exercise {
    pub number: usize,
    pub dir: PathBuf,
    pub yaml: Value,
}

/// Every folder of `labs/`, in order.
pub fn exercises() -> Vec<Exercise> {
    let labs = crate::kit::tree().join("labs");
    let mut dirs: Vec<PathBuf> =
        std::fs::read_dir(labs).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.retain(|dir| dir.is_dir());
    dirs.sort();
    dirs.into_iter()
        .map(|dir| {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            let number = name.split('-').next().unwrap().parse().unwrap();
            let yaml =
                serde_yaml_ng::from_str(&std::fs::read_to_string(dir.join("lab.yaml")).unwrap()).unwrap();
            Exercise { number, dir, yaml }
        })
        .collect()
}

/// A learner: a lab, and `minilab` and `kubectl` on PATH.
pub struct Learner {
    pub lab: Lab,
}

impl Learner {
    pub fn new() -> Learner {
        let lab = Lab::new();
        let bin = lab.home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(binary(), bin.join("minilab")).unwrap();
        std::os::unix::fs::symlink(&clients::any().path, bin.join("kubectl")).unwrap();
        Learner { lab }
    }

    /// A command as the learner's shell would run it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.lab.command(program);
        let path = format!(
            "{}:{}",
            self.lab.home.path().join("bin").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command
            .env("PATH", path)
            .env("KUBECONFIG", self.lab.home.path().join("kubeconfig"))
            .env("NO_COLOR", "1");
        command
    }

    pub fn minilab(&self, words: &[&str]) -> Output {
        self.command("minilab").args(words).output().unwrap()
    }

    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.minilab(words);
        let said = said(&output);
        assert!(output.status.success(), "`minilab {}`: {said}", words.join(" "));
        said
    }

    /// `lab check`, and whether its exit code says the same as its JSON.
    #[track_caller]
    pub fn check(&self) -> Value {
        let output = self.minilab(&["lab", "check", "-o", "json"]);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {}", said(&output)));
        let code = if report["passed"] == true { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{report:#}");
        report
    }

    #[track_caller]
    pub fn passes(&self, when: &str) {
        let report = self.check();
        assert_eq!(report["passed"], true, "{when}: {report:#}");
    }

    #[track_caller]
    pub fn fails(&self, when: &str) -> Value {
        let report = self.check();
        assert_eq!(report["passed"], false, "{when}: {report:#}");
        report
    }

    /// The functions of an exercise's `solution.sh`.
    #[track_caller]
    pub fn solve(&self, exercise: &Exercise, parts: &[&str]) {
        let mut command = self.command("bash");
        let output = command.arg(exercise.dir.join("solution.sh")).args(parts).output().unwrap();
        assert!(output.status.success(), "{}, solution {parts:?}: {}", exercise.name(), said(&output));
    }

    pub fn shell(&self, line: &str) -> Output {
        self.command("bash").args(["-c", line]).output().unwrap()
    }
}

impl Exercise {
    pub fn name(&self) -> String {
        self.dir.file_name().unwrap().to_string_lossy().into_owned()
    }

    pub fn list(&self, field: &str) -> Vec<Value> {
        self.yaml[field].as_array().cloned().unwrap_or_default()
    }
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether everything is asked of every exercise.
pub fn in_full() -> bool {
    std::env::var_os("MINILAB_SOAK").is_some()
}
