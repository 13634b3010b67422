//! What a person types and reads: one file a command.
//!
//! Data goes to standard output, progress and errors to standard error; every listing takes `-o json`,
//! with camelCase fields that stay. The exit code says what kind of answer it was ([`Answer`]).

mod attack;
mod certs;
mod demo;
mod doctor;
mod down;
mod exec;
mod explain;
mod host;
mod image;
mod kubeconfig;
mod kubectl;
mod lab;
mod logs;
mod node;
mod paths;
mod progress;
mod report;
mod roles;
mod status;
mod switch;
mod table;
mod trace;
mod up;
mod verify;
mod version;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::lab::state::LabDir;

/// A Kubernetes lab cluster in one binary
///
/// A control plane and nodes in namespaces of their own, joined by a network nobody should trust.
#[derive(Parser)]
#[command(name = "minilab", version = version::LINE, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which lab a command is about.
#[derive(Args)]
struct Which {
    /// The lab's name
    #[arg(long, global = true, default_value = "minilab", env = "MINILAB_LAB", value_name = "NAME")]
    lab: String,
    /// Keep labs here instead of in $XDG_STATE_HOME/minilab
    #[arg(long, global = true, env = "MINILAB_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    OfLab(LabCommand),
    /// Show versions
    Version(version::Version),
    /// Print a completion script for a shell
    Completion(version::Completion),
    #[command(hide = true)]
    DoctorProbe(doctor::Probe),
    #[command(hide = true, name = crate::lab::removal::WORD)]
    RemoveTree(down::RemoveTree),
    #[command(hide = true, name = image::STORE)]
    ImageStore(image::Store),
    /// Measure what the machine takes at least, for `just bench`
    #[command(hide = true)]
    BenchFloor,
}

/// The commands about one lab.
#[derive(Subcommand)]
enum LabCommand {
    /// Start the lab, making it when there is none
    Up(up::Up),
    /// Stop the lab and keep its data
    Down(down::Down),
    /// Stop the lab and remove all of it
    Delete(down::Delete),
    /// Show hosts, nodes and roles
    Status(status::Status),
    /// Try what a lab needs of this machine, and say how to get what is missing
    Doctor(doctor::Doctor),
    /// Run kubectl against the lab
    #[command(disable_help_flag = true)]
    Kubectl(kubectl::Kubectl),
    /// Print the lab's kubeconfig, or merge it into yours
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Restart a role
    Restart(roles::Restart),
    /// Stop a role until it is started again
    Stop(roles::Stop),
    /// Start a role that was stopped
    Start(roles::Start),
    /// Open a shell in a host
    Shell(exec::Shell),
    /// Run a command in a host
    Exec(exec::Exec),
    /// Let a node join the running lab, or take one out of it
    Node(node::Node),
    /// Pull a host's plug, or put it back
    Host(host::Host),
    /// Bring images to the lab's nodes, list them, take them away
    Image(image::Image),
    /// Show a role's log
    Logs(logs::Logs),
    /// List every certificate of the lab: whose, for what, until when, shown to whom
    Certs(certs::Certs),
    /// List the paths between control plane and nodes and how they are set
    Paths(paths::Paths),
    /// Harden a path or one setting of the running lab
    Harden(switch::Harden),
    /// Make a path or one setting of the running lab insecure
    Soften(switch::Soften),
    /// Attack a path or one setting for real, and say what was seen
    Attack(attack::Attack),
    /// Run every attack against the settings as they are
    Verify(verify::Verify),
    /// Show what crosses the untrusted network, and what of it can be read
    Wire(wire::Wire),
    /// Run kubectl and show every hop the verb took: who dialled whom, with what, checked by whom
    Trace(trace::Trace),
    /// See one attack work and then fail, in a minute
    Demo(demo::Demo),
    /// Explain a path, or an error text: what it means, who attacks from where, what to try next
    Explain(explain::Explain),
    #[command(hide = true, name = crate::attack::GUARD)]
    AttackGuard,
    /// The course: exercises that begin with a working attack and end with a repair that holds
    Lab(lab::Lab),
}

/// How a listing is printed.
#[derive(Args, Clone, Copy)]
struct Output {
    /// Print this instead of text
    #[arg(short, long = "output", value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
}

impl Output {
    fn json(self) -> bool {
        self.output == Some(Format::Json)
    }
}

/// What kind of answer a command gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 0
    Done,
    /// 1
    Failed,
    /// 2
    Usage,
    /// 3: an expectation did not hold.
    NotSo,
    /// 4
    NotRunning,
    /// 5: `doctor` says why.
    MachineCannot,
    /// What the command that was run answered.
    Of(u8),
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        Self::from(match answer {
            Answer::Done => 0,
            Answer::Failed => 1,
            Answer::Usage => 2,
            Answer::NotSo => 3,
            Answer::NotRunning => 4,
            Answer::MachineCannot => 5,
            Answer::Of(code) => code,
        })
    }
}

/// An error with an exit code other than 1, and the line that says what to do about it.
#[derive(Debug)]
struct Trouble {
    error: anyhow::Error,
    answer: Answer,
    remedy: Option<String>,
}

impl<E: Into<anyhow::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self { error: error.into(), answer: Answer::Failed, remedy: None }
    }
}

impl Trouble {
    fn new(answer: Answer, error: impl std::fmt::Display, remedy: impl Into<String>) -> Self {
        Self { error: anyhow::anyhow!("{error}"), answer, remedy: Some(remedy.into()) }
    }

    /// The lab is not there to be asked.
    fn not_running(lab: &LabDir) -> Self {
        let (what, remedy) = match lab.exists() {
            true => ("is not running", "start it with"),
            false => ("does not exist", "make it with"),
        };
        let mut remedy = format!("{remedy} `{} up`", up::myself(lab));
        let others = lab.others();
        if !lab.exists() && !others.is_empty() {
            remedy += &format!(", or take one that is there with --lab: {}", others.join(", "));
        }
        Self::new(Answer::NotRunning, format_args!("lab {} {what}", lab.name), remedy)
    }

    fn print(&self) {
        eprintln!("error: {:#}", self.error);
        if let Some(remedy) = &self.remedy {
            eprintln!("  try: {remedy}");
        }
    }
}

type Outcome = Result<Answer, Trouble>;

/// Parses the command line and runs the command.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors too for clap, with exit code 0.
            error.print()?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    let Some(command) = cli.command else {
        // Clap's own way counts a variable of the environment as an argument.
        eprint!("{}", Cli::command().render_help());
        return Ok(Answer::Usage.into());
    };
    let outcome = match command {
        // What needs no lab must not fail for want of a home.
        Command::Version(version) => version.run(),
        Command::Completion(completion) => completion.run(),
        Command::DoctorProbe(probe) => probe.run(),
        Command::RemoveTree(tree) => tree.run(),
        Command::ImageStore(store) => store.run(),
        Command::BenchFloor => {
            println!("{}", crate::lab::floor::measure()?.as_nanos());
            Ok(Answer::Done)
        }
        Command::OfLab(command) => cli.which.lab().and_then(|lab| dispatch(command, &lab)),
    };
    let answer = outcome.unwrap_or_else(|trouble| {
        trouble.print();
        trouble.answer
    });
    Ok(answer.into())
}

impl Which {
    fn lab(&self) -> Result<LabDir, Trouble> {
        LabDir::new(&self.lab, self.state_dir.as_deref()).map_err(|error| Trouble {
            error: error.into(),
            answer: Answer::Usage,
            remedy: None,
        })
    }
}

fn dispatch(command: LabCommand, lab: &LabDir) -> Outcome {
    match command {
        LabCommand::Up(up) => up.run(lab),
        LabCommand::Down(down) => down.run(lab),
        LabCommand::Delete(delete) => delete.run(lab),
        LabCommand::Status(status) => status.run(lab),
        LabCommand::Doctor(doctor) => doctor.run(lab),
        LabCommand::Kubectl(kubectl) => kubectl.run(lab),
        LabCommand::Kubeconfig(kubeconfig) => kubeconfig.run(lab),
        LabCommand::Restart(restart) => restart.run(lab),
        LabCommand::Stop(stop) => stop.run(lab),
        LabCommand::Start(start) => start.run(lab),
        LabCommand::Shell(shell) => shell.run(lab),
        LabCommand::Exec(exec) => exec.run(lab),
        LabCommand::Node(node) => node.run(lab),
        LabCommand::Host(host) => host.run(lab),
        LabCommand::Image(image) => image.run(lab),
        LabCommand::Logs(logs) => logs.run(lab),
        LabCommand::Certs(certs) => certs.run(lab),
        LabCommand::Paths(paths) => paths.run(lab),
        LabCommand::Harden(harden) => harden.run(lab),
        LabCommand::Soften(soften) => soften.run(lab),
        LabCommand::Attack(attack) => attack.run(lab),
        LabCommand::Verify(verify) => verify.run(lab),
        LabCommand::Wire(wire) => wire.run(lab),
        LabCommand::Trace(trace) => trace.run(lab),
        LabCommand::Demo(demo) => demo.run(lab),
        LabCommand::Explain(explain) => explain.run(lab),
        LabCommand::AttackGuard => {
            crate::attack::stand_guard(lab)?;
            Ok(Answer::Done)
        }
        LabCommand::Lab(course) => course.run(lab),
    }
}

/// The runtime of a command that asks the API server.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Prints a value as JSON, for people's eyes and for jq.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    use std::io::Write;
    let text = serde_json::to_string_pretty(value)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kubectls_arguments_are_passed_on_as_they_are() {
        let cli = Cli::try_parse_from(["minilab", "--lab", "x", "kubectl", "get", "-o", "json", "--help"]);
        let Ok(Cli { command: Some(Command::OfLab(LabCommand::Kubectl(kubectl))), which }) = cli else {
            panic!("it is kubectl")
        };
        assert_eq!(
            (which.lab.as_str(), kubectl.arguments()),
            ("x", &["get", "-o", "json", "--help"].map(String::from)[..])
        );
    }
}
