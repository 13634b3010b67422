//! `tests/claims.md` names, for each sentence the project was asked to show, the test that does; this holds it
//! to the tests there are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every function of every test and source file.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![root.join("src"), root.join("tests")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let after_fn = text.lines().filter_map(|line| line.trim_start().split("fn ").nth(1));
                names.extend(after_fn.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
            }
        }
    }
    names
}

#[test]
fn every_claim_names_tests_that_exist() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/claims.md")).unwrap();
    let there = functions();
    let mut rows = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| S") || line.starts_with("| T")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, row, _, shown, _] = cells[..] else { panic!("not three cells: {line}") };
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row} names no test");
        for name in named {
            assert!(there.contains(name), "{row} names {name}, which is nowhere");
        }
        rows.insert(row.to_owned());
    }
    let wanted = (1..=31).map(|at| format!("S{at}")).chain((1..=30).map(|at| format!("T{at}")));
    assert_eq!(rows, wanted.collect());
}
