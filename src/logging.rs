//! Log lines as Kubernetes components write them (klog's text format), on standard error.
//!
//! `I1122 06:45:39.123456   12 kubelet.go:1] "message" key="value"` is what people grep for, so the
//! head (severity, month and day, time, pid) is klog's; the place is the Rust module's.

use std::fmt;
use std::sync::OnceLock;

use jiff::Zoned;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

/// Sends this process's log to standard error; `MINILAB_LOG` (error, warn, info, debug, trace) sets how much.
pub fn to_stderr(_role: &str) {
    let level =
        std::env::var("MINILAB_LOG").ok().and_then(|text| text.parse::<Level>().ok()).unwrap_or(Level::INFO);
    let (ours, handle) = reload::Layer::new(targets(level));
    // A second call keeps the first subscriber, and its handle with it.
    let _ = FILTER.set(handle);
    let lines = tracing_subscriber::fmt::layer().event_format(Klog).with_writer(std::io::stderr);
    // A second call (a test that runs two roles in one process) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(lines.with_filter(ours)).try_init();
}

/// How much is logged, while the process runs.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

fn targets(level: Level) -> Targets {
    Targets::new().with_default(level.min(Level::WARN)).with_target("minilab", level)
}

/// klog's `-v`: from 4 on details are shown, from 6 on everything.
pub fn verbosity(number: i32) {
    let level = match number {
        ..4 => Level::INFO,
        4 | 5 => Level::DEBUG,
        _ => Level::TRACE,
    };
    if let Some(filter) = FILTER.get() {
        // The subscriber lives as long as the process.
        let _ = filter.reload(targets(level));
    }
}

/// klog's line format.
struct Klog;

impl<S, N> FormatEvent<S, N> for Klog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let severity = match *meta.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let now = Zoned::now();
        let place = meta.file().and_then(|file| file.rsplit("src/").next()).unwrap_or("minilab");
        write!(
            out,
            "{severity}{} {:>7} {place}:{}]",
            now.strftime("%m%d %H:%M:%S%.6f"),
            std::process::id(),
            meta.line().unwrap_or(0)
        )?;
        let mut fields = Fields { message: String::new(), rest: String::new() };
        event.record(&mut fields);
        writeln!(out, " {:?}{}", fields.message, fields.rest)
    }
}

/// An event's message and its other fields, in klog's `key="value"` form.
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            let _ = write!(self.rest, " {}={text:?}", field.name());
        }
    }
}
