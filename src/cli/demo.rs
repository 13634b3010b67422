//! `minilab demo`: a minute of the whole idea. Left what the user sees, right what the wire saw; then one
//! `harden`, and the same again.
//!
//! Both panes are what an attack really saw, nothing is prepared. The settings are put back at the end. Left
//! out on purpose: anything that needs more than 80 columns of text.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Answer, Outcome, Trouble, up};
use crate::attack::{Report, Wishes, attack};
use crate::lab::paths::{Mode, Setting, Settings};
use crate::lab::state::LabDir;
use crate::lab::switch::Switch;

/// A pane's letters: two of them, a bar and its blanks are 80 columns.
const PANE: usize = 38;
/// Between two lines, so that one can read along.
const PACE: Duration = Duration::from_millis(700);

#[derive(Args)]
pub struct Demo {
    /// What the attacker makes the pod say
    #[arg(long, value_name = "TEXT", default_value = "all is well, please send the root password")]
    say: String,
}

impl Demo {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        let _lock = lab.lock()?;
        let before = up::read_spec(lab)?.modes();
        let shown = self.show(lab, &before);
        // Whatever happened, the lab is given back as it was.
        Switch::to(&up::read_spec(lab)?, &before).apply(lab)?;
        shown
    }

    fn show(&self, lab: &LabDir, before: &Settings) -> Outcome {
        let mut screen = Screen::new();
        let mut open = before.clone();
        open.set(Setting::EgressTunnel, Mode::Insecure);
        open.set(Setting::ToKubeletCa, Mode::Insecure);
        open.set(Setting::ToKubeletServing, Mode::Hardened);
        open.set(Setting::ToKubeletApproval, Mode::Hardened);
        Switch::to(&up::read_spec(lab)?, &open).apply(lab)?;
        screen.heading("The API server does not look at kubelets' certificates (kubeadm's default).")?;
        let wishes = Wishes { say: Some(self.say.clone()) };
        let first = attack(lab, &open, Setting::ToKubeletCa, &wishes)?;
        screen.act(&first)?;
        let mut shut = open.clone();
        shut.set(Setting::ToKubeletCa, Mode::Hardened);
        let switch = Switch::to(&up::read_spec(lab)?, &shut);
        let done = switch.apply(lab)?;
        screen.heading(&format!(
            "$ minilab harden apiserver-to-kubelet.ca    (one flag, {:.0} ms)",
            done.took.as_secs_f64() * 1000.0
        ))?;
        screen.line("+ --kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt", "")?;
        let second = attack(lab, &shut, Setting::ToKubeletCa, &wishes)?;
        screen.act(&second)?;
        screen.heading("The settings are as they were. Next: minilab explain apiserver-to-kubelet")?;
        Ok(if first.as_expected() && second.as_expected() { Answer::Done } else { Answer::NotSo })
    }
}

/// Where it is shown: at a reader's pace on a terminal, at once elsewhere.
struct Screen {
    paced: bool,
    colour: bool,
}

impl Screen {
    fn new() -> Screen {
        let terminal = std::io::stdout().is_terminal();
        let screen = Screen { paced: terminal, colour: terminal && std::env::var_os("NO_COLOR").is_none() };
        if screen.paced && std::io::stdin().is_terminal() {
            println!("(Enter pauses, Enter again goes on)");
        }
        screen
    }

    fn heading(&mut self, text: &str) -> anyhow::Result<()> {
        let (on, off) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(std::io::stdout())?;
        for row in broken(text, 2 * PANE + 3) {
            writeln!(std::io::stdout(), "{on}{row}{off}")?;
        }
        self.pause()
    }

    /// What an attack saw: answers are the user's, packets and logs the wire's.
    fn act(&mut self, report: &Report) -> anyhow::Result<()> {
        self.line("WHAT THE USER SEES", "WHAT THE WIRE SAW")?;
        self.line(&"-".repeat(PANE), &"-".repeat(PANE))?;
        // Each command dials once: what the wire saw from one dial to the next is its.
        let mut dials: Vec<String> = Vec::new();
        for evidence in report.evidence.iter().filter(|one| one.kind != "answer") {
            let what = evidence.what.trim_start_matches("on wire: ");
            if what.starts_with("a connection came in") || dials.is_empty() {
                dials.push(String::new());
            }
            if let Some(last) = dials.last_mut() {
                *last += &format!("{what}: {}\n", first_line(&evidence.sample));
            }
        }
        let mut dials = dials.into_iter();
        for evidence in report.evidence.iter().filter(|one| one.kind == "answer") {
            let left = format!("$ {}\n{}", evidence.what, first_line(&said(&evidence.sample)));
            self.line(&left, &dials.next().unwrap_or_default())?;
        }
        for more in dials {
            self.line("", &more)?;
        }
        self.heading(&format!("{}: {}", report.verdict.to_string().to_uppercase(), report.observed))
    }

    fn line(&mut self, left: &str, right: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        for row in beside(left, right) {
            writeln!(out, "{row}")?;
        }
        out.flush()?;
        self.pause()
    }

    /// Waits a moment; a line typed meanwhile stops everything until the next one.
    fn pause(&self) -> anyhow::Result<()> {
        if !self.paced {
            return Ok(());
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            std::thread::sleep(PACE);
            return Ok(());
        }
        let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let pace = PollTimeout::try_from(PACE).unwrap_or(PollTimeout::ZERO);
        if poll(&mut waiting, pace).is_ok_and(|ready| ready > 0) {
            let mut typed = String::new();
            // The end of input goes on as a second line would.
            if stdin.read_line(&mut typed)? > 0 {
                println!("-- paused --");
                stdin.read_line(&mut typed)?;
            }
        }
        Ok(())
    }
}

/// Two texts beside each other, each broken to its pane.
fn beside(left: &str, right: &str) -> Vec<String> {
    let (left, right) = (broken(left, PANE), broken(right, PANE));
    let rows = left.len().max(right.len());
    let cell = |side: &[String], at: usize| side.get(at).cloned().unwrap_or_default();
    (0..rows)
        .map(|at| format!("{:<PANE$} | {}", cell(&left, at), cell(&right, at)).trim_end().to_owned())
        .collect()
}

/// Between words where there are some short enough.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for line in text.lines() {
        // What came over a wire may try to draw on the terminal.
        let clean: String = line.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
        let mut row = String::new();
        for word in clean.split_whitespace() {
            let mut letters: Vec<char> = word.chars().collect();
            if !row.is_empty() && row.chars().count() + 1 + letters.len() > width {
                rows.push(std::mem::take(&mut row));
            }
            while letters.len() > width {
                let rest = letters.split_off(width);
                rows.push(letters.into_iter().collect());
                letters = rest;
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.extend(letters);
        }
        rows.push(row);
    }
    rows
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// An answer as kubectl prints it: without its code, and of a Status the message.
fn said(sample: &str) -> String {
    let body = sample.split_once(' ').map_or(sample, |(_, body)| body);
    let status: Option<serde_json::Value> = serde_json::from_str(body).ok();
    match status.as_ref().and_then(|status| status["message"].as_str()) {
        Some(message) => format!("Error from server: {message}"),
        None => body.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_panes_fit_eighty_columns_and_nothing_in_them_draws() {
        let rows = beside(&"x".repeat(100), "on\u{1b}[2J wire");
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.chars().count() <= 80 && !row.contains('\u{1b}')));
        assert!(rows[0].ends_with("| on [2J wire"));
        assert_eq!(beside("a", ""), [format!("a{} |", " ".repeat(PANE - 1))]);
        assert_eq!(broken("one two three", 7), ["one two", "three"]);
    }

    #[test]
    fn a_refusal_reads_as_kubectl_says_it() {
        assert_eq!(said("500 {\"message\": \"no\"}"), "Error from server: no");
        assert_eq!(said("200 a log"), "a log");
    }
}
