//! Each exercise: nothing done fails everything, its solution and its page pass, and no half repair does.

use serde_json::Value;

use super::{Exercise, Learner, exercises, in_full, page, said};

/// The exercises are dealt out to this many tests, each with one lab.
const HANDS: usize = 3;
/// Exercises up to this one are walked in every run, the others in full ones.
const FIRST: usize = 3;

fn walk(hand: usize) {
    let asked = |exercise: &Exercise| exercise.number <= FIRST || in_full();
    let mine: Vec<Exercise> =
        exercises().into_iter().filter(|one| one.number % HANDS == hand && asked(one)).collect();
    let learner = Learner::new();
    for exercise in &mine {
        idle(&learner, exercise);
        solved(&learner, exercise);
        if in_full() {
            twice_and_by_hand(&learner, exercise);
            undone(&learner, exercise);
            wrong(&learner, exercise);
        }
        // The page again from the beginning, by somebody who has done nothing yet.
        learner.ok(&["lab", "reset", "--all", "--yes"]);
        learner.ok(&["lab", "start", &exercise.number.to_string()]);
        page::walk(&learner, exercise);
        learner.passes(&format!("{} after its page", exercise.name()));
    }
}

#[test]
fn exercises_0_3_6_9_and_12_are_failed_by_doing_nothing_and_passed_by_solution_and_page() {
    walk(0);
}

#[test]
fn exercises_1_4_7_and_10_are_failed_by_doing_nothing_and_passed_by_solution_and_page() {
    walk(1);
}

#[test]
fn exercises_2_5_8_and_11_are_failed_by_doing_nothing_and_passed_by_solution_and_page() {
    walk(2);
}

fn idle(learner: &Learner, exercise: &Exercise) {
    learner.ok(&["lab", "start", &exercise.number.to_string()]);
    let report = learner.fails("nothing done");
    let checks = report["checks"].as_array().unwrap();
    let held: Vec<&Value> = checks.iter().filter(|check| check["passed"] != false).collect();
    assert!(!checks.is_empty() && held.is_empty(), "{}: held by doing nothing: {held:#?}", exercise.name());
}

fn solved(learner: &Learner, exercise: &Exercise) {
    learner.solve(exercise, &["exploit"]);
    let report = learner.fails("attacked and not repaired");
    assert_eq!(report["exploit"], true, "{}: {report:#}", exercise.name());
    learner.solve(exercise, &["explain", "harden"]);
    learner.passes(&format!("{} solved", exercise.name()));
}

fn twice_and_by_hand(learner: &Learner, exercise: &Exercise) {
    learner.solve(exercise, &["explain", "harden"]);
    learner.passes(&format!("{} solved twice", exercise.name()));
    learner.ok(&["lab", "reset"]);
    learner.fails("reset");
    learner.solve(exercise, &["by_hand"]);
    learner.passes(&format!("{} by hand", exercise.name()));
    learner.solve(exercise, &["by_hand"]);
    learner.passes(&format!("{} by hand twice", exercise.name()));
}

/// Every repair is needed.
fn undone(learner: &Learner, exercise: &Exercise) {
    for repair in exercise.list("repairs") {
        let repair = repair.as_str().unwrap();
        learner.ok(&["lab", "reset"]);
        learner.solve(exercise, &["harden"]);
        learner.passes("repaired again");
        learner.ok(&["soften", repair]);
        learner.fails(&format!("{} without {repair}", exercise.name()));
    }
}

/// Wrong repairs are told by their names.
fn wrong(learner: &Learner, exercise: &Exercise) {
    for wrong in exercise.list("wrong") {
        learner.ok(&["lab", "reset"]);
        let output = learner.shell(wrong["try"].as_str().unwrap());
        let report = learner.fails(&format!("{}: {}", exercise.name(), wrong["name"]));
        let named = report["wrong"].as_array().unwrap();
        let found = named.iter().any(|one| one["name"] == wrong["name"]);
        assert!(found, "{}: {} is not named: {report:#}\n{}", exercise.name(), wrong["name"], said(&output));
    }
}
