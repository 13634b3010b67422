//! The house keeps its shape: imports point one way, and the few structural rules hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders of `src/` by floor; a module may import from lower floors only, never from its own.
const FLOORS: &[&[&str]] = &[
    &["api", "sys", "logging"],
    &["pki"],
    &["net", "stream"],
    &["client"],
    &["control", "node", "tunnel"],
    &["lab"],
    &["attack"],
    &["course"],
    &["cli"],
    &["main"],
];

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found
        .unwrap_or_else(|| panic!("src/{module} stands on no floor: add it to the table in tests/imports.rs"))
}

fn sources() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
                false => {}
            }
        }
    }
    found
}

/// The first word after each `crate::` in code (comments may name anything).
fn imports(text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut names = Vec::new();
    for line in code {
        for after in line.split("crate::").skip(1) {
            let words: Vec<&str> = match after.strip_prefix('{') {
                Some(list) => list.split(',').collect(),
                None => vec![after],
            };
            for word in words {
                let name: String = word
                    .trim()
                    .chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect();
                if !name.is_empty() {
                    names.push(name);
                }
            }
        }
    }
    names
}

#[test]
fn imports_point_down_and_siblings_meet_on_the_wire_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = BTreeMap::new();
    for path in sources() {
        let inside = path.strip_prefix(&root).unwrap();
        let own = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        for name in imports(&std::fs::read_to_string(&path).unwrap()) {
            if name != own && root.join(&name).exists() && floor(&name) >= floor(&own) {
                wrong.insert(format!("{} imports {name}", inside.display()), ());
            }
        }
    }
    assert!(wrong.is_empty(), "{:#?}", wrong.keys());
}

#[test]
fn the_import_reader_sees_what_it_must() {
    let text =
        "use crate::net::dial;\nuse crate::{api::Status, lab};\n// crate::cli\nlet x = crate::pki::new();";
    assert_eq!(imports(text), ["net", "api", "lab", "pki"]);
}

#[test]
fn main_is_short_and_there_is_no_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert!(std::fs::read_to_string(root.join("main.rs")).unwrap().lines().count() <= 100);
    assert!(!root.join("lib.rs").exists(), "in a binary crate the compiler reports dead code");
}

#[test]
fn every_file_says_what_it_is() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let tests = path.file_name().is_some_and(|name| name.to_string_lossy().contains("tests"));
        assert!(tests || text.starts_with("//!"), "{} has no head", path.display());
    }
}

#[test]
fn unsafe_code_lives_in_sys_only() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let allowed = path.components().any(|part| part.as_os_str() == "sys");
        let excepted = text.contains("allow(unsafe_code");
        assert!(allowed || !excepted, "{} excepts itself from the unsafe lint", path.display());
    }
}
