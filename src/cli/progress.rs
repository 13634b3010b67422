//! Progress of a command that takes a moment: a line a step, with its milliseconds.
//!
//! On a terminal a spinner stands on the step that runs; elsewhere each finished step is a plain line, and
//! with `-o json` a JSON line on standard output. The spinner and its colours honour `NO_COLOR`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Where steps are told.
pub struct Progress {
    how: How,
    step: usize,
    running: Option<(ProgressBar, Instant)>,
    began: Instant,
}

enum How {
    Terminal { colour: bool },
    Plain,
    Json,
    Silent,
}

/// A step as `-o json` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    step: usize,
    name: &'a str,
    result: &'a str,
    took_ms: f64,
}

impl Progress {
    /// On standard error, or as JSON lines on standard output.
    pub fn new(json: bool, quiet: bool) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let colour = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let how = match (json, quiet) {
            (true, _) => How::Json,
            (_, true) => How::Silent,
            _ if std::io::stderr().is_terminal() && !dumb => How::Terminal { colour },
            _ => How::Plain,
        };
        Self { how, step: 0, running: None, began: Instant::now() }
    }

    /// Since the command began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A step begins; the one before, if any is open, is forgotten.
    pub fn begin(&mut self, name: &str) {
        self.clear();
        let bar = match self.how {
            How::Terminal { colour } => {
                let bar = ProgressBar::new_spinner().with_message(name.to_owned());
                let template = if colour { " {spinner:.cyan} {msg}" } else { " {spinner} {msg}" };
                bar.set_style(ProgressStyle::with_template(template).expect("a fixed template is valid"));
                bar.enable_steady_tick(Duration::from_millis(80));
                bar
            }
            _ => ProgressBar::hidden(),
        };
        self.running = Some((bar, Instant::now()));
    }

    /// The open step is done; it may have a better name by now.
    pub fn done(&mut self, name: &str) {
        let took = self.running.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        self.clear();
        self.tell(name, "done", took);
    }

    /// A step that somebody else did and timed.
    pub fn tell_done(&mut self, name: &str, took: Duration) {
        let open = self.running.take();
        if let Some((bar, _)) = &open {
            bar.suspend(|| self.tell(name, "done", took));
        } else {
            self.tell(name, "done", took);
        }
        self.running = open;
    }

    /// Takes the spinner away, for an error or for data that follows.
    pub fn clear(&mut self) {
        if let Some((bar, _)) = self.running.take() {
            bar.finish_and_clear();
        }
    }

    /// A remark on standard error.
    pub fn note(&mut self, text: &str) {
        match self.how {
            How::Json | How::Silent => {}
            _ => eprintln!("   {text}"),
        }
    }

    fn tell(&mut self, name: &str, result: &str, took: Duration) {
        self.step += 1;
        let took_ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        match self.how {
            How::Terminal { colour: true } => {
                eprintln!(" \x1b[32m✓\x1b[0m {name} \x1b[2m{took_ms} ms\x1b[0m")
            }
            How::Terminal { colour: false } => eprintln!(" ✓ {name} {took_ms} ms"),
            How::Plain => eprintln!(" • {name} {took_ms} ms"),
            How::Silent => {}
            How::Json => self.json(&Line { step: self.step, name, result, took_ms }),
        }
    }

    /// A JSON line of a command's own; nothing in the other modes.
    pub fn json(&self, line: &impl Serialize) {
        if let (How::Json, Ok(text)) = (&self.how, serde_json::to_string(line)) {
            // A reader that went away is no reason to stop what is being done.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }
}
