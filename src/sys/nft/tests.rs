//! On the real kernel, in a network namespace of the test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::*;

/// Runs the named test again in a fresh user and network namespace; true when it is there already.
fn inside_namespace(test: &str) -> bool {
    if std::env::var_os("MINILAB_TEST_NAMESPACE").is_some() {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("MINILAB_TEST_NAMESPACE", "1");
    let map = format!("0 {} 1", nix::unistd::geteuid());
    // SAFETY: four system calls between fork and exec, nothing that allocates.
    unsafe {
        again.pre_exec(move || {
            let spaces = nix::sched::CloneFlags::CLONE_NEWUSER | nix::sched::CloneFlags::CLONE_NEWNET;
            nix::sched::unshare(spaces)?;
            let file = libc::open(c"/proc/self/uid_map".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            let written = libc::write(file, map.as_ptr().cast(), map.len());
            if written == map.len() as isize { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn loopback_up() {
    // SAFETY: `request` is a whole ifreq of zeroes with a name and the UP flag; the kernel only reads it.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        assert_eq!(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request), 0);
        libc::close(socket);
    }
}

fn service(address: [u8; 4], port: u16) -> Key {
    Key::Service(ServiceKey { address: address.into(), protocol: Protocol::Tcp, port })
}

/// A service at 127.0.0.2:443 with some backends, another without any, on the output hook.
fn proxy(backends: &[u16]) -> Table {
    let mut table = Table::default();
    let endpoints: Vec<_> = backends.iter().map(|port| (Ipv4Addr::LOCALHOST, *port)).collect();
    table.rule("service", Rule::new().balance_endpoints(Protocol::Tcp, &endpoints));
    table.rule("refuse", Rule::new().reject());
    table.set("service-ips", SetKind::Verdicts(KeyKind::Service));
    table.verdict("service-ips", service([127, 0, 0, 2], 443), Verdict::Goto("service".into()));
    table.set("no-endpoints", SetKind::Verdicts(KeyKind::Service));
    table.verdict("no-endpoints", service([127, 0, 0, 3], 443), Verdict::Goto("refuse".into()));
    table.base_chain("nat-output", ChainKind::Nat, Hook::Output, priority::DSTNAT);
    table.rule("nat-output", Rule::new().jump("services"));
    table.rule("services", Rule::new().verdict_by_service("service-ips"));
    table.base_chain("filter-output", ChainKind::Filter, Hook::Output, priority::FILTER);
    table.rule("filter-output", Rule::new().new_connection().verdict_by_service("no-endpoints"));
    table
}

#[test]
fn a_table_balances_refuses_and_is_replaced_in_one_step() {
    if !inside_namespace("sys::nft::tests::a_table_balances_refuses_and_is_replaced_in_one_step") {
        return;
    }
    loopback_up();
    let backends = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let ports = [0, 1].map(|at: usize| backends[at].local_addr().unwrap().port());
    for (name, listener) in ["a", "b"].into_iter().zip(backends) {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(name.as_bytes()).unwrap();
            }
        });
    }
    let ask = || {
        let mut answer = String::new();
        TcpStream::connect("127.0.0.2:443").unwrap().read_to_string(&mut answer).unwrap();
        answer
    };
    proxy(&ports).replace(Family::Ip, "kube-proxy").commit().unwrap();
    let answers: Vec<String> = (0..64).map(|_| ask()).collect();
    assert!(answers.iter().any(|name| name == "a") && answers.iter().any(|name| name == "b"));
    let refused = TcpStream::connect("127.0.0.3:443").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    let (before, after) = (proxy(&ports), proxy(&ports[..1]));
    assert_eq!(after.distance(&before), 1, "one service changed");
    after.difference(&before, Family::Ip, "kube-proxy").commit().unwrap();
    assert!((0..32).all(|_| ask() == "a"), "one backend is left");

    let mut broken = proxy(&ports[1..]).replace(Family::Ip, "kube-proxy");
    broken.rule("nosuch", &Rule::new().reject());
    let error = broken.commit().unwrap_err();
    assert_eq!(error.to_string(), "nftables: add rule to nosuch in table kube-proxy");
    assert!((0..32).all(|_| ask() == "a"), "a refused transaction changes nothing");

    let mut sticky = after.clone();
    sticky.set("affinity", SetKind::Remembered(std::time::Duration::from_secs(60)));
    sticky.chain("endpoint");
    sticky.rule(
        "endpoint",
        Rule::new().remember_source("affinity").protocol(Protocol::Tcp).dnat(Ipv4Addr::LOCALHOST, ports[1]),
    );
    sticky.rule("other", Rule::new().source_in("affinity").goto("endpoint"));
    sticky.rule("other", Rule::new().balance_chains(&["endpoint".into(), "endpoint".into()]));
    sticky.verdict("service-ips", service([127, 0, 0, 4], 443), Verdict::Goto("other".into()));
    sticky.difference(&after, Family::Ip, "kube-proxy").commit().unwrap();
    let at = |address: &str| {
        let mut answer = String::new();
        TcpStream::connect(address)?.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    assert_eq!(at("127.0.0.4:443").unwrap(), "b");
    assert_eq!(at("127.0.0.4:443").unwrap(), "b");
    // Chains, the maps between them and the element that leads there go in one transaction.
    after.difference(&sticky, Family::Ip, "kube-proxy").commit().unwrap();
    assert!(at("127.0.0.4:443").is_err());
    assert!((0..8).all(|_| ask() == "a"));

    Batch::remove(Family::Ip, "kube-proxy").commit().unwrap();
    Batch::remove(Family::Ip, "kube-proxy").commit().unwrap();
    assert!(TcpStream::connect("127.0.0.2:443").is_err());
}

#[test]
fn every_expression_is_taken_by_the_kernel() {
    if !inside_namespace("sys::nft::tests::every_expression_is_taken_by_the_kernel") {
        return;
    }
    let pods: ipnet::Ipv4Net = "10.244.0.0/16".parse().unwrap();
    let mut batch = Batch::replace(Family::Ip, "t");
    batch.base_chain("post", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT);
    batch.base_chain("pre", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT);
    batch.base_chain("fwd", ChainKind::Filter, Hook::Forward, priority::FILTER);
    batch.chain("mark");
    batch.rule("mark", &Rule::new().mark_or(0x4000));
    batch.rule("post", &Rule::new().mark_clear(0x4000).verdict(&Verdict::Return));
    batch.rule("post", &Rule::new().mark_xor(0x4000).masquerade());
    batch.rule("post", &Rule::new().source(pods).snat([192, 0, 2, 1].into()));
    batch.rule("pre", &Rule::new().source_outside(pods).destination_port(Protocol::Tcp, 6443).jump("mark"));
    batch.rule("fwd", &Rule::new().destination(pods).new_connection().reject());
    batch.set("pods", SetKind::Set(KeyKind::Address));
    batch.set("pairs", SetKind::Set(KeyKind::Pair));
    batch.set("named", SetKind::Set(KeyKind::Service));
    batch.set("ports", SetKind::Verdicts(KeyKind::Port));
    let address = Ipv4Addr::new(10, 244, 1, 2);
    batch.add_elements("pods", &[(Key::Address(address), None)]);
    batch.add_elements("pairs", &[(Key::Pair(address, address), None)]);
    batch.add_elements("named", &[(service([10, 96, 0, 1], 443), None)]);
    batch.add_elements("ports", &[(Key::Port(Protocol::Udp, 53), Some(&Verdict::Drop))]);
    batch.rule("fwd", &Rule::new().known_connection().verdict(&Verdict::Accept));
    batch.rule("fwd", &Rule::new().source_in("pods").destination_in("pods").destination_outside(pods));
    batch.rule("fwd", &Rule::new().both_ends_in("pairs").service_in("named").verdict_by_port("ports"));
    batch.rule("fwd", &Rule::new().source_is_this_machine().destination_ports(Protocol::Tcp, 80, 90));
    batch.commit().unwrap();
}
