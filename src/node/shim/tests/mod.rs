//! Pods on the kernel: a private node (namespaces of its own, tmpfs over what it writes), real shims.
//!
//! Each test here starts this test binary again inside fresh namespaces, where [`inside`] runs every
//! scenario with the real `minilab` binary. Nothing outside is touched, and the end of the inner pid 1 ends
//! all that was started.

mod sessions;

use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::command::tests::container;
use super::sandbox::tests::pod;
use super::*;
use crate::sys::mountfd::Detached;
use crate::sys::namespace::Network;
use crate::sys::netlink::{Netlink, sysctl};

const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const PRIVATE: [&str; 8] =
    ["--user", "--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "--kill-child"];
const MARKER: &str = "MINILAB_TEST_MARKER";

#[test]
fn pods_run_where_the_lab_has_one_id() {
    let mut inner = Command::new("unshare");
    inner.args(PRIVATE).args(["--map-root-user", "--mount-proc"]).arg(std::env::current_exe().unwrap());
    finish(inner, |_| {});
}

#[test]
fn pods_run_where_the_lab_has_many_ids() {
    if !nix::unistd::geteuid().is_root() {
        // An ordinary user needs newuidmap for it; the lab's own tests have that.
        return;
    }
    let mut inner = Command::new("unshare");
    inner.args(PRIVATE).args(["--keep-caps", "sh", "-c"]);
    inner.arg("echo mapless; read go; mount -t proc proc /proc && exec \"$0\" \"$@\"");
    inner.arg(std::env::current_exe().unwrap());
    finish(inner, |pid| {
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{file}"), "0 0 65536\n").unwrap();
        }
    });
}

/// Runs the scenarios in the namespaces `inner` makes; `map` writes the id maps of those without.
fn finish(mut inner: Command, map: impl FnOnce(u32)) {
    let marker = tempfile::NamedTempFile::new().unwrap();
    inner.args(["--exact", "node::shim::tests::inside", "--nocapture", "--test-threads=1"]);
    inner.env(MARKER, marker.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = inner.spawn().expect("unshare is part of every distribution");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    if first == "mapless\n" {
        map(child.id());
    }
    let _ = child.stdin.take().unwrap().write_all(b"go\n");
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{first}{rest}");
    assert!(rest.contains("1 passed"), "{rest}");
}

/// The scenarios; by itself, outside the namespaces the other tests make, there is nothing to look at.
#[test]
fn inside() {
    if std::env::var_os(MARKER).is_none() {
        return;
    }
    make_node();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = Node(Runtime::new(Directories::default()));
        let only_root = crate::sys::container::Ids::own("uid_map").unwrap().only_root();
        step("output and exit code", output_and_exit_code_are_kept(&node)).await;
        step("missing program", a_program_that_is_missing_is_said_so(&node)).await;
        step("nothing outside", nothing_of_the_machine_is_seen_or_changed(&node)).await;
        step("privileges", privileges_are_what_was_asked_for(&node)).await;
        step("users", users_are_what_was_asked_for(&node, only_root)).await;
        step("volumes", volumes_are_where_they_belong(&node)).await;
        step("stop", a_stop_waits_for_the_grace(&node)).await;
        step("terminal", a_terminal_is_the_containers_own(&node)).await;
        step("network", pods_reach_each_other_by_routes(&node)).await;
        step("shared pids", containers_of_one_pod_may_share_pids(&node)).await;
        step("host network", a_host_network_pod_is_on_the_node(&node)).await;
        step("kubelet restart", a_new_kubelet_finds_everything(&node)).await;
        step("dead shim", a_killed_shim_takes_its_containers_along(&node)).await;
        step("stuck shim", a_stuck_shim_is_ended_by_force(&node)).await;
        use sessions::*;
        step("exec", a_command_runs_where_and_as_what_the_container_does(&node)).await;
        step("exec streams", streams_and_exit_codes_of_a_command_are_its_own(&node)).await;
        step("exec terminal", a_terminal_has_a_size_job_control_and_an_end(&node)).await;
        step("attach", who_attaches_hears_and_is_heard(&node)).await;
        step("attach terminal", an_attached_terminal_is_the_containers(&node)).await;
        step("slow listener", a_listener_is_waited_for_until_it_leaves(&node)).await;
        step("ports", ports_are_reached_inside_the_pods_network(&node)).await;
        step("ephemeral", an_ephemeral_container_sees_its_targets_processes(&node)).await;
        step("leaks", nothing_is_left_of_many_sessions(&node)).await;
        step("future request", a_request_of_the_future_is_refused_and_the_shim_goes_on(&node)).await;
        step("speed", how_long_a_pod_takes(&node)).await;
    });
    assert_eq!(fs::read_dir("/run/containerd/minilab").unwrap().count(), 0, "sockets are left");
    assert_eq!(record::scan(&Directories::default()).unwrap(), Vec::<String>::new(), "records are left");
    eventually_now("no link of a pod is left", || veths() == 0);
}

async fn step(name: &str, work: impl Future<Output = ()>) {
    let start = Instant::now();
    work.await;
    println!("  {name}: {:?}", start.elapsed());
}

/// Makes these namespaces look like a node.
fn make_node() {
    let binary = std::env::var_os("MINILAB_BINARY").map(PathBuf::from).unwrap_or_else(|| {
        let tests = std::env::current_exe().unwrap();
        tests.parent().and_then(Path::parent).unwrap().join("minilab")
    });
    let binary = Detached::bind(&binary).expect("the minilab binary is built beside the tests");
    for path in ["/opt", "/run", "/var/lib", "/var/log"] {
        Detached::new("tmpfs", &[("mode", "755")], 0).unwrap().place(Path::new(path)).unwrap();
    }
    let bin = Path::new("/opt/minilab/bin");
    fs::create_dir_all(bin).unwrap();
    fs::write(bin.join("minilab"), "").unwrap();
    binary.place(&bin.join("minilab")).unwrap();
    for role in ["containerd-shim", "pause"] {
        std::os::unix::fs::symlink("minilab", bin.join(role)).unwrap();
    }
    let mut netlink = Netlink::open().unwrap();
    let lo = netlink.index("lo").unwrap();
    netlink.set_up(lo).unwrap();
    netlink.add_address(lo, NODE_ADDRESS.into()).unwrap();
    sysctl("net/ipv4/ip_forward", "1").unwrap();
    nix::unistd::sethostname("node-1").unwrap();
}

/// A kubelet, as far as these tests need one.
struct Node(Runtime);

impl Node {
    async fn sandbox(&self, spec: &SandboxSpec) -> SandboxStatus {
        self.0.run_sandbox(spec).await.expect("the sandbox is made")
    }

    async fn find(&self, sandbox: &str, container: &str) -> ContainerStatus {
        let all = self.0.sandboxes().await.unwrap();
        let sandbox = all.into_iter().find(|one| one.id == sandbox).expect("the sandbox is listed");
        sandbox.containers.into_iter().find(|one| one.id == container).expect("the container is listed")
    }

    async fn ended(&self, sandbox: &str, container: &str) -> ContainerStatus {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let status = self.find(sandbox, container).await;
            if status.phase == ContainerPhase::Exited {
                return status;
            }
            assert!(Instant::now() < end, "{} has not ended", status.name);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Runs a script to its end in a pod of its own; what it printed, and its status.
    async fn script(&self, text: &str, change: impl FnOnce(&mut ContainerSpec)) -> (String, ContainerStatus) {
        let sandbox = self.sandbox(&pod("script")).await;
        let mut spec = container("main", &["sh", "-c", text]);
        change(&mut spec);
        let started = self.0.start_container(&sandbox.id, &spec).await.expect("the container starts");
        let status = self.ended(&sandbox.id, &started.id).await;
        let text = printed(&status);
        fs::remove_file(&status.log_path).unwrap();
        self.0.remove_sandbox(&sandbox.id).await.unwrap();
        (text, status)
    }
}

/// What a container wrote, without times.
fn printed(status: &ContainerStatus) -> String {
    let log = fs::read_to_string(&status.log_path).unwrap();
    log.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect()
}

fn veths() -> usize {
    let links = nix::net::if_::if_nameindex().unwrap();
    links.iter().filter(|link| link.name().to_bytes().starts_with(b"veth")).count()
}

fn eventually_now(what: &str, check: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn output_and_exit_code_are_kept(node: &Node) {
    let script = "echo out; echo err >&2; hostname; echo $HOSTNAME $GREETING; pwd; printf end; exit 3";
    let (text, status) = node
        .script(script, |spec| {
            spec.env = vec![("GREETING".into(), "hello".into())];
            spec.working_dir = Some("/made/for/it".into());
        })
        .await;
    for line in
        ["stdout F out", "stderr F err", "stdout F script", "stdout F script hello", "stdout F /made/for/it"]
    {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    assert!(text.contains("stdout P end\n"), "{text}");
    assert_eq!((status.exit_code, status.reason.as_deref()), (Some(3), Some("Error")));
    assert!(status.image_id.starts_with("docker.io/minilab/toolbox@sha256:"));
    let (_, status) = node.script("kill -SEGV $$; sleep 1", |_| {}).await;
    // Pid 1 of a namespace ignores what it does not handle, from inside.
    assert_eq!(status.reason.as_deref(), Some("Completed"));
}

async fn a_program_that_is_missing_is_said_so(node: &Node) {
    let sandbox = node.sandbox(&pod("missing")).await;
    let error = node.0.start_container(&sandbox.id, &container("c", &["nosuch"])).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalKind::Start));
    let text = error.to_string();
    assert!(text.ends_with("exec: \"nosuch\": executable file not found in $PATH"), "{text}");
    let all = node.0.sandboxes().await.unwrap();
    let status = &all.iter().find(|one| one.id == sandbox.id).unwrap().containers[0];
    assert_eq!((status.exit_code, status.reason.as_deref()), (Some(128), Some("StartError")));
    assert_eq!(status.message.as_ref(), Some(&text));
    let mut other = container("c", &["true"]);
    other.image = "nginx".into();
    let error = node.0.start_container(&sandbox.id, &other).await.unwrap_err().to_string();
    assert!(error.contains("failed to resolve reference \"docker.io/library/nginx:latest\""), "{error}");
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

async fn nothing_of_the_machine_is_seen_or_changed(node: &Node) {
    let marker = std::env::var(MARKER).unwrap();
    assert!(Path::new(&marker).exists(), "the marker is there to be found");
    let script = format!(
        r#"
        no() {{ if "$@" 2>/dev/null; then echo "possible: $*"; fi; }}
        no test -e {marker}
        no ls /root/* ; no ls /home/* ; no ls /tmp/* ; no ls /var/lib/*
        no sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
        no sh -c 'echo 1 > /proc/sys/vm/overcommit_memory'
        no sh -c 'echo b > /proc/sysrq-trigger'
        no mount -t tmpfs none /mnt
        no umount /proc/sys
        no unshare --mount true
        no touch /usr/x
        no touch /sys/x
        no cat /proc/1/root/{marker}
        no test -s /proc/keys
        touch /x /tmp/x /etc/x /run/x /dev/shm/x && echo > /dev/null && head -c1 /dev/urandom > /dev/zero || echo broken
        test -w /dev/null && test -c /dev/tty && test -e /dev/stdin && test -e /dev/ptmx || echo 'no devices'
        test "$(cat /etc/hostname)" = script || echo 'no hostname'
        echo pid $$ of $(ls -d /proc/[0-9]* | wc -l)
        grep -c veth /proc/net/dev
        "#
    );
    let (text, _) = node.script(&script, |_| {}).await;
    // The shell, ls and wc.
    assert!(text.starts_with("stdout F pid 1 of "), "{text}");
    assert!(text.ends_with("stdout F 0\n") && text.lines().count() == 2, "{text}");
    assert!(!Path::new("/x").exists());
}

async fn privileges_are_what_was_asked_for(node: &Node) {
    let script = "grep -E 'Cap(Bnd|Eff)|NoNewPrivs|Seccomp:' /proc/self/status | tr -s '\\t\\n' '  '; echo; \
                  unshare --user true && echo unshared";
    let (text, _) = node.script(script, |_| {}).await;
    assert!(
        text.contains("CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0"),
        "{text}"
    );
    let (text, _) = node
        .script(script, |spec| {
            spec.security.drop_capabilities = vec!["ALL".into()];
            spec.security.add_capabilities = vec!["NET_ADMIN".into()];
            spec.security.allow_privilege_escalation = Some(false);
            spec.security.seccomp = Some("RuntimeDefault".into());
        })
        .await;
    assert!(
        text.contains("CapEff: 0000000000001000 CapBnd: 0000000000001000 NoNewPrivs: 1 Seccomp: 2"),
        "{text}"
    );
    assert!(!text.contains("unshared"), "{text}");
    let (text, _) = node
        .script(
            "touch /x || echo refused; touch /tmp/x || echo refused too; sh -c 'exit 4'; echo $?",
            |spec| {
                spec.security.read_only_root_filesystem = true;
                spec.security.seccomp = Some("RuntimeDefault".into());
            },
        )
        .await;
    assert!(
        text.contains("F refused\n") && text.contains("F refused too\n") && text.contains("F 4\n"),
        "{text}"
    );
    let (text, _) = node
        .script("mount -t tmpfs none /mnt && echo mounted; echo 1 > /proc/sys/vm/swappiness", |spec| {
            spec.security.privileged = true;
        })
        .await;
    assert!(text.contains("F mounted") && text.contains("Read-only file system"), "{text}");
}

async fn users_are_what_was_asked_for(node: &Node, only_root: bool) {
    let script = "id -u; id -g; touch /tmp/mine && ls -n /tmp/mine | tr -s ' ' | cut -d' ' -f3; \
                  grep CapEff /proc/self/status | tr -d '\\t'";
    let (text, _) = node.script(script, |spec| spec.security.run_as_user = Some(1000)).await;
    assert_eq!(text.replace("stdout F ", ""), "1000\n0\n1000\nCapEff:0000000000000000\n");
    let (text, _) = node
        .script(script, |spec| {
            spec.security.run_as_user = Some(65534);
            spec.security.run_as_non_root = true;
            spec.security.allow_privilege_escalation = Some(false);
            spec.security.seccomp = Some("RuntimeDefault".into());
        })
        .await;
    assert!(text.starts_with("stdout F 65534\nstdout F 65534\n"), "{text}");

    let sandbox = node.sandbox(&pod("users")).await;
    let mut spec = container("c", &["id", "-G"]);
    spec.security.supplemental_groups = vec![2000];
    let outcome = node.0.start_container(&sandbox.id, &spec).await;
    if only_root {
        let error = outcome.unwrap_err();
        assert_eq!(error.refusal(), Some(RefusalKind::Config));
        assert!(error.to_string().contains("/etc/subuid"), "{error}");
    } else {
        let status = node.ended(&sandbox.id, &outcome.unwrap().id).await;
        assert_eq!(printed(&status), "stdout F 0 2000\n");
    }
    spec.security.run_as_non_root = true;
    let text = node.0.start_container(&sandbox.id, &spec).await.unwrap_err().to_string();
    let pod = "(pod: \"users_default(uid-of-users)\", container: c)";
    assert_eq!(text, format!("container has runAsNonRoot and image will run as root {pod}"));
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

async fn volumes_are_where_they_belong(node: &Node) {
    let volume = Path::new("/var/lib/kubelet/pods/x/volumes");
    fs::create_dir_all(volume.join("data")).unwrap();
    fs::write(volume.join("hosts"), "1.2.3.4 it\n").unwrap();
    let mount = |from: &str, to: &str, read_only| Mount {
        host_path: volume.join(from),
        container_path: to.into(),
        read_only,
    };
    let script = "cat /etc/hosts; echo x > /data/deep/file; echo x > /etc/hosts || echo read-only; \
                  ln -s /run /var/link; ls /var/run/secrets/here";
    let (text, _) = node
        .script(script, |spec| {
            spec.mounts = vec![
                mount("hosts", "/var/run/secrets/here/hosts", true),
                mount("data", "/data/deep", false),
                mount("hosts", "/etc/hosts", true),
            ];
        })
        .await;
    assert!(text.contains("F 1.2.3.4 it\n") && text.contains("F read-only\n"), "{text}");
    assert!(text.contains("F hosts\n"), "{text}");
    assert_eq!(fs::read_to_string(volume.join("data/file")).unwrap(), "x\n");
    let sandbox = node.sandbox(&pod("volumes")).await;
    let mut spec = container("c", &["true"]);
    spec.mounts = vec![mount("nosuch", "/data", false)];
    let error = node.0.start_container(&sandbox.id, &spec).await.unwrap_err().to_string();
    assert!(error.contains("error mounting") && error.contains("nosuch"), "{error}");
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

async fn a_stop_waits_for_the_grace(node: &Node) {
    let sandbox = node.sandbox(&pod("stop")).await;
    let polite = container(
        "polite",
        &["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done"],
    );
    let deaf = container("deaf", &["sh", "-c", "trap '' TERM; echo up; sleep 100"]);
    for (spec, code, signal, grace) in [(polite, 7, None, 10_000), (deaf, 137, Some(9), 200)] {
        let started = node.0.start_container(&sandbox.id, &spec).await.unwrap();
        eventually_now("it is up", || printed(&started).contains("up"));
        let start = Instant::now();
        node.0.stop_container(&sandbox.id, &started.id, Duration::from_millis(grace)).await.unwrap();
        let status = node.find(&sandbox.id, &started.id).await;
        assert_eq!((status.exit_code, status.signal), (Some(code), signal));
        assert!(
            start.elapsed() < Duration::from_secs(3) && (code == 7 || start.elapsed().as_millis() >= 200)
        );
        node.0.remove_container(&sandbox.id, &started.id).await.unwrap();
        assert!(!Path::new("/var/lib/containerd/minilab").join(&sandbox.id).join(&started.id).exists());
    }
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

async fn a_terminal_is_the_containers_own(node: &Node) {
    let (text, status) = node.script("tty; test -t 1 && echo yes; echo $TERM", |spec| spec.tty = true).await;
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_eq!(lines, ["stdout F /dev/pts/0", "stdout F yes", "stdout F xterm"]);
    assert_eq!(status.exit_code, Some(0));
}

async fn pods_reach_each_other_by_routes(node: &Node) {
    let (one, other) = (Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 1, 3));
    let mut sandboxes = Vec::new();
    let mut networks = Vec::new();
    for address in [one, other] {
        let spec = SandboxSpec {
            network: SandboxNetwork::Pod { address },
            ..pod(&format!("net-{}", address.octets()[3]))
        };
        let sandbox = node.sandbox(&spec).await;
        let status = node.0.start_container(&sandbox.id, &container("c", &["sleep", "100"])).await.unwrap();
        networks.push(Network::of(status.pid.unwrap()).unwrap());
        sandboxes.push(sandbox.id);
    }
    let at = SocketAddr::from((one, 80));
    let listener = networks[0].enter(|| TcpListener::bind(at)).unwrap().unwrap();
    let dial = || TcpStream::connect_timeout(&at, Duration::from_secs(3)).expect("the pod is reached");
    let _from_pod = networks[1].enter(dial).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), other, "the client's address is kept");
    let _from_node = dial();
    assert_eq!(listener.accept().unwrap().1.ip(), NODE_ADDRESS, "the node does not use 169.254.1.1");
    for id in sandboxes {
        node.0.remove_sandbox(&id).await.unwrap();
    }
}

async fn containers_of_one_pod_may_share_pids(node: &Node) {
    let sandbox = node.sandbox(&SandboxSpec { share_process_namespace: true, ..pod("shared") }).await;
    let script = "sleep 100 & sleep 0.2; cat /proc/1/comm; ls -A /proc/1/root/ | wc -l; \
                  grep -c . /proc/$!/comm; echo shared > /dev/shm/note";
    let started = node.0.start_container(&sandbox.id, &container("a", &["sh", "-c", script])).await.unwrap();
    let status = node.ended(&sandbox.id, &started.id).await;
    assert!(printed(&status).contains("F pause\n"), "{}", printed(&status));
    let mut spec = container(
        "b",
        &["sh", "-c", "grep -l sleep /proc/[0-9]*/comm; cat /dev/shm/note; ls -A /proc/1/root/"],
    );
    spec.security.privileged = true;
    let started = node.0.start_container(&sandbox.id, &spec).await.unwrap();
    let status = node.ended(&sandbox.id, &started.id).await;
    assert_eq!(printed(&status), "stdout F shared\n", "no straggler, and nothing behind pause");
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

async fn a_host_network_pod_is_on_the_node(node: &Node) {
    let sandbox = node.sandbox(&SandboxSpec { network: SandboxNetwork::Host, ..pod("host") }).await;
    let script = "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/user; mount -t tmpfs none /mnt || echo refused";
    let started = node.0.start_container(&sandbox.id, &container("c", &["sh", "-c", script])).await.unwrap();
    let text = printed(&node.ended(&sandbox.id, &started.id).await);
    let here = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    for expected in ["node-1", &here("net"), &here("user"), "refused"] {
        assert!(text.contains(&format!("F {expected}\n")), "{expected}: {text}");
    }
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
    let shared = node.sandbox(&SandboxSpec { host_pid: true, ..pod("pids") }).await;
    let spec = container(
        "c",
        &["sh", "-c", "sleep 50 & cat /proc/self/ns/pid 2>/dev/null; readlink /proc/self/ns/pid"],
    );
    let started = node.0.start_container(&shared.id, &spec).await.unwrap();
    let text = printed(&node.ended(&shared.id, &started.id).await);
    assert!(text.contains(&here("pid")), "{text}");
    node.0.remove_sandbox(&shared.id).await.unwrap();
}

async fn a_new_kubelet_finds_everything(node: &Node) {
    let sandbox = node.sandbox(&pod("adopted")).await;
    let stays = node.0.start_container(&sandbox.id, &container("stays", &["sleep", "100"])).await.unwrap();
    let script = "while [ ! -e /dev/shm/go ]; do sleep 0.01; done; exit 42";
    let ends = node.0.start_container(&sandbox.id, &container("ends", &["sh", "-c", script])).await.unwrap();
    // A second handle that knows nothing: the first one's death. Meanwhile the container ends.
    fs::write(format!("/run/containerd/minilab/{}/shm/go", sandbox.id), "").unwrap();
    let next = Node(Runtime::new(Directories::default()));
    let mut events = next.0.events().unwrap();
    assert_eq!(next.ended(&sandbox.id, &ends.id).await.exit_code, Some(42));
    let found = next.find(&sandbox.id, &stays.id).await;
    assert_eq!((found.pid, &found.started_at), (stays.pid, &stays.started_at));
    next.0.stop_container(&sandbox.id, &stays.id, Duration::ZERO).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(1), events.recv()).await.unwrap();
    assert_eq!(told.as_deref(), Some("uid-of-adopted"));
    next.0.remove_sandbox(&sandbox.id).await.unwrap();
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

fn shim_of(sandbox: &str) -> nix::unistd::Pid {
    let text = fs::read_to_string(format!("/run/containerd/minilab/{sandbox}/shim.pid")).unwrap();
    nix::unistd::Pid::from_raw(text.trim().parse().unwrap())
}

async fn a_killed_shim_takes_its_containers_along(node: &Node) {
    let sandbox = node.sandbox(&pod("killed")).await;
    let deaf = container("c", &["sh", "-c", "trap '' TERM HUP; sleep 100 & wait"]);
    let mut pids = Vec::new();
    let mut ids = Vec::new();
    for user in [None, Some(1000)] {
        let mut spec = deaf.clone();
        spec.security.run_as_user = user;
        let status = node.0.start_container(&sandbox.id, &spec).await.unwrap();
        pids.push(status.pid.unwrap());
        ids.push(status.id);
    }
    let shim = shim_of(&sandbox.id);
    let command = fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap().replace('\0', " ");
    assert!(
        command.starts_with(&format!("containerd-shim -namespace minilab -id {}", sandbox.id)),
        "{command}"
    );
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    for id in &ids {
        let status = node.ended(&sandbox.id, id).await;
        assert_eq!((status.exit_code, status.reason.as_deref()), (Some(137), Some("Unknown")));
    }
    for pid in pids {
        // This test is pid 1 here and does not reap: dead is enough.
        eventually_now("the container is dead", || {
            fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
    }
    let all = node.0.sandboxes().await.unwrap();
    assert!(!all.iter().find(|one| one.id == sandbox.id).unwrap().ready);
    assert!(node.0.start_container(&sandbox.id, &deaf).await.is_err());
    node.0.remove_container(&sandbox.id, &ids[0]).await.unwrap();
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

async fn a_stuck_shim_is_ended_by_force(node: &Node) {
    let sandbox = node.sandbox(&pod("stuck")).await;
    node.0.start_container(&sandbox.id, &container("c", &["sleep", "100"])).await.unwrap();
    nix::sys::signal::kill(shim_of(&sandbox.id), nix::sys::signal::Signal::SIGSTOP).unwrap();
    node.0.remove_sandbox(&sandbox.id).await.unwrap();
}

async fn how_long_a_pod_takes(node: &Node) {
    let mut times = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        let sandbox = node.sandbox(&pod("fast")).await;
        let made = start.elapsed();
        node.0.start_container(&sandbox.id, &container("c", &["sleep", "100"])).await.unwrap();
        times.push((start.elapsed(), made));
        node.0.remove_sandbox(&sandbox.id).await.unwrap();
    }
    times.sort();
    println!("  pod to running: median {:?} of which sandbox {:?}", times[5].0, times[5].1);
}
