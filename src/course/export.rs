//! An exercise as a killercoda scenario: `index.json`, one text a part, a script that verifies.
//!
//! The scenario expects minilab on the machine's PATH; its steps are the page's own parts.

use serde_json::json;

use super::book::Chapter;

/// Files of the scenario: names and contents.
pub fn killercoda(chapter: &Chapter) -> Vec<(String, String)> {
    let readme = chapter.readme();
    let parts = parts(&readme);
    let word = chapter.number.to_string();
    let mut files = Vec::new();
    let mut steps = Vec::new();
    for (at, (title, text)) in parts.iter().enumerate().skip(1) {
        let file = format!("step{at}.md");
        let mut step = json!({"title": title, "text": file});
        if at + 1 == parts.len() {
            step["verify"] = "verify.sh".into();
        }
        steps.push(step);
        files.push((file, executable(text)));
    }
    let intro = parts.first().map(|(_, text)| text.clone()).unwrap_or_default();
    files.push(("intro.md".into(), intro));
    files.push(("setup.sh".into(), format!("#!/bin/bash\nminilab up && minilab lab start {word}\n")));
    files.push(("verify.sh".into(), format!("#!/bin/bash\nminilab lab check {word}\n")));
    files.push(("finish.md".into(), "All three marks. `minilab lab next` goes on.\n".into()));
    let index = json!({
        "title": chapter.title(),
        "description": format!("minilab: {}", chapter.exercise.path),
        "details": {
            "intro": {"text": "intro.md", "background": "setup.sh"},
            "steps": steps,
            "finish": {"text": "finish.md"},
        },
        "backend": {"imageid": "ubuntu"},
    });
    files.push(("index.json".into(), format!("{index:#}\n")));
    files
}

/// The page's parts: what is above the first `##`, then each with its heading.
fn parts(page: &str) -> Vec<(String, String)> {
    let mut parts: Vec<(String, String)> = vec![(String::new(), String::new())];
    for line in page.lines() {
        match line.strip_prefix("## ") {
            Some(title) => parts.push((title.trim().to_owned(), String::new())),
            None => {
                if let Some((_, text)) = parts.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    parts
}

/// Commands of `console` blocks become blocks that a click runs; what they print is shown below each.
fn executable(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !line.starts_with("```console") {
            out += &format!("{line}\n");
            continue;
        }
        // Commands and what each prints, by turns.
        let mut parts: Vec<(String, String)> = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let more = line.strip_prefix("> ");
            match (line.strip_prefix("$ "), parts.last_mut()) {
                (Some(command), _) => parts.push((format!("{command}\n"), String::new())),
                (None, Some((command, shown))) => match more.filter(|_| shown.is_empty()) {
                    Some(more) => *command += &format!("{more}\n"),
                    None => *shown += &format!("{line}\n"),
                },
                (None, None) => parts.push((format!("{line}\n"), String::new())),
            }
        }
        for (command, shown) in parts {
            out += &format!("```plain\n{command}```{{{{exec}}}}\n");
            if !shown.is_empty() {
                out += &format!("\n```text\n{shown}```\n");
            }
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_has_a_text_for_every_step_it_names() {
        let chapter = Chapter::of(&super::super::folders()[0], "somebody").unwrap();
        let files = killercoda(&chapter);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let index = files.iter().find(|(name, _)| name == "index.json").unwrap();
        let index: serde_json::Value = serde_json::from_str(&index.1).unwrap();
        let steps = index["details"]["steps"].as_array().unwrap();
        assert!(steps.len() >= 3);
        assert!(steps.iter().all(|step| names.contains(&step["text"].as_str().unwrap())));
        assert_eq!(steps.last().unwrap()["verify"], "verify.sh");
        assert!(files.iter().any(|(_, text)| text.contains("{{exec}}")));
        assert!(!files.iter().any(|(_, text)| text.contains("```console")));
    }

    #[test]
    fn a_command_over_two_lines_is_one_click() {
        let page = "before\n```console\n$ a \\\n>   b\none\n$ c\n```\nafter\n";
        let wanted = "before\n```plain\na \\\n  b\n```{{exec}}\n\n```text\none\n```\n\n\
                      ```plain\nc\n```{{exec}}\n\nafter\n";
        assert_eq!(executable(page), wanted);
    }
}
