//! Being inside a pod: exec, attach, connections to its ports, and what is left of a thousand of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| word.to_string()).collect()
}

fn spec(command: &[&str]) -> ExecSpec {
    ExecSpec { command: words(command), stdout: true, stderr: true, ..ExecSpec::default() }
}

impl Node {
    /// A pod with one container that does nothing for long.
    async fn idle(&self, change: impl FnOnce(&mut ContainerSpec)) -> (String, ContainerStatus) {
        // Logs outlive their pods.
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let sandbox = self.sandbox(&pod(&format!("idle-{number}"))).await;
        let mut spec = container("main", &["sh", "-c", "echo up; exec sleep 1000"]);
        change(&mut spec);
        let status = self.0.start_container(&sandbox.id, &spec).await.expect("the container starts");
        // Else what a command sees depends on how far the shell got.
        eventually_now("it is up", || printed(&status).contains("up"));
        (sandbox.id, status)
    }

    /// A command's whole output and exit code.
    async fn say(&self, sandbox: &str, container: &str, command: &[&str]) -> (String, i32) {
        let within = Some(Duration::from_secs(20));
        let output = self.0.exec_sync(sandbox, container, &words(command), within).await.unwrap();
        (String::from_utf8(output.text()).unwrap(), output.exit_code)
    }
}

async fn all(reader: &mut Option<Reader>) -> String {
    let mut text = Vec::new();
    reader.as_mut().expect("the stream was asked for").read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Reads a terminal or pipe until it has said something.
async fn until(reader: &mut Reader, what: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let end = Instant::now() + Duration::from_secs(10);
    while !String::from_utf8_lossy(&text).contains(what) {
        let left = end.saturating_duration_since(Instant::now());
        let seen = String::from_utf8_lossy(&text).into_owned();
        let read = tokio::time::timeout(left, reader.read(&mut buffer)).await;
        let length = read.unwrap_or_else(|_| panic!("{what:?} is not said: {seen:?}")).unwrap();
        assert_ne!(length, 0, "it ended before saying {what:?}: {seen:?}");
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(text).unwrap()
}

/// Open descriptors and children of a pod's shim.
fn held_by(shim: nix::unistd::Pid) -> (usize, String) {
    let fds = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
    (fds, children.trim().to_owned())
}

pub async fn a_command_runs_where_and_as_what_the_container_does(node: &Node) {
    let look = "for n in user mnt pid net uts ipc cgroup; do readlink /proc/self/ns/$n; done; \
                grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' \
                /proc/self/status; pwd; echo $GREETING $HOME $HOSTNAME; ulimit -a; cat /proc/self/oom_score_adj; \
                cat /proc/self/cgroup; umask";
    for user in [None, Some(1000), Some(65534)] {
        let (sandbox, main) = node
            .idle(|spec| {
                spec.command =
                    words(&["sh", "-c", &format!("{{ {look}; }} > /tmp/main; echo up; sleep 1000")]);
                spec.env = vec![("GREETING".into(), "hello".into())];
                spec.working_dir = Some("/tmp".into());
                spec.security.run_as_user = user;
                spec.security.drop_capabilities = vec!["CHOWN".into()];
                if user == Some(65534) {
                    spec.security.allow_privilege_escalation = Some(false);
                    spec.security.seccomp = Some("RuntimeDefault".into());
                }
            })
            .await;
        let (main_says, _) = node.say(&sandbox, &main.id, &["cat", "/tmp/main"]).await;
        let (says, code) = node.say(&sandbox, &main.id, &["sh", "-c", look]).await;
        assert_eq!(code, 0);
        assert_eq!(says, main_says, "user {user:?}");
        assert!(says.contains("/tmp\nhello"), "{says}");
        // The control: another pod's differs.
        let (other, second) = node.idle(|_| {}).await;
        assert_ne!(node.say(&other, &second.id, &["sh", "-c", look]).await.0, says);
        node.0.remove_sandbox(&other).await.unwrap();
        node.0.remove_sandbox(&sandbox).await.unwrap();
    }
}

pub async fn streams_and_exit_codes_of_a_command_are_its_own(node: &Node) {
    let (sandbox, main) = node.idle(|_| {}).await;
    let script = "cat; echo end >&2; exit 7";
    let spec_in = ExecSpec { stdin: true, ..spec(&["sh", "-c", script]) };
    let mut exec = node.0.exec(&sandbox, &main.id, &spec_in).await.unwrap();
    assert!(exec.terminal.is_none());
    exec.stdin.as_mut().unwrap().write_all(b"through").await.unwrap();
    exec.stdin = None;
    assert_eq!(all(&mut exec.stdout).await, "through");
    assert_eq!(all(&mut exec.stderr).await, "end\n");
    assert_eq!(exec.wait().await.unwrap(), 7);
    for (command, code) in [("kill -9 $$", 137), ("kill -15 $$", 143), ("nosuch", 127), ("/etc", 126)] {
        assert_eq!(node.say(&sandbox, &main.id, &["sh", "-c", command]).await.1, code, "{command}");
    }
    for (program, why) in [
        ("nosuch", "executable file not found in $PATH"),
        ("/nosuch", "stat /nosuch: no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let error = node.0.exec(&sandbox, &main.id, &spec(&[program])).await.err().unwrap();
        assert_eq!(error.refusal(), Some(RefusalKind::Exec));
        let text = error.to_string();
        assert!(text.starts_with("failed to exec in container: failed to start exec \""), "{text}");
        let end = format!(
            "\": OCI runtime exec failed: exec failed: unable to start container process: \
             exec: \"{program}\": {why}: unknown"
        );
        assert!(text.ends_with(&end), "{text}");
    }
    let (forever, soon) = (words(&["sh", "-c", "exec sleep 1000"]), Some(Duration::from_millis(200)));
    let late = node.0.exec_sync(&sandbox, &main.id, &forever, soon);
    let text = late.await.unwrap_err().to_string();
    assert_eq!(text, "command \"sh -c exec sleep 1000\" timed out");
    let shim = shim_of(&sandbox);
    eventually_now("a command that took too long is killed", || {
        held_by(shim).1.split_whitespace().count() == 2
    });
    node.0.stop_container(&sandbox, &main.id, Duration::ZERO).await.unwrap();
    let error = node.0.exec(&sandbox, &main.id, &spec(&["true"])).await.err().unwrap();
    assert_eq!(error.refusal(), Some(RefusalKind::NotRunning));
    node.0.remove_sandbox(&sandbox).await.unwrap();
}

pub async fn a_terminal_has_a_size_job_control_and_an_end(node: &Node) {
    let (sandbox, main) = node.idle(|_| {}).await;
    let on_tty = ExecSpec { stdin: true, tty: true, size: Some((100, 40)), ..spec(&["sh", "-i"]) };
    let mut exec = node.0.exec(&sandbox, &main.id, &on_tty).await.unwrap();
    assert!(exec.stderr.is_none());
    let (mut stdin, mut stdout) = (exec.stdin.take().unwrap(), exec.stdout.take().unwrap());
    stdin.write_all(b"stty size; echo $TERM; tty; echo re''ady\n").await.unwrap();
    let text = until(&mut stdout, "ready").await;
    assert!(
        text.contains("40 100\r\n") && text.contains("xterm\r\n") && text.contains("/dev/pts/"),
        "{text}"
    );
    assert!(!text.contains("no job control"), "{text}");
    // Another size reaches the programs.
    stdin.write_all(b"trap 'stty size' WINCH; echo tra''pped\n").await.unwrap();
    until(&mut stdout, "trapped").await;
    exec.terminal.as_ref().unwrap().resize(132, 50).unwrap();
    stdin.write_all(b"\n").await.unwrap();
    until(&mut stdout, "50 132").await;
    // Ctrl-C ends the job, not the shell.
    stdin.write_all(b"sleep 1000\n").await.unwrap();
    let running = || grep_command("sleep", "1000") >= 2;
    eventually_now("the job runs", running);
    stdin.write_all(b"\x03").await.unwrap();
    stdin.write_all(b"echo code $?\n").await.unwrap();
    until(&mut stdout, "code 130").await;
    stdin.write_all(b"sleep 1001\n").await.unwrap();
    eventually_now("another job runs", || grep_command("sleep", "1001") == 1);
    // Closing hangs up: the shell and its job get SIGHUP.
    drop((stdin, stdout, exec));
    eventually_now("everything on the terminal is gone", || grep_command("sleep", "1001") == 0);
    let shim = shim_of(&sandbox);
    eventually_now("the shell is gone", || held_by(shim).1.split_whitespace().count() == 2);
    node.0.remove_sandbox(&sandbox).await.unwrap();
}

/// How many processes have this command line.
fn grep_command(program: &str, argument: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| *line == format!("{program}\0{argument}\0")).count()
}

pub async fn who_attaches_hears_and_is_heard(node: &Node) {
    let everything = AttachSpec { stdin: true, stdout: true, stderr: true };
    let echo =
        "echo up; while read line; do echo \"out $line\"; echo \"err $line\" >&2; done; echo end; exit 3";
    for once in [false, true] {
        let (sandbox, main) = node
            .idle(|spec| {
                spec.command = words(&["sh", "-c", echo]);
                (spec.stdin, spec.stdin_once) = (true, once);
            })
            .await;
        let mut one = node.0.attach(&sandbox, &main.id, everything).await.unwrap();
        let only_out = AttachSpec { stdout: true, ..Default::default() };
        let mut other = node.0.attach(&sandbox, &main.id, only_out).await.unwrap();
        one.stdin.as_mut().unwrap().write_all(b"1\n").await.unwrap();
        assert_eq!(until(one.stdout.as_mut().unwrap(), "out 1\n").await, "out 1\n");
        assert_eq!(until(one.stderr.as_mut().unwrap(), "err 1\n").await, "err 1\n");
        assert_eq!(until(other.stdout.as_mut().unwrap(), "out 1\n").await, "out 1\n");
        one.stdin = None;
        if once {
            assert_eq!(one.wait().await.unwrap(), 3, "the end of its input ended it");
            assert_eq!(all(&mut one.stdout).await, "end\n");
            assert_eq!(all(&mut other.stdout).await, "end\n");
            let error = node.0.attach(&sandbox, &main.id, everything).await.err().unwrap();
            assert_eq!(error.refusal(), Some(RefusalKind::NotRunning));
        } else {
            let mut again = node.0.attach(&sandbox, &main.id, everything).await.unwrap();
            again.stdin.as_mut().unwrap().write_all(b"2\n").await.unwrap();
            assert_eq!(until(again.stdout.as_mut().unwrap(), "out 2\n").await, "out 2\n");
        }
        assert!(printed(&main).contains("stdout F out 1\nstderr F err 1\n"), "{}", printed(&main));
        node.0.remove_sandbox(&sandbox).await.unwrap();
    }
}

pub async fn an_attached_terminal_is_the_containers(node: &Node) {
    let (sandbox, main) = node
        .idle(|spec| {
            spec.command = words(&["sh", "-c", "echo up; exec sh -i"]);
            (spec.stdin, spec.tty) = (true, true);
        })
        .await;
    let wanted = AttachSpec { stdin: true, stdout: true, stderr: true };
    let mut session = node.0.attach(&sandbox, &main.id, wanted).await.unwrap();
    assert!(session.stderr.is_none());
    session.terminal.as_ref().unwrap().resize(90, 30).unwrap();
    session.stdin.as_mut().unwrap().write_all(b"stty size\n").await.unwrap();
    until(session.stdout.as_mut().unwrap(), "30 90").await;
    drop(session);
    assert_eq!(node.find(&sandbox, &main.id).await.phase, ContainerPhase::Running, "leaving ends nothing");
    let mut session = node.0.attach(&sandbox, &main.id, wanted).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"exit 5\n").await.unwrap();
    assert_eq!(session.wait().await.unwrap(), 5);
    node.0.remove_sandbox(&sandbox).await.unwrap();
}

pub async fn a_listener_is_waited_for_until_it_leaves(node: &Node) {
    let script = "echo up; read go; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo done > /dev/shm/done; sleep 1000";
    let (sandbox, main) = node
        .idle(|spec| {
            spec.command = words(&["sh", "-c", script]);
            spec.stdin = true;
        })
        .await;
    let out = AttachSpec { stdin: true, stdout: true, stderr: false };
    let deaf = node.0.attach(&sandbox, &main.id, out).await.unwrap();
    let mut keen = node.0.attach(&sandbox, &main.id, out).await.unwrap();
    keen.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let mut reading = Box::pin(async {
        let (mut length, mut buffer) = (0, vec![0; 1 << 16]);
        while length < 5_000_001 {
            let count = keen.stdout.as_mut().unwrap().read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "after {length} bytes");
            length += count;
        }
    });
    let early = tokio::time::timeout(Duration::from_secs(2), &mut reading).await;
    assert!(early.is_err(), "the container waits for the one that does not read");
    drop(deaf);
    tokio::time::timeout(Duration::from_secs(30), &mut reading).await.expect("and goes on when it has left");
    drop(reading);
    let done = format!("/run/containerd/minilab/{sandbox}/shm/done");
    eventually_now("the container went on", || Path::new(&done).exists());
    drop(keen);
    node.0.remove_sandbox(&sandbox).await.unwrap();
}

pub async fn ports_are_reached_inside_the_pods_network(node: &Node) {
    let (sandbox, main) = node.idle(|_| {}).await;
    let inside = Network::of(main.pid.unwrap()).unwrap();
    for (address, port) in [("127.0.0.1", 8080), ("[::1]", 8081), ("10.244.1.2", 8082)] {
        let at = format!("{address}:{port}");
        let Ok(listener) = inside.enter(|| TcpListener::bind(&at)).unwrap() else {
            assert_eq!(address, "[::1]", "only IPv6 may be missing here");
            continue;
        };
        let outcome = node.0.connect(&sandbox, port).await;
        if address == "10.244.1.2" {
            // What listens on the pod's address only is not on localhost.
            let text = outcome.unwrap_err().to_string();
            let refused = format!(
                "failed to connect to localhost:8082 inside namespace \"{sandbox}\", IPv4: dial tcp4 \
                 127.0.0.1:8082: connect: connection refused IPv6 dial tcp6 [::1]:8082: connect: "
            );
            assert!(
                text.starts_with("failed to execute portforward in network namespace \"/proc/"),
                "{text}"
            );
            assert!(text.contains(&refused), "{text}");
            continue;
        }
        let mut near = outcome.unwrap();
        let (mut far, from) = listener.accept().unwrap();
        assert!(from.ip().is_loopback());
        near.write_all(b"hello").await.unwrap();
        let mut text = [0; 5];
        far.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    }
    node.0.remove_sandbox(&sandbox).await.unwrap();
    let host = node.sandbox(&SandboxSpec { network: SandboxNetwork::Host, ..pod("host") }).await;
    let listener = TcpListener::bind("127.0.0.1:8083").unwrap();
    node.0.connect(&host.id, 8083).await.unwrap();
    drop(listener);
    let text = node.0.connect(&host.id, 8083).await.unwrap_err().to_string();
    assert!(text.starts_with("failed to execute portforward in network namespace \"host\": "), "{text}");
    node.0.remove_sandbox(&host.id).await.unwrap();
    assert!(matches!(node.0.connect(&host.id, 1).await, Err(ShimError::NoSandbox(_))));
}

pub async fn an_ephemeral_container_sees_its_targets_processes(node: &Node) {
    let (sandbox, main) = node.idle(|_| {}).await;
    let look = "cat /proc/1/cmdline | tr '\\0' ' '; ls /proc/1/root/ > /dev/null && echo seen; sleep 1000";
    let mut debug = container("debugger", &["sh", "-c", look]);
    debug.target = Some("main".into());
    debug.security.add_capabilities = vec!["SYS_PTRACE".into()];
    let started = node.0.start_container(&sandbox, &debug).await.unwrap();
    eventually_now("it looks around", || printed(&started).contains("sleep 1000 seen\n"));
    // It has a root of its own, is entered like any other, and ends with its target.
    let (text, _) =
        node.say(&sandbox, &started.id, &["sh", "-c", "touch /only-here; readlink /proc/self/ns/pid"]).await;
    let (of_main, _) =
        node.say(&sandbox, &main.id, &["sh", "-c", "ls /only-here; readlink /proc/self/ns/pid"]).await;
    assert!(of_main.contains("cannot access") && of_main.contains(&text), "{text} {of_main}");
    // The control: without a target it sees only itself.
    debug.target = None;
    (debug.name, debug.command) = ("alone".into(), words(&["sh", "-c", "echo $$"]));
    let alone = node.0.start_container(&sandbox, &debug).await.unwrap();
    assert!(printed(&node.ended(&sandbox, &alone.id).await).ends_with("stdout F 1\n"));
    debug.target = Some("nosuch".into());
    let error = node.0.start_container(&sandbox, &debug).await.unwrap_err();
    assert_eq!(error.to_string(), "unable to find target container nosuch");
    node.0.stop_container(&sandbox, &main.id, Duration::ZERO).await.unwrap();
    assert_eq!(node.ended(&sandbox, &started.id).await.exit_code, Some(137));
    node.0.remove_sandbox(&sandbox).await.unwrap();
}

pub async fn nothing_is_left_of_many_sessions(node: &Node) {
    let (sandbox, main) = node.idle(|_| {}).await;
    let shim = shim_of(&sandbox);
    let own = || fs::read_dir("/proc/self/fd").unwrap().count();
    // Let the connection that listens to the shim come about.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = (held_by(shim), own());
    let count = if std::env::var_os("MINILAB_SOAK").is_some() { 1000 } else { 50 };
    for round in 0..count {
        let spec = ExecSpec { stdin: true, tty: round % 2 == 0, ..spec(&["cat"]) };
        // Broken off at once, as by Ctrl-C.
        drop(node.0.exec(&sandbox, &main.id, &spec).await.unwrap());
        drop(
            node.0
                .attach(&sandbox, &main.id, AttachSpec { stdout: true, ..Default::default() })
                .await
                .unwrap(),
        );
        let _ = node.0.connect(&sandbox, 1).await.unwrap_err();
    }
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let now = (held_by(shim), own());
        // What came before was still being closed when it was counted.
        if now.0.1 == before.0.1 && now.0.0 <= before.0.0 && now.1 <= before.1 {
            break;
        }
        let links = |pid: &str| -> Vec<PathBuf> {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            fds.filter_map(|fd| fs::read_link(fd.path()).ok()).collect()
        };
        let (theirs, ours) = (links(&shim.to_string()), links("self"));
        assert!(Instant::now() < end, "{before:?} became {now:?}: {theirs:?}, {ours:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A command that nobody waits for any more ends with its container, wherever it hides.
    drop(node.0.exec(&sandbox, &main.id, &spec(&["setsid", "sleep", "1003"])).await.unwrap());
    eventually_now("it runs", || grep_command("sleep", "1003") == 1);
    node.0.stop_container(&sandbox, &main.id, Duration::ZERO).await.unwrap();
    eventually_now("it is gone", || grep_command("sleep", "1003") == 0);
    node.0.remove_sandbox(&sandbox).await.unwrap();
}

pub async fn a_request_of_the_future_is_refused_and_the_shim_goes_on(node: &Node) {
    use std::os::unix::net::UnixStream;
    let (sandbox, main) = node.idle(|_| {}).await;
    let path = format!("/run/containerd/minilab/{sandbox}/shim.sock");
    let mut connection = UnixStream::connect(path).unwrap();
    connection.write_all(b"{\"id\":7,\"request\":{\"levitate\":{\"height\":3}}}\n").unwrap();
    let mut line = String::new();
    BufReader::new(&connection).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"id\":7,") && line.contains("older than this request"), "{line}");
    assert_eq!(node.say(&sandbox, &main.id, &["echo", "well"]).await, ("well\n".into(), 0));
    node.0.remove_sandbox(&sandbox).await.unwrap();
}
