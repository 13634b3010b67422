//! The machines of the lab: what a look inside each shows, and which way packets take.

use crate::kit::{Lab, random};

#[test]
fn a_host_looks_like_a_machine_of_a_real_cluster() {
    let lab = Lab::up();
    for (host, role, flag) in [
        ("control", "kube-apiserver", "--etcd-prefix=/registry|--client-ca-file=/etc/kubernetes/pki/ca.crt"),
        ("control", "kube-controller", "--cluster-cidr=10.244.0.0/16"),
        ("control", "kube-scheduler", "--kubeconfig=/etc/kubernetes/scheduler.conf"),
        ("node-1", "kubelet", "--config=/var/lib/kubelet/config.yaml"),
        ("node-2", "kube-proxy", "--config=/var/lib/kube-proxy/config.conf"),
    ] {
        let listing = lab.on(host, &["ps", "-eo", "comm,args"]);
        let line = listing.lines().find(|line| line.starts_with(role));
        let line = line.unwrap_or_else(|| panic!("no {role} on {host}:\n{listing}"));
        assert!(flag.split('|').any(|flag| line.contains(flag)), "{line}");
    }
    let here = |host: &str, files: &[&str]| lab.on(host, &[&["ls", "-d"], files].concat());
    here(
        "control",
        &[
            "/etc/kubernetes/pki/ca.crt",
            "/etc/kubernetes/pki/apiserver.crt",
            "/etc/kubernetes/pki/sa.pub",
            "/etc/kubernetes/pki/apiserver-kubelet-client.key",
            "/etc/kubernetes/pki/front-proxy-ca.crt",
            "/etc/kubernetes/admin.conf",
            "/etc/kubernetes/super-admin.conf",
            "/etc/kubernetes/scheduler.conf",
            "/etc/kubernetes/controller-manager.conf",
            "/etc/kubernetes/manifests/kube-apiserver.yaml",
            "/etc/kubernetes/manifests/kube-controller-manager.yaml",
            "/etc/kubernetes/manifests/kube-scheduler.yaml",
        ],
    );
    here(
        "node-1",
        &[
            "/etc/kubernetes/pki/ca.crt",
            "/etc/kubernetes/kubelet.conf",
            "/var/lib/kubelet/config.yaml",
            "/var/lib/kubelet/kubeadm-flags.env",
            "/var/lib/kube-proxy/config.conf",
            "/var/lib/kubelet/pki/kubelet-client-current.pem",
            "/var/lib/kubelet/pki/kubelet.crt",
        ],
    );
    assert_eq!(lab.on("node-1", &["hostname"]), "node-1\n");
    assert!(lab.on("node-2", &["cat", "/etc/hosts"]).contains("198.51.100.2"));
    assert_eq!(lab.minilab(&["exec", "node-1", "--", "sh", "-c", "exit 7"]).code, 7);
}

#[test]
fn no_host_shows_what_is_in_the_users_home() {
    let lab = Lab::up();
    let marker = format!("marker-{:x}", random());
    std::fs::write(lab.home.path().join(&marker), "secret").unwrap();
    for host in ["control", "wire", "switch", "node-1", "node-2"] {
        let found = lab.on(
            host,
            &[
                "sh",
                "-c",
                &format!("find / -name '{marker}' 2>/dev/null; cat /proc/1/mountinfo | head -0; ls -A /home"),
            ],
        );
        assert_eq!(found, "", "{host} shows the machine");
        let sysctl =
            lab.minilab(&["exec", host, "--", "sh", "-c", "echo 1 > /proc/sys/vm/overcommit_memory"]);
        assert_ne!(sysctl.code, 0, "{host} may write the machine's settings");
    }
}

/// Packets that `wire` forwarded so far, on its link to the control site.
fn crossed(lab: &Lab) -> u64 {
    let text = lab.on("wire", &["cat", "/proc/net/snmp"]);
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "ForwDatagrams").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn every_packet_between_control_and_nodes_crosses_wire_and_none_leaves_the_lab() {
    let lab = Lab::up();
    lab.run(
        "talk",
        "yes 01234567890123456789012345678901234567890123456789012345678 | head -n 50000; sleep infinity",
    );
    let before = crossed(&lab);
    assert_eq!(lab.kubectl(&["logs", "talk"]).ok().len(), 3_000_000);
    let packets = crossed(&lab) - before;
    // Three megabytes in frames of at most 64 KiB (segments are joined on a veth) and their answers.
    assert!(packets > 3_000_000 / 65_536, "only {packets} packets crossed");
    for (host, way) in [("control", "198.51.100.1"), ("node-1", "192.0.2.1")] {
        let hop =
            lab.on(host, &["sh", "-c", "cut -f2,3 /proc/net/route | awk '$1 == \"00000000\" {print $2}'"]);
        let bytes: Vec<String> =
            way.split('.').rev().map(|part| format!("{:02X}", part.parse::<u8>().unwrap())).collect();
        assert_eq!(hop.trim(), bytes.concat(), "{host}'s only way out is wire");
    }
    let wire = lab.on("wire", &["sh", "-c", "cut -f2 /proc/net/route"]);
    assert!(!wire.lines().any(|line| line == "00000000"), "wire has no way out:\n{wire}");
    let links = lab.on("control", &["ls", "/sys/class/net"]);
    assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
}
