//! `minilab verify --report FILE`: what was shown, as one page for others to read. `.html` is self-contained,
//! `.md` is Markdown, `.xml` is JUnit for a pipeline.
//!
//! Every claim of the page leads to the evidence it rests on, further down.

use std::fmt::Write;
use std::path::Path;

use crate::attack::Report;
use crate::lab::paths::{PATHS, SettingInfo, find, lesson};

/// The page in the form a file's name asks for; nothing for a name of another kind.
pub fn page(file: &Path, lab: &str, reports: &[Report]) -> Option<String> {
    match file.extension()?.to_str()? {
        "html" => Some(html(lab, reports)),
        "md" => Some(markdown(lab, reports)),
        "xml" => Some(junit(lab, reports)),
        _ => None,
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%}td,th{border:1px solid #bbb;padding:.3rem .6rem;text-align:left;\
vertical-align:top}pre{background:#f4f4f4;padding:.6rem;overflow-x:auto;white-space:pre-wrap}\
.compromised{background:#f8d0cc}.defeated{background:#cfeccf}.inconclusive{background:#f6e8b8}";

fn html(lab: &str, reports: &[Report]) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>minilab {0}</title><style>{STYLE}\
         </style></head><body><h1>Paths of lab {0}</h1><p>{1} attacks; each verdict leads to its evidence.</p>\
         <table><tr><th>setting</th><th>mode</th><th>verdict</th><th>what was seen</th></tr>",
        escaped(lab),
        reports.len()
    );
    for (at, report) in reports.iter().enumerate() {
        let _ = write!(
            out,
            "<tr class=\"{0}\"><td>{1}</td><td>{2}</td><td><a href=\"#e{at}\">{0}</a></td><td>{3}</td></tr>",
            report.verdict,
            escaped(&report.path),
            escaped(&report.mode),
            escaped(&report.observed)
        );
    }
    out += "</table>";
    for (at, report) in reports.iter().enumerate() {
        let _ = write!(
            out,
            "<h2 id=\"e{at}\">{} while {}: {}</h2><p>Expected {}, because of {}. {:.0} ms.</p>",
            escaped(&report.path),
            escaped(&report.mode),
            report.verdict,
            report.expected,
            escaped(&report.decides),
            report.took_ms
        );
        for evidence in &report.evidence {
            let (what, sample) = (escaped(&evidence.what), escaped(&evidence.sample));
            let _ = write!(out, "<p>{what}</p><pre>{sample}</pre>");
        }
        if let Some(row) = row(report) {
            for flag in row.flags {
                let words = [flag.role, flag.flag, flag.insecure, flag.hardened].map(escaped);
                let _ = write!(
                    out,
                    "<p>{} <code>{}</code>: insecure <code>{}</code>, hardened <code>{}</code></p>",
                    words[0], words[1], words[2], words[3]
                );
            }
            if let Some(lesson) = lesson(row.id) {
                let _ = write!(
                    out,
                    "<p>To look on a cluster of your own:</p><pre>{}</pre>",
                    escaped(lesson.probe.line)
                );
            }
        }
    }
    out + "</body></html>\n"
}

fn markdown(lab: &str, reports: &[Report]) -> String {
    let mut out = format!("# Paths of lab {lab}\n");
    for path in PATHS {
        let of_path = reports.iter().filter(|report| report.path.starts_with(&format!("{}.", path.name)));
        let mut of_path = of_path.peekable();
        if of_path.peek().is_none() {
            continue;
        }
        let _ = write!(
            out,
            "\n## {}\n\n{}.\n\n| setting | mode | verdict | what was seen |\n|---|---|---|---|\n",
            path.name, path.protects
        );
        for report in of_path {
            let observed = report.observed.replace('|', "\\|").replace('\n', " ");
            let _ = writeln!(out, "| {} | {} | {} | {observed} |", report.path, report.mode, report.verdict);
        }
    }
    out
}

fn junit(lab: &str, reports: &[Report]) -> String {
    let failures = reports.iter().filter(|report| !report.as_expected()).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"minilab {}\" tests=\"{}\" failures=\"{failures}\">\n",
        escaped(lab),
        reports.len()
    );
    for report in reports {
        let _ = write!(
            out,
            "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
            escaped(&report.path),
            escaped(&report.mode),
            report.took_ms / 1000.0
        );
        if !report.as_expected() {
            let what =
                format!("{} where {} was expected: {}", report.verdict, report.expected, report.observed);
            let _ = write!(out, "<failure message=\"{}\"/>", escaped(&what));
        }
        out += "</testcase>\n";
    }
    out + "</testsuite>\n"
}

fn row(report: &Report) -> Option<&'static SettingInfo> {
    find(&report.path).ok().map(|(_, row)| row)
}

/// Text that came from an attacker or a victim is text and nothing else.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            letter if letter.is_control() && !matches!(letter, '\n' | '\t') => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Evidence, Verdict};

    fn reports() -> Vec<Report> {
        let evidence = vec![Evidence { kind: "answer", what: "GET".into(), sample: "<script>\u{7}".into() }];
        vec![Report {
            path: "kubelet-access.read-only-port".into(),
            mode: "insecure".into(),
            verdict: Verdict::Compromised,
            reached: true,
            expected: Verdict::Defeated,
            decides: "kubelet-access.read-only-port".into(),
            evidence,
            observed: "seen | \"so\"".into(),
            took_ms: 12.0,
        }]
    }

    #[test]
    fn each_claim_leads_to_its_evidence_and_nothing_of_it_is_markup() {
        let page = page(Path::new("a.html"), "x", &reports()).unwrap();
        assert!(page.contains("href=\"#e0\"") && page.contains("id=\"e0\""));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(page.contains("readOnlyPort") && page.contains("curl"));
        assert!(!page.contains("http-equiv") && !page.contains("src="), "nothing is fetched");
    }

    #[test]
    fn a_verdict_nobody_expected_fails_in_a_pipeline() {
        let text = page(Path::new("a.xml"), "x", &reports()).unwrap();
        assert!(text.contains("failures=\"1\"") && text.contains("seen | &quot;so&quot;"));
        assert!(page(Path::new("a.md"), "x", &reports()).unwrap().contains("seen \\| \"so\""));
        assert_eq!(page(Path::new("a.pdf"), "x", &reports()), None);
    }
}
