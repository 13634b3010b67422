//! `minilab verify --report FILE`: what was shown, as one page for others to read. `.html` is self-contained,
//! `.md` is Markdown, `.xml` is JUnit for a pipeline.
//!
//! Every claim of the page leads to the evidence it rests on, further down.

mod html;
mod map;

use std::fmt::Write;
use std::path::Path;

use crate::attack::Report;
use crate::lab::paths::{PATHS, SettingInfo, find};

/// The page in the form a file's name asks for; nothing for a name of another kind.
pub fn page(file: &Path, lab: &str, reports: &[Report]) -> Option<String> {
    match file.extension()?.to_str()? {
        "html" => Some(html::page(lab, reports)),
        "md" => Some(markdown(lab, reports)),
        "xml" => Some(junit(lab, reports)),
        _ => None,
    }
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

    /// What stands in an attribute, wherever it does.
    fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
        page.split(&format!(" {name}=\"")).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    /// The same setting shut: what came before and what came after.
    fn both() -> Vec<Report> {
        let mut all = reports();
        let mut shut = reports().remove(0);
        (shut.mode, shut.verdict, shut.expected) = ("hardened".into(), Verdict::Defeated, Verdict::Defeated);
        all.push(shut);
        all
    }

    #[test]
    fn each_claim_leads_to_its_evidence_and_nothing_of_it_is_markup() {
        let page = page(Path::new("a.html"), "x", &both()).unwrap();
        let (ids, links) = (attributes(&page, "id"), attributes(&page, "href"));
        assert!(ids.iter().all(|id| ids.iter().filter(|other| other == &id).count() == 1), "{ids:?}");
        for link in &links {
            let id = link.strip_prefix('#').expect("nothing outside the page is linked");
            assert!(ids.contains(&id), "{link} leads nowhere");
        }
        // A verdict's evidence, and from the map its path.
        for wanted in ["#e0-0", "#e1-0", "#kubelet-access.read-only-port", "#kubelet-access"] {
            assert!(links.contains(&wanted), "{wanted}: {links:?}");
        }
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        assert!(page.contains("readOnlyPort") && page.contains("curl"));
        for outside in ["http-equiv", " src=", "url(", "@import", "<link", "<iframe"] {
            assert!(!page.contains(outside), "nothing is fetched: {outside}");
        }
    }

    #[test]
    fn the_map_has_every_path_and_each_state_of_the_lab_has_one() {
        let page = page(Path::new("a.html"), "x", &both()).unwrap();
        assert_eq!(page.matches("<svg").count(), 2, "one while insecure, one while hardened");
        for path in PATHS {
            assert_eq!(page.matches(&format!(">{}</text>", path.name)).count(), 2, "{}", path.name);
        }
        assert!(page.contains("class=\"way compromised\"") && page.contains("class=\"way defeated\""));
    }

    #[test]
    fn a_verdict_nobody_expected_fails_in_a_pipeline() {
        let text = page(Path::new("a.xml"), "x", &reports()).unwrap();
        assert!(text.contains("failures=\"1\"") && text.contains("seen | &quot;so&quot;"));
        assert!(page(Path::new("a.md"), "x", &reports()).unwrap().contains("seen \\| \"so\""));
        assert_eq!(page(Path::new("a.pdf"), "x", &reports()), None);
    }
}
