//! exec with its exit codes, big binaries both ways, attach and debug.

use std::path::Path;
use std::process::Command;

use super::{for_all, good, kubectl, noise, text, with_input};
use crate::kit::{Lab, clients, rounds};

/// 200 MB in the soak, 10 in between.
fn big() -> Vec<u8> {
    noise(rounds(200) << 20)
}

#[test]
fn commands_run_with_their_exit_codes_input_and_output() {
    let lab = Lab::up();
    lab.run("web", "sleep infinity");
    for_all(&lab, |lab, version, wire| {
        let exec = |arguments: &[&str]| {
            let mut command = kubectl(lab, version, wire);
            command.args(["exec", "web"]).args(arguments);
            command
        };
        let run = |arguments: &[&str]| exec(arguments).output().unwrap();
        let shell = |script: &str| run(&["--", "sh", "-c", script]);
        assert_eq!(good(&run(&["--", "echo", "one two"])), "one two\n");
        for code in [1, 7, 255] {
            let output = shell(&format!("exit {code}"));
            assert_eq!(output.status.code(), Some(code));
            assert_eq!(text(&output.stderr), format!("command terminated with exit code {code}\n"));
        }
        let both = shell("echo out; echo err >&2");
        assert_eq!((text(&both.stdout), text(&both.stderr)), ("out\n".into(), "err\n".into()));
        assert_eq!(good(&with_input(exec(&["-i", "--", "cat"]), b"to and fro\n")), "to and fro\n");
        // A command that ends while its input still comes keeps its exit code.
        let early =
            with_input(exec(&["-i", "--", "sh", "-c", "head -c 10 >/dev/null; exit 3"]), &noise(4 << 20));
        assert_eq!(early.status.code(), Some(3), "{}", text(&early.stderr));
        let missing = run(&["--", "no-such-program"]);
        assert!(!missing.status.success());
        assert!(text(&missing.stderr).contains("no-such-program"), "{}", text(&missing.stderr));
        let other = run(&["-c", "other", "--", "true"]);
        assert!(
            text(&other.stderr).contains("container other is not valid for pod web"),
            "{}",
            text(&other.stderr)
        );
    });
}

#[test]
fn big_binaries_arrive_as_they_left() {
    let lab = Lab::up();
    lab.run("web", "sleep infinity");
    let (bytes, home) = (big(), lab.home.path().to_owned());
    std::fs::write(home.join("sent"), &bytes).unwrap();
    let sum = checksum(&home.join("sent"));
    for_all(&lab, |lab, version, wire| {
        let run = |arguments: &[&str]| {
            kubectl(lab, version, wire).args(arguments).current_dir(&home).output().unwrap()
        };
        let mut exec = kubectl(lab, version, wire);
        exec.args(["exec", "-i", "web", "--", "sh", "-c", "cat > /tmp/in; sha256sum < /tmp/in"]);
        assert!(good(&with_input(exec, &bytes)).starts_with(&sum));
        let back = run(&["exec", "web", "--", "cat", "/tmp/in"]);
        assert!(back.status.success() && back.stdout == bytes, "{} of {}", back.stdout.len(), bytes.len());
        // Where the lab has one id, no file in it can have the sender's owner.
        good(&run(&["cp", "--no-preserve", "sent", "web:/tmp/copied"]));
        assert!(good(&run(&["exec", "web", "--", "sha256sum", "/tmp/copied"])).starts_with(&sum));
        good(&run(&["cp", "web:/tmp/copied", "received"]));
        assert_eq!(checksum(&home.join("received")), sum);
        std::fs::remove_file(home.join("received")).unwrap();
    });
}

fn checksum(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    text(&output.stdout).split(' ').next().unwrap().to_owned()
}

#[test]
fn attach_reaches_a_running_containers_input_and_debug_adds_a_container() {
    let lab = Lab::up();
    for_all(&lab, |lab, version, wire| {
        let name = format!("{wire:?}-{}", version.version).to_lowercase().replace(['.', 'v'], "");
        lab.apply(
            &serde_json::json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [
                    {"name": "main", "image": "minilab/toolbox", "stdin": true,
                     "command": ["sh", "-c", "while read line; do echo heard $line; [ $line = end ] && exit 0; done"]}]},
            })
            .to_string(),
        );
        lab.wait_ready(&name);
        let mut attach = kubectl(lab, version, wire);
        attach.args(["attach", "-i", &name]);
        let said = good(&with_input(attach, b"one\nend\n"));
        assert!(said.contains("heard one\n") && said.contains("heard end\n"), "{said}");
    });
    lab.run("web", "sleep infinity");
    for version in clients::both() {
        let mut debug = lab.kubectl_command(version);
        debug.args([
            "debug",
            "-i",
            "web",
            "--image=minilab/toolbox",
            "--target=web",
            "--",
            "sh",
            "-c",
            "read line; echo debugged $line",
        ]);
        let output = with_input(debug, b"well\n");
        assert!(good(&output).contains("debugged well"), "{}{}", text(&output.stdout), text(&output.stderr));
    }
    let pod = lab.object(&["pod", "web"]);
    assert_eq!(pod["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2), "{pod}");
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["targetContainerName"], "web");
}
