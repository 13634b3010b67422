//! A tutorial's worth of kubectl: 150 commands over all verbs, each answer held against what was reviewed.
//!
//! `commands.txt` says how it is written. One version of kubectl types all of it; the other types the sections
//! that differ most between versions, and all of it in `just soak`.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::kit::Lab;
use crate::kit::clients::{self, Kubectl};

const COMMANDS: &str = include_str!("commands.txt");
/// How long an answer that takes its time may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the second kubectl types in `cargo test`.
const SHORT: &[&str] = &["Looking around", "Namespaces and configuration", "Jobs"];

#[derive(Debug, Default, Clone)]
struct Step {
    line: usize,
    section: String,
    words: Vec<String>,
    input: String,
    expected: Vec<String>,
    code: i32,
    patient: bool,
    /// The minor version of kubectl that knows it.
    since: u32,
}

fn steps() -> Vec<Step> {
    let (mut steps, mut section, mut since) = (Vec::<Step>::new(), String::new(), 0);
    for (at, line) in COMMANDS.lines().enumerate() {
        if let Some(title) = line.strip_prefix("== ") {
            section = title.to_owned();
        } else if let Some(version) = line.strip_prefix("@1.") {
            since = version.parse().unwrap();
        } else if let Some(command) = line.strip_prefix("$~ ").or(line.strip_prefix("$ ")) {
            steps.push(Step {
                line: at + 1,
                section: section.clone(),
                words: words(command),
                patient: line.starts_with("$~"),
                since: std::mem::take(&mut since),
                ..Step::default()
            });
        } else if let Some(step) = steps.last_mut() {
            if let Some(input) = line.strip_prefix("| ") {
                step.input += &format!("{input}\n");
            } else if let Some(code) = line.strip_prefix("[exit ") {
                step.code = code.trim_end_matches(']').parse().unwrap();
            } else if !line.trim().is_empty() {
                step.expected.push(tight(line));
            }
        }
    }
    steps
}

/// Parts a line as a shell would, with quotes and nothing else.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(letter), true),
            (None, ' ') => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            _ => word.push(letter),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Columns are as wide as what is in them: one space says as much.
fn tight(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether what came is what was expected, line by line.
fn fits(expected: &[String], came: &[String]) -> bool {
    match expected.split_first() {
        None => came.is_empty(),
        Some((any, rest)) if any == "..." => (0..=came.len()).any(|skipped| fits(rest, &came[skipped..])),
        Some((line, rest)) => {
            came.split_first().is_some_and(|(first, others)| like(line, first) && fits(rest, others))
        }
    }
}

/// Whether a line is like another with `<*>` in it.
fn like(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("<*>");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn run(lab: &Lab, kubectl: &Kubectl, step: &Step) -> (i32, Vec<String>) {
    let mut command = lab.kubectl_command(kubectl);
    let mut child = command
        .args(&step.words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing has gone before we are done.
    let _ = child.stdin.take().unwrap().write_all(step.input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + "\n" + &text(&output.stderr);
    let lines = all.lines().map(tight).filter(|line| !line.is_empty()).collect();
    (output.status.code().unwrap_or(-1), lines)
}

/// Types the commands of these sections, or all; says which answers were others.
fn tour(kubectl: &Kubectl, sections: Option<&[&str]>) {
    let lab = Lab::up();
    let minor: u32 = kubectl.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap();
    let mut wrong = Vec::new();
    let mut typed = 0;
    for step in steps() {
        let wanted =
            sections.is_none_or(|sections| sections.contains(&&*step.section)) && step.since <= minor;
        // Where the rest happens.
        if !wanted && step.words.first().is_none_or(|word| word != "config") {
            continue;
        }
        typed += 1;
        let until = Instant::now() + PATIENCE;
        let (code, came) = loop {
            let (code, came) = run(&lab, kubectl, &step);
            let right = code == step.code && fits(&step.expected, &came);
            if right || !step.patient || Instant::now() > until {
                break (code, came);
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        if code != step.code || !fits(&step.expected, &came) {
            let answer = format!(
                "commands.txt:{}: kubectl {}\n  exit {code}, not {}\n  came:\n    {}\n  expected:\n    {}",
                step.line,
                step.words.join(" "),
                step.code,
                came.join("\n    "),
                step.expected.join("\n    ")
            );
            // Seen while the rest goes on.
            eprintln!("{answer}");
            wrong.push(answer);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {typed} answers of {} are others:\n{}",
        wrong.len(),
        kubectl.version,
        wrong.join("\n")
    );
}

#[test]
fn a_tutorials_commands_answer_as_reviewed() {
    assert!(steps().len() >= 150, "{} commands", steps().len());
    tour(&clients::both()[1], None);
}

#[test]
fn a_tutorials_commands_answer_the_other_kubectl_too() {
    let all = std::env::var_os("MINILAB_SOAK").is_some();
    tour(&clients::both()[0], (!all).then_some(SHORT));
}

#[test]
fn an_answer_is_held_against_its_placeholders() {
    let lines = |text: &str| text.lines().map(tight).collect::<Vec<_>>();
    assert!(fits(&lines("a <*> c\n...\nz"), &lines("a b c\nx\ny\nz")));
    assert!(fits(&lines("...\nz<*>"), &lines("z")));
    assert!(!fits(&lines("a <*> c"), &lines("a b d")));
    assert!(!fits(&lines("a"), &lines("a\nb")));
    assert_eq!(
        words(r#"patch pod web -p '{"a": 1}' --x="""#),
        ["patch", "pod", "web", "-p", r#"{"a": 1}"#, "--x="]
    );
}
