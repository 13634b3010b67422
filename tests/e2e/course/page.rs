//! A page, done: every command it shows is run in one shell, and what it shows must be what comes out.
//!
//! In ```` ```console ```` blocks `$ ` begins a command, `> ` goes on with it, and what follows is its output.
//! Runs of blanks are equal; `…` in a line stands for anything, `…` alone for any lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Exercise, Learner};

/// No command of a page takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// A command of a page.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    line: String,
    output: Vec<String>,
    background: bool,
}

/// Runs a page from its first command to its last.
pub fn walk(learner: &Learner, exercise: &Exercise) {
    let text = learner.ok(&["lab", "page"]);
    let commands = commands(&text);
    assert!(!commands.is_empty(), "{} shows no command", exercise.name());
    let mut shell = Shell::start(learner);
    for command in &commands {
        let (code, said) = shell.run(command);
        let place = format!("{}: $ {}", exercise.name(), command.line);
        if command.background {
            continue;
        }
        match command.output.is_empty() {
            true => assert_eq!(code, 0, "{place}\n{said}"),
            false => {
                let (shown, came) = (plain(command.output.iter()), plain(said.lines()));
                assert!(fits(&shown, &came), "{place}\nshown:\n{}\ncame:\n{said}", command.output.join("\n"));
            }
        }
    }
}

/// The commands of the console blocks.
fn commands(page: &str) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut block: Option<bool> = None;
    for line in page.lines() {
        match (block, line) {
            (None, line) if line.trim_end() == "```console" => block = Some(false),
            (None, line) if line.trim_end() == "```console background" => block = Some(true),
            (Some(_), "```") => block = None,
            (Some(background), line) => match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => {
                    commands.push(Command { line: command.to_owned(), output: Vec::new(), background });
                }
                (None, Some(last)) => match line.strip_prefix("> ") {
                    Some(more) if last.output.is_empty() => last.line += &format!("\n{more}"),
                    _ => last.output.push(line.to_owned()),
                },
                (None, None) => panic!("a console block begins with `$ `: {line}"),
            },
            (None, _) => {}
        }
    }
    commands
}

/// One shell for a whole page.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn start(learner: &Learner) -> Shell {
        let mut command = learner.command("bash");
        command.args(["--noprofile", "--norc"]).current_dir(learner.lab.home.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n").unwrap();
        let output = child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Shell { child, input, lines }
    }

    fn run(&mut self, command: &Command) -> (i32, String) {
        // A command must not read the rest of the page.
        let line = &command.line;
        let script = match command.background {
            true => format!("{{\n{line}\n}} </dev/null >/dev/null 2>&1 &\nprintf '\\nEND-OF-IT 0\\n'\n"),
            false => format!("{{\n{line}\n}} </dev/null\nprintf '\\nEND-OF-IT %s\\n' $?\n"),
        };
        self.input.write_all(script.as_bytes()).unwrap();
        let mut said = String::new();
        loop {
            let line = self
                .lines
                .recv_timeout(LIMIT)
                .unwrap_or_else(|_| panic!("`{}` does not end:\n{said}", command.line));
            match line.strip_prefix("END-OF-IT ") {
                Some(code) => return (code.parse().unwrap(), said),
                None => said += &format!("{line}\n"),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.input.write_all(b"exit\n");
        let _ = self.child.wait();
    }
}

/// Lines with something in them, runs of blanks as one.
fn plain(lines: impl Iterator<Item = impl AsRef<str>>) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    lines.map(|line| words(line.as_ref())).filter(|line| !line.is_empty()).collect()
}

fn fits(shown: &[String], came: &[String]) -> bool {
    match shown.split_first() {
        None => came.is_empty(),
        Some((first, rest)) if first == "…" => (0..=came.len()).any(|skipped| fits(rest, &came[skipped..])),
        Some((first, rest)) => match came.split_first() {
            Some((line, more)) => line_fits(first, line) && fits(rest, more),
            None => false,
        },
    }
}

fn line_fits(shown: &str, came: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, .., last] = &parts[..] else { return shown == came };
    // A blank beside `…` need not be there.
    let (first, last) = (first.trim_end(), last.trim_start());
    if came.len() < first.len() + last.len() || !came.starts_with(first) || !came.ends_with(last) {
        return false;
    }
    let mut left = &came[first.len()..came.len() - last.len()];
    for part in &parts[1..parts.len() - 1] {
        match left.find(part.trim()) {
            Some(at) => left = &left[at + part.trim().len()..],
            None => return false,
        }
    }
    true
}

#[test]
fn a_page_is_read_as_it_is_written() {
    let page =
        "text\n```console\n$ a \\\n> b\none\n$ c\n```\n```yaml\n$ no\n```\n```console background\n$ d\n```\n";
    let command = |line: &str, output: &[&str], background| Command {
        line: line.into(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
        background,
    };
    let wanted = [command("a \\\nb", &["one"], false), command("c", &[], false), command("d", &[], true)];
    assert_eq!(commands(page), wanted);
}

#[test]
fn what_is_left_out_may_be_anything_and_what_is_shown_must_come() {
    let fits = |shown: &str, came: &str| fits(&plain(shown.lines()), &plain(came.lines()));
    assert!(fits("a  b\n…\nz", "a b\nx\ny\nz\n"));
    assert!(fits("from 198.51.100.2:… to …", "from 198.51.100.2:4711 to b"));
    assert!(fits("web 1/1 … node-1 …", "web   1/1  Running 10.244.1.2 node-1 <none>"));
    assert!(!fits("a\nb", "a\nc"));
    assert!(!fits("a", "a\nb"));
    assert!(!fits("a…b", "axc"));
}
