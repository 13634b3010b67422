//! Logs followed at once, and a reader that stops.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{good, with_input};
use crate::kit::process::held;
use crate::kit::{Lab, clients, eventually};

#[test]
fn logs_of_five_pods_are_followed_at_once() {
    let lab = Lab::up();
    for number in 0..5 {
        let script = format!("n=0; while :; do echo pod {number} line $n; n=$((n+1)); sleep 0.05; done");
        lab.kubectl(&[
            "run",
            &format!("talk-{number}"),
            "--labels=app=talk",
            "--image=minilab/toolbox",
            "--",
            "sh",
            "-c",
            &script,
        ])
        .ok();
    }
    (0..5).for_each(|number| lab.wait_ready(&format!("talk-{number}")));
    for version in clients::both() {
        let mut following = lab
            .kubectl_command(version)
            .args(["logs", "-f", "-l", "app=talk", "--prefix", "--tail=1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = [0; 5];
        for line in BufReader::new(following.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let number: usize = line.split("pod ").nth(1).and_then(|rest| rest[..1].parse().ok()).unwrap();
            seen[number] += 1;
            if seen.iter().all(|count| *count >= 5) {
                break;
            }
        }
        following.kill().unwrap();
        following.wait().unwrap();
        assert!(seen.iter().all(|count| *count >= 5), "{seen:?}");
    }
}

#[test]
fn the_last_lines_of_a_log_that_grows_are_as_many_as_were_asked_for() {
    let lab = Lab::up();
    lab.run("flood", "while :; do echo line; done");
    for lines in [0, 1, 5, 1000] {
        let shown = lab.kubectl(&["logs", "flood", &format!("--tail={lines}")]).ok();
        assert_eq!(shown.lines().count(), lines);
    }
}

#[test]
fn a_reader_that_stops_holds_no_other_back_and_loses_nothing() {
    let lab = Lab::up();
    lab.run(
        "web",
        "yes 0123456789012345678901234567890123456789 | head -c 30000000; echo; echo done; sleep infinity",
    );
    let api = lab.pid("kube-apiserver", "control");
    eventually(Duration::from_secs(30), "the log is written", || {
        let tail = lab.kubectl(&["logs", "web", "--tail=1"]).ok();
        if tail == "done\n" { Ok(()) } else { Err(tail) }
    });
    let before = held(api);
    let mut reader = lab
        .kubectl_command(clients::any())
        .args(["logs", "web"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = reader.stdout.take().unwrap();
    out.read_exact(&mut [0; 1]).unwrap();
    // A command that reads nothing of what is sent to it, for longer than silence is borne.
    let mut exec = lab.kubectl_command(clients::any());
    exec.args(["exec", "-i", "web", "--", "sh", "-c", "sleep 5; wc -c"]);
    let slow = std::thread::spawn(move || with_input(exec, &vec![0; 20 << 20]));
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(lab.kubectl(&["exec", "web", "--", "echo", "others"]).ok(), "others\n");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "others waited {:?}", started.elapsed());
    assert_eq!(good(&slow.join().unwrap()).trim(), (20 << 20).to_string());
    let now = held(api);
    assert!(now.2 < before.2 + 40_000, "{now:?}, before {before:?}");
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert!(reader.wait().unwrap().success() && rest.ends_with(b"done\n"), "{} bytes", rest.len());
}
