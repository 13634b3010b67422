//! The self-contained page: the map, the table of claims, and below it each setting with what was seen while it
//! was open and while it was shut, the flags between the two, and the probe.

use std::fmt::Write;

use super::{escaped, map, row};
use crate::attack::{Evidence, Report};
use crate::lab::paths::{PATHS, PathInfo, SettingInfo, lesson};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;\
color:#222}table{border-collapse:collapse;width:100%}td,th{border:1px solid #bbb;padding:.3rem .6rem;\
text-align:left;vertical-align:top}pre{background:#f4f4f4;padding:.6rem;overflow-x:auto;white-space:pre-wrap;\
word-break:break-word;margin:.2rem 0}.compromised td{background:#f8d0cc}.defeated td{background:#cfeccf}\
.inconclusive td{background:#f6e8b8}.sides{display:flex;flex-wrap:wrap;gap:1rem}.sides>section{flex:1 1 28rem;\
min-width:0}figure{margin:.6rem 0}svg{width:100%;max-width:46rem}svg text{font:13px system-ui,sans-serif}\
.place{fill:#eef1f6;stroke:#8895a7}.ground{fill:#f3ece0;stroke:#b9a47d}.way{stroke-width:4;fill:none}\
.way.compromised{stroke:#c0392b}.way.defeated{stroke:#2e8b57}.way.inconclusive{stroke:#c79a1b}\
.way.untried{stroke:#999;stroke-dasharray:6 5}";

/// A report with its place in the page, which its evidence's names are made of.
type Numbered<'a> = (usize, &'a Report);

pub fn page(lab: &str, reports: &[Report]) -> String {
    let mut out = String::new();
    let all: Vec<Numbered<'_>> = reports.iter().enumerate().collect();
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>minilab {0}</title><style>{STYLE}\
         </style></head><body><h1>Paths of lab {0}</h1><p>{1} attacks, each on real packets. A verdict leads to \
         what it rests on.</p>",
        escaped(lab),
        reports.len()
    );
    for (caption, part) in map::states(reports) {
        let _ = write!(out, "<h2>{caption}</h2>{}", map::draw(&part));
    }
    out += "<h2>Claims</h2><table><tr><th>setting</th><th>mode</th><th>verdict</th><th>what was seen</th>\
            <th>evidence</th></tr>";
    all.iter().for_each(|claim| out += &line(*claim));
    out += "</table>";
    for path in PATHS {
        let _ = write!(out, "<h2 id=\"{}\">{}</h2><p>{}.</p>", path.name, path.name, escaped(path.protects));
        path.settings.iter().for_each(|setting| out += &section(path, setting, &all));
    }
    out + "</body></html>\n"
}

/// A claim, and the way to each piece of what it rests on.
fn line((at, report): Numbered<'_>) -> String {
    let pieces =
        (0..report.evidence.len()).map(|piece| format!("<a href=\"#e{at}-{piece}\">{}</a> ", piece + 1));
    format!(
        "<tr class=\"{0}\"><td><a href=\"#{1}\">{1}</a></td><td>{2}</td><td><a href=\"#e{at}\">{0}</a></td>\
         <td>{3}</td><td>{4}</td></tr>",
        report.verdict,
        escaped(&report.path),
        escaped(&report.mode),
        escaped(&report.observed),
        pieces.collect::<String>()
    )
}

fn section(path: &PathInfo, setting: &SettingInfo, all: &[Numbered<'_>]) -> String {
    let name = format!("{}.{}", path.name, setting.name);
    let mut out = format!("<h3 id=\"{name}\">{name}</h3>");
    if let Some(lesson) = lesson(setting.id) {
        let _ = write!(out, "<p>{}. Open: {}.</p>", escaped(lesson.dials), escaped(lesson.gains));
    }
    out += "<div class=\"sides\">";
    let own = all.iter().filter(|(_, report)| row(report).is_some_and(|row| row.id == setting.id));
    let mut tried = false;
    for claim in own {
        tried = true;
        out += &side(*claim);
    }
    if !tried {
        let _ = write!(out, "<section><p>Not attacked: {}.</p></section>", escaped(setting.attack));
    }
    out +=
        "</div><table><tr><th>role</th><th>flag, field or object</th><th>insecure</th><th>hardened</th></tr>";
    for flag in setting.flags {
        let cells = [flag.role, flag.flag, flag.insecure, flag.hardened].map(escaped);
        let cells = cells.iter().map(|cell| format!("<td><code>{cell}</code></td>")).collect::<String>();
        let _ = write!(out, "<tr>{cells}</tr>");
    }
    out += "</table>";
    if let Some(lesson) = lesson(setting.id) {
        let answers = |texts: &[&str]| escaped(&texts.join(" or "));
        let _ = write!(
            out,
            "<p>To look on a cluster of your own (insecure: <code>{}</code>; hardened: <code>{}</code>):</p>\
             <pre>{}</pre>",
            answers(lesson.probe.insecure),
            answers(lesson.probe.hardened),
            escaped(lesson.probe.line)
        );
    }
    out
}

/// What was seen of one setting in one mode.
fn side((at, report): Numbered<'_>) -> String {
    let mut out = format!(
        "<section id=\"e{at}\"><h4>while {}: {}</h4><p>{}</p><p>Expected {}, because of {}. {:.0} ms.</p>",
        escaped(&report.mode),
        report.verdict,
        escaped(&report.observed),
        report.expected,
        escaped(&report.decides),
        report.took_ms
    );
    for (piece, Evidence { kind, what, sample }) in report.evidence.iter().enumerate() {
        let _ = write!(
            out,
            "<figure id=\"e{at}-{piece}\"><figcaption>{kind}: {}</figcaption><pre>{}</pre></figure>",
            escaped(what),
            escaped(sample)
        );
    }
    out + "</section>"
}
