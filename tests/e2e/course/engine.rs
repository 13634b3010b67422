//! The engine: wrong repairs named, whatever is broken brought back, progress kept, a room graded.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Learner, exercises, in_full, said};
use crate::kit::eventually;

fn names(report: &Value) -> Vec<String> {
    let all = report["wrong"].as_array().into_iter().flatten();
    all.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}

/// The tour, attacked and not repaired.
fn attacked() -> Learner {
    let learner = Learner::new();
    learner.ok(&["lab", "start", "tour"]);
    learner.solve(&exercises()[0], &["exploit"]);
    assert_eq!(learner.fails("attacked")["exploit"], true);
    learner
}

#[test]
fn the_ways_learners_make_a_symptom_go_away_are_called_by_their_names_and_reset_undoes_each() {
    if !in_full() {
        return;
    }
    let learner = attacked();
    let config = "/var/lib/kubelet/config.yaml";
    let off = format!(
        "minilab exec node-2 -- sed -i 's/^enableDebuggingHandlers: .*//; $ a enableDebuggingHandlers: false' {config} && \
         minilab restart kubelet@node-2"
    );
    for (line, name) in [
        ("kubectl logs web --tail=1 --insecure-skip-tls-verify-backend", "verification-skipped"),
        (
            "kubectl create clusterrolebinding oops --clusterrole=cluster-admin --serviceaccount=default:default",
            "cluster-admin",
        ),
        ("kubectl delete pod web --now", "workload-deleted"),
        ("minilab stop kube-proxy@node-1", "role-stopped"),
        (&off, "handlers-disabled"),
    ] {
        let output = learner.shell(line);
        assert!(output.status.success(), "{line}: {}", said(&output));
        let report = learner.fails(line);
        assert!(names(&report).iter().any(|found| found == name), "{name}: {report:#}");
        learner.shell("kubectl delete clusterrolebinding oops --ignore-not-found");
        learner.ok(&["lab", "reset"]);
        let report = learner.fails("reset");
        assert_eq!(names(&report), Vec::<String>::new(), "after {name}: {report:#}");
    }
    learner.solve(&exercises()[0], &["explain", "harden"]);
    learner.passes("solved after all that");
}

#[test]
fn reset_recovers_a_lab_whose_manifests_nodes_and_roles_are_broken() {
    if !in_full() {
        return;
    }
    let learner = attacked();
    let broken = [
        "minilab exec control -- sh -c 'echo nonsense > /etc/kubernetes/manifests/kube-apiserver.yaml'",
        "minilab exec node-1 -- sh -c 'echo {} > /var/lib/kubelet/config.yaml'; minilab restart kubelet@node-1",
        "kubectl cordon node-1; kubectl taint node node-2 mine=yes:NoExecute; kubectl delete namespace minilab-system --wait=false",
        "minilab down",
    ];
    for line in broken {
        learner.shell(line);
        learner.ok(&["lab", "reset"]);
        let report = learner.fails("reset");
        let works = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "works");
        assert_eq!(works.unwrap()["passed"], true, "after {line}: {report:#}");
    }
    learner.ok(&["lab", "reset", "--hard"]);
    learner.solve(&exercises()[0], &["explain", "harden"]);
    learner.passes("after a new lab");
}

#[test]
fn marks_outlive_the_lab_travel_signed_and_are_graded() {
    let learner = Learner::new();
    let before = learner.minilab(&["lab", "check"]);
    assert_eq!(before.status.code(), Some(2), "{}", said(&before));
    learner.ok(&["lab", "start", "0", "--class", "spring", "--name", "Ada"]);
    learner.ok(&["lab", "hint"]);
    learner.solve(&exercises()[0], &[]);
    learner.passes("solved");
    // It costs a point before and nothing after.
    learner.ok(&["lab", "hint"]);
    learner.ok(&["delete"]);
    let list: Value = serde_json::from_str(&learner.ok(&["lab", "list", "-o", "json"])).unwrap();
    assert_eq!((&list[0]["passed"], &list[0]["points"]), (&true.into(), &29.into()), "{list:#}");
    let room = learner.lab.home.path().join("room");
    std::fs::create_dir(&room).unwrap();
    let file = room.join("ada.json");
    learner.ok(&["lab", "export", file.to_str().unwrap()]);
    let graded = learner.ok(&["lab", "grade", room.to_str().unwrap(), "--class", "spring", "-o", "json"]);
    let graded: Value = serde_json::from_str(&graded).unwrap();
    assert_eq!(
        (&graded["learners"][0]["name"], &graded["learners"][0]["passed"]),
        (&"Ada".into(), &1.into())
    );
    let text = std::fs::read_to_string(&file).unwrap().replace("\"points\": 29", "\"points\": 30");
    std::fs::write(&file, text).unwrap();
    let forged = learner.minilab(&["lab", "grade", room.to_str().unwrap(), "--class", "spring"]);
    assert_eq!(forged.status.code(), Some(3), "{}", said(&forged));
    let scenario = learner.lab.home.path().join("scenario");
    learner.ok(&["lab", "export", "--killercoda", "tour", scenario.to_str().unwrap()]);
    assert!(scenario.join("index.json").exists() && scenario.join("verify.sh").exists());
    learner.ok(&["lab", "reset", "--all", "--yes"]);
    learner.ok(&["lab", "import", file.to_str().unwrap()]);
    assert!(learner.ok(&["lab", "score"]).contains("1 of "));
}

#[test]
fn an_exercise_begins_again_in_a_moment() {
    if !in_full() {
        return;
    }
    let learner = Learner::new();
    learner.ok(&["lab", "start", "0"]);
    // The best of some: a busy machine is slow, a slow reset is always slow.
    let mut times = Vec::new();
    for _ in 0..3 {
        learner.ok(&["harden", "apiserver-to-kubelet"]);
        let began = Instant::now();
        learner.ok(&["lab", "reset"]);
        times.push(began.elapsed());
    }
    let best = times.iter().min().unwrap();
    assert!(*best < Duration::from_secs(10), "{times:?}");
}

#[test]
fn watching_says_by_itself_that_an_answer_was_given() {
    let learner = Learner::new();
    learner.ok(&["lab", "start", "0"]);
    // A terminal of 80 by 24 by way of util-linux' script.
    let mut command = learner.command("script");
    let log = learner.lab.home.path().join("screen");
    command.args(["-qfec", "stty cols 80 rows 24; minilab lab"]).arg(&log);
    let mut child =
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let shows = |what: &str| {
        eventually(Duration::from_secs(60), what, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains(what) { Ok(()) } else { Err(text) }
        });
    };
    shows("q:quit");
    learner.ok(&["lab", "answer", "port", "10250"]);
    shows("✓ explain port");
    let mut keys = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut keys, b"h").unwrap();
    shows("1/3");
    std::io::Write::write_all(&mut keys, b"q").unwrap();
    assert!(child.wait().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("\u{1b}["), "colour: {text:?}");
}
