//! What goes to a running pod: exec, attach, cp, port-forward, logs and debug, by WebSocket and by SPDY,
//! with kubectl in two versions.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::kit::clients::{self, Kubectl};
use crate::kit::{Lab, eventually, random, rounds};

/// How kubectl talks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wire {
    WebSocket,
    Spdy,
}

const WIRES: [Wire; 2] = [Wire::WebSocket, Wire::Spdy];

fn kubectl(lab: &Lab, kubectl: &Kubectl, wire: Wire) -> Command {
    let mut command = lab.kubectl_command(kubectl);
    if wire == Wire::Spdy {
        command
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
    }
    command
}

/// Runs to the end with this input.
fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command may end before it has read everything.
        let _ = to.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{:?}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Bytes nobody could guess, and every value among them.
fn noise(size: usize) -> Vec<u8> {
    let mut state = random() | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// 200 MB in the soak, 10 in between.
fn big() -> Vec<u8> {
    noise(rounds(200) << 20)
}

fn for_all(lab: &Lab, test: impl Fn(&Lab, &Kubectl, Wire)) {
    for version in clients::both() {
        for wire in WIRES {
            eprintln!("kubectl {} by {wire:?}", version.version);
            test(lab, version, wire);
        }
    }
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

/// A forwarded port; ends with its kubectl.
struct Forward {
    child: Child,
    address: SocketAddr,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Forward {
    fn start(mut command: Command, to: &str, port: u16) -> Self {
        let mut child = command
            .args(["port-forward", to, &format!(":{port}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("kubectl says where it listens").unwrap();
        // "Forwarding from 127.0.0.1:40000 -> 8080"
        let address = first.split(' ').nth(2).and_then(|word| word.parse().ok());
        // kubectl goes on talking; nobody may make it wait.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.unwrap_or_else(|| panic!("{first}")) }
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: web\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or("no answer")?;
        Ok(answer.split_off(end + 4))
    }
}

#[test]
fn a_forwarded_port_carries_many_connections_and_outlives_a_reset_one() {
    let lab = Lab::up();
    let size = rounds(1000) << 20;
    lab.run(
        "web",
        &format!(
            "mkdir /tmp/www && cd /tmp/www && for n in $(seq 0 99); do echo page $n > page-$n; done; \
             head -c {size} /dev/zero > big; exec python3 -m http.server 8080"
        ),
    );
    // kubectl ends when a connection it forwards is refused, so the server must be there first.
    eventually(Duration::from_secs(30), "the server listens", || {
        let connect = "import socket; socket.create_connection(('127.0.0.1', 8080))";
        let ran = lab.kubectl(&["exec", "web", "--", "python3", "-c", connect]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    for_all(&lab, |lab, version, wire| {
        let forward = Forward::start(kubectl(lab, version, wire), "pod/web", 8080);
        eventually(Duration::from_secs(20), "the first page", || forward.get("/page-0").map(drop));
        std::thread::scope(|scope| {
            for number in 0..100 {
                let forward = &forward;
                scope.spawn(move || {
                    let page = forward.get(&format!("/page-{number}")).unwrap();
                    assert_eq!(text(&page), format!("page {number}\n"));
                });
            }
        });
        // A client that asks for much and goes away without reading resets its connection.
        for _ in 0..3 {
            let mut rude = TcpStream::connect(forward.address).unwrap();
            rude.write_all(b"GET /big HTTP/1.0\r\n\r\n").unwrap();
            rude.read_exact(&mut [0; 100]).unwrap();
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&rude, nix::sys::socket::sockopt::Linger, &linger).unwrap();
        }
        assert_eq!(text(&forward.get("/page-7").unwrap()), "page 7\n");
        assert_eq!(forward.get("/big").unwrap().len(), size);
    });
}

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
fn streams_end_with_a_word_when_the_api_server_restarts() {
    let lab = Lab::up();
    lab.run("web", "while :; do date; sleep 0.2; done");
    let spawn = |arguments: &[&str]| {
        lab.kubectl_command(clients::any())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut some = [
        spawn(&["logs", "-f", "web"]),
        spawn(&["exec", "web", "--", "sh", "-c", "echo here; exec sleep 1000"]),
    ];
    for child in &mut some {
        let mut first = [0; 1];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    }
    lab.minilab(&["restart", "kube-apiserver"]).ok();
    for (child, what) in some.into_iter().zip(["logs", "exec"]) {
        let output = ended(child, Duration::from_secs(10));
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.to_lowercase().contains("error"), "{what}: {said}");
    }
    eventually(Duration::from_secs(20), "exec works again", || {
        let output = spawn(&["exec", "web", "--", "echo", "back"]).wait_with_output().unwrap();
        if text(&output.stdout) == "back\n" { Ok(()) } else { Err(text(&output.stderr)) }
    });
}

fn ended(mut child: Child, limit: Duration) -> Output {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still there: {}", text(&child.wait_with_output().unwrap().stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// Open descriptors, threads and resident kilobytes of a process.
fn held(pid: i32) -> (usize, usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (count("fd"), count("task"), resident)
}

/// Starts kubectl, waits for its first output and interrupts it.
fn start_and_interrupt(lab: &Lab, arguments: &[&str]) {
    let mut child = lab
        .kubectl_command(clients::any())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    child.wait().unwrap();
}

#[test]
fn what_is_interrupted_leaves_nothing_in_api_server_and_kubelet() {
    let lab = Lab::up();
    lab.run("web", "while :; do date; sleep 0.1; done");
    let node = lab.object(&["pod", "web"])["spec"]["nodeName"].as_str().unwrap().to_owned();
    let pids = [lab.pid("kube-apiserver", "control"), lab.pid("kubelet", &node)];
    let both: [&[&str]; 2] =
        [&["logs", "-f", "web"], &["exec", "web", "--", "sh", "-c", "echo here; exec sleep 1000"]];
    // What the first rounds load stays loaded.
    for _ in 0..3 {
        both.iter().for_each(|arguments| start_and_interrupt(&lab, arguments));
    }
    let settle = || std::thread::sleep(Duration::from_secs(3));
    settle();
    let before = pids.map(held);
    for _ in 0..rounds(1000) {
        both.iter().for_each(|arguments| start_and_interrupt(&lab, arguments));
    }
    settle();
    for (pid, (descriptors, tasks, resident)) in pids.into_iter().zip(before) {
        eventually(Duration::from_secs(10), "everything is given back", || {
            let now = held(pid);
            let grown = now.0 > descriptors + 2 || now.1 > tasks + 2 || now.2 > resident + 20_000;
            if grown { Err(format!("{now:?}, before {:?}", (descriptors, tasks, resident))) } else { Ok(()) }
        });
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
