//! The service network: how long rules take, and what a service address costs traffic.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};

use super::api::client::Client;
use super::figures::{Report, median, median_of, ms};
use super::lab::Lab;

const SERVICES: usize = 200;
const ENDPOINTS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// 200 services with ten endpoints each: the whole table at once, and one endpoint of one of them.
/// The floor is the kernel's own time for the very same transactions.
pub fn programming(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(lab).await?;
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        for number in 0..SERVICES {
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{number}")},
                "spec": {"ports": [{"port": 80}]}});
            client.send(Method::POST, "/api/v1/namespaces/default/services", Some(&service)).await?;
            client.send(Method::POST, slices, Some(&slice(number, ENDPOINTS))).await?;
        }
        let (mut whole, mut whole_kernel) = (Vec::new(), Vec::new());
        for _ in 0..rounds.clamp(3, 10) {
            let before = syncs(lab)?.len();
            let killed = proxy(lab)?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed), nix::sys::signal::Signal::SIGKILL)?;
            let sync = next(lab, before)?;
            whole.push(sync.took);
            whole_kernel.push(sync.kernel);
        }
        let (mut one, mut one_kernel) = (Vec::new(), Vec::new());
        for round in 0..rounds.max(5) * 2 {
            let before = syncs(lab)?.len();
            let path = format!("{slices}/s7-bench");
            client.send(Method::PUT, &path, Some(&slice(7, ENDPOINTS - 1 - round % 2))).await?;
            let sync = next(lab, before)?;
            one.push(sync.took);
            one_kernel.push(sync.kernel);
        }
        let floor = |samples: &mut Vec<Duration>| format!("{} (the kernel alone)", ms(median(samples)));
        report.row("200 services x 10 endpoints, whole table", ms(median(&mut whole)), floor(&mut whole_kernel), "1 s");
        report.row("one endpoint of one of them", ms(median(&mut one)), floor(&mut one_kernel), "twice the floor");
        anyhow::Ok(())
    })
}

fn slice(number: usize, endpoints: usize) -> Value {
    let endpoints: Vec<Value> = (0..endpoints)
        .map(
            |at| json!({"addresses": [format!("10.245.{number}.{}", at + 1)], "conditions": {"ready": true}}),
        )
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("s{number}-bench"), "labels": {"kubernetes.io/service-name": format!("s{number}")}},
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

struct Sync {
    took: Duration,
    kernel: Duration,
}

/// Every write of rules that node-1's kube-proxy has logged.
fn syncs(lab: &Lab) -> anyhow::Result<Vec<Sync>> {
    let log = lab.minilab(&["logs", "kube-proxy@node-1"])?.stdout;
    let number = |line: &str, name: &str| -> Option<Duration> {
        let digits = line.split(&format!("{name}=")).nth(1)?.trim_start_matches('"');
        let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
        Some(Duration::from_micros(digits[..end].parse().ok()?))
    };
    let log = String::from_utf8_lossy(&log);
    let lines = log.lines().filter(|line| line.contains("SyncProxyRules complete"));
    Ok(lines
        .filter_map(|line| Some(Sync { took: number(line, "tookUs")?, kernel: number(line, "kernelUs")? }))
        .collect())
}

fn next(lab: &Lab, before: usize) -> anyhow::Result<Sync> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut all = syncs(lab)?;
        if all.len() > before {
            return Ok(all.remove(before));
        }
        if Instant::now() > deadline {
            bail!("kube-proxy wrote nothing");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn proxy(lab: &Lab) -> anyhow::Result<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = lab.status()?;
        let roles = status["roles"].as_array().context("roles")?;
        let found = roles.iter().find(|role| role["name"] == "kube-proxy" && role["host"] == "node-1");
        match found.and_then(|role| role["pid"].as_i64()) {
            Some(pid) => return Ok(pid as i32),
            None if Instant::now() > deadline => bail!("no kube-proxy"),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

const SERVER: &str = r"
import socket, threading
def one(c):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kind = c.recv(1)
    b = bytearray(1 << 18)
    while True:
        n = c.recv_into(b)
        if n == 0: return
        if kind == b'e': c.sendall(b[:n])
def page(c):
    asked = b''
    while b'\r\n\r\n' not in asked: asked += c.recv(65536) or b'\r\n\r\n'
    n, block = int(asked.split(b' ')[1].rsplit(b'/', 1)[1]), bytes(1 << 18)
    c.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % n)
    while n > 0: n -= c.send(memoryview(block)[:n])
    c.close()
def pages():
    s = socket.create_server(('', 9301), backlog=256)
    while True:
        threading.Thread(target=page, args=(s.accept()[0],), daemon=True).start()
threading.Thread(target=pages, daemon=True).start()
s = socket.create_server(('', 9300))
while True:
    threading.Thread(target=one, args=(s.accept()[0],), daemon=True).start()
";

/// Prints Gbit/s one way, the median round trip, and the median time to connect, of one target.
const MEASURE: &str = r"
import socket, time
def measure(host):
    def dial(kind):
        c = socket.create_connection((host, 9300), timeout=5); c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); c.sendall(kind); return c
    c, b, n, t = dial(b's'), bytes(1 << 18), 0, time.perf_counter()
    while time.perf_counter() - t < 1.0: c.sendall(b); n += len(b)
    gbit = n * 8 / (time.perf_counter() - t) / 1e9
    c, trips, dials = dial(b'e'), [], []
    for _ in range(2000):
        t = time.perf_counter(); c.sendall(b'x'); c.recv(1); trips.append(time.perf_counter() - t)
    for _ in range(200):
        t = time.perf_counter(); socket.create_connection((host, 9300), timeout=5).close(); dials.append(time.perf_counter() - t)
    mid = lambda a: sorted(a)[len(a) // 2] * 1e6
    return '%.1f Gbit/s, round trip %.0f us, connect %.0f us' % (gbit, mid(trips), mid(dials))
";

/// Pages of that server over plain TCP, a connection each as the API server makes them.
const PLAIN: &str = r"
import socket, time
def get(n):
    c = socket.create_connection((HOST, 9301), timeout=30); c.sendall(b'GET /%d HTTP/1.1\r\n\r\n' % n)
    b, t = bytearray(1 << 18), 0
    while True:
        r = c.recv_into(b)
        if r == 0: return t
        t += r
rates, trips = [], []
for _ in range(10):
    t = time.perf_counter(); n = get(BIG); rates.append(n / (time.perf_counter() - t) / 1e6)
for _ in range(300):
    t = time.perf_counter(); get(2); trips.append(time.perf_counter() - t)
mid = lambda a: sorted(a)[len(a) // 2]
print('%.0f MB/s, small GET %.2f ms' % (mid(rates), mid(trips) * 1e3))
";
const BIG: usize = 64 << 20;

/// Pod to pod and pod to service between the nodes, beside plain TCP between the nodes themselves.
pub fn traffic(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (direct, service) = runtime.block_on(between_pods(lab))?;
    let (proxied, plain) = runtime.block_on(through_proxy(lab))?;
    report.row("pod proxy", proxied, plain, "the floor");
    let mut server = Running(lab.start(&["exec", "node-2", "--", "python3", "-c", SERVER], Stdio::null())?);
    let measure = format!("{MEASURE}\nprint(measure('192.0.2.12'))");
    let deadline = Instant::now() + PATIENCE;
    let floor = loop {
        match lab.minilab(&["exec", "node-1", "--", "python3", "-c", &measure]) {
            Ok(output) => break String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    server.0.kill()?;
    report.row("pod to pod, other node", direct, floor.clone(), "the floor");
    report.row("pod to service address, other node", service, floor, "the floor");
    Ok(())
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn between_pods(lab: &Lab) -> anyhow::Result<(String, String)> {
    let client = Client::connect(lab).await?;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, node: &str, program: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "minilab/toolbox", "command": ["python3", "-c", program]}]}})
    };
    client.send(Method::POST, pods, Some(&pod("sink", "node-2", SERVER))).await?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sink"},
        "spec": {"selector": {"app": "sink"}, "ports": [{"port": 9300}]}});
    let made = client.send(Method::POST, "/api/v1/namespaces/default/services", Some(&service)).await?;
    let vip = made["spec"]["clusterIP"].as_str().context("a cluster address")?.to_owned();
    let address =
        wait(&client, &format!("{pods}/sink"), |pod| pod["status"]["podIP"].as_str().map(str::to_owned))
            .await?;
    let program = format!("{MEASURE}\nprint(measure('{address}'))\nprint(measure('{vip}'))");
    client.send(Method::POST, pods, Some(&pod("source", "node-1", &program))).await?;
    wait(&client, &format!("{pods}/source"), |pod| (pod["status"]["phase"] == "Succeeded").then_some(()))
        .await?;
    let log = client.text(&format!("{pods}/source/log")).await?;
    let mut lines = log.lines().map(str::to_owned);
    let mut line = || lines.next().context("two figures in the pod's log");
    Ok((line()?, line()?))
}

/// The pod of [`between_pods`] through the API server, and plainly from the API server's own host.
async fn through_proxy(lab: &Lab) -> anyhow::Result<(String, String)> {
    let client = Client::connect(lab).await?;
    let pod = "/api/v1/namespaces/default/pods/sink";
    let address = client.send(Method::GET, pod, None).await?["status"]["podIP"].clone();
    let program = PLAIN.replace("HOST", &format!("'{}'", address.as_str().context("a pod's address")?));
    let program = program.replace("BIG", &BIG.to_string());
    let plain = lab.minilab(&["exec", "control", "--", "python3", "-c", &program])?;
    let page = |size: usize| format!("{pod}:9301/proxy/{size}");
    let (mut rates, mut trips) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let from = Instant::now();
        let size = client.fetch(&page(BIG), false).await?;
        rates.push(size as f64 / from.elapsed().as_secs_f64() / 1e6);
    }
    for _ in 0..300 {
        let from = Instant::now();
        client.fetch(&page(2), false).await?;
        trips.push(from.elapsed());
    }
    let figure = format!("{:.0} MB/s, small GET {}", median_of(&mut rates), ms(median(&mut trips)));
    Ok((figure, String::from_utf8_lossy(&plain.stdout).trim().to_owned()))
}

async fn wait<T>(client: &Client, path: &str, ready: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let object = client.send(Method::GET, path, None).await?;
        match ready(&object) {
            Some(found) => return Ok(found),
            None if Instant::now() > deadline => bail!("{path}: {}", object["status"]),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
