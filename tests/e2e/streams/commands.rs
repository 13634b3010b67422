//! exec with its exit codes, big binaries both ways, attach and debug.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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
fn input_goes_on_after_a_command_has_closed_its_outputs() {
    let lab = Lab::up();
    lab.run("web", "sleep infinity");
    let bytes = noise(4 << 20);
    for_all(&lab, |lab, version, wire| {
        let mut exec = kubectl(lab, version, wire);
        let script = "exec >/dev/null 2>&1; sleep 1; cat > /tmp/in; exit 5";
        exec.args(["exec", "-i", "web", "--", "sh", "-c", script]);
        let output = with_input(exec, &bytes);
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
        let size = lab.kubectl(&["exec", "web", "--", "sh", "-c", "wc -c < /tmp/in"]).ok();
        assert_eq!(size.trim(), bytes.len().to_string());
    });
}

#[test]
fn a_container_waits_for_an_attached_reader_that_pauses() {
    let lab = Lab::up();
    for_all(&lab, |lab, version, wire| {
        let mut run = kubectl(lab, version, wire);
        let script = "read line; head -c 20000000 /dev/zero; echo end";
        run.args(["run", "big", "-i", "--rm", "--quiet", "--restart=Never", "--image=minilab/toolbox", "--"]);
        run.args(["sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 1]).unwrap();
        // Longer than any pipe and any patience of old.
        std::thread::sleep(Duration::from_secs(3));
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"end\n"), "{} bytes", rest.len());
        assert_eq!(rest.len() + 1, 20_000_004);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
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
