//! With which certificate a kubelet answers: signed, approved or not, replaced.

use std::time::Duration;

use super::{put, reconfigure, restart};
use crate::kit::{Lab, eventually};

const SERVING: (&str, &str) = ("apiserver-to-kubelet.serving-certificates", "hardened");
const VERIFIED: (&str, &str) = ("apiserver-to-kubelet.ca", "hardened");

/// The node's own request, and one for its sibling's address, made with node-1's key.
fn ask_for(lab: &Lab, name: &str, addresses: &[&str]) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:node-1");
    let ips = addresses.iter().map(|address| rcgen::SanType::IpAddress(address.parse().unwrap()));
    params.subject_alt_names = ips.collect();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    use base64::Engine;
    let request = base64::prelude::BASE64_STANDARD.encode(pem);
    let object = serde_json::json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": request, "signerName": "kubernetes.io/kubelet-serving",
                 "usages": ["digital signature", "server auth"]},
    });
    put(lab, "node-1", "/tmp/csr.json", &object.to_string());
    let own = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let script = format!(
        "curl -s -f --cacert /etc/kubernetes/pki/ca.crt --cert {own} --key {own} -H 'Content-Type: application/json' \
         -d @/tmp/csr.json https://198.51.100.1:6443/apis/certificates.k8s.io/v1/certificatesigningrequests"
    );
    lab.on("node-1", &["sh", "-c", &script]);
}

fn condition(lab: &Lab, csr: &str) -> String {
    let object = lab.object(&["csr", csr]);
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().filter_map(|one| one["type"].as_str()).collect::<Vec<_>>().join(",")
}

fn approved(lab: &Lab, csr: &str) {
    eventually(Duration::from_secs(10), "the request is approved", || match condition(lab, csr).as_str() {
        "Approved" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn a_verified_kubelet_is_approved_by_the_inventory_and_shows_its_logs() {
    let lab = Lab::with(&[SERVING, VERIFIED, ("apiserver-to-kubelet.approval", "hardened")]);
    lab.run("web", "echo ready; sleep 1000");
    assert_eq!(lab.kubectl(&["logs", "web"]).ok(), "ready\n");
    assert!(lab.kubectl(&["exec", "web", "--", "id", "-u"]).ok().starts_with('0'));
    // Its own address again is approved; a sibling's is not, also after the Node object was made to claim it.
    ask_for(&lab, "own", &["192.0.2.11"]);
    approved(&lab, "own");
    claim(&lab, "192.0.2.12");
    ask_for(&lab, "sibling", &["192.0.2.12"]);
    let events = eventually(Duration::from_secs(10), "an event says why not", || {
        let events = lab.kubectl(&["get", "events", "-A"]).ok();
        if events.contains("NotApproved") { Ok(events) } else { Err(events) }
    });
    assert!(events.contains("192.0.2.12 is not an address that the inventory gives"), "{events}");
    assert_eq!(condition(&lab, "sibling"), "");
    without_a_certificate(&lab);
}

/// Node-1's key makes the Node object say what it likes.
fn claim(lab: &Lab, address: &str) {
    let change = serde_json::json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
    put(lab, "node-1", "/tmp/claim.json", &change.to_string());
    let own = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let script = format!(
        "curl -s -f -X PATCH --cacert /etc/kubernetes/pki/ca.crt --cert {own} --key {own} \
         -H 'Content-Type: application/merge-patch+json' -d @/tmp/claim.json \
         https://198.51.100.1:6443/api/v1/nodes/node-1/status"
    );
    lab.on("node-1", &["sh", "-c", &script]);
}

/// While nobody approves there is no certificate, and the handshake ends with an alert; then all is well
/// again, without a restart of anything.
fn without_a_certificate(lab: &Lab) {
    lab.minilab(&["stop", "csr-approver"]).ok();
    for host in ["node-1", "node-2"] {
        lab.on(host, &["rm", "/var/lib/kubelet/pki/kubelet-server-current.pem"]);
        restart(lab, host);
    }
    let logs = lab.kubectl(&["logs", "web"]).fails_with(1);
    assert!(logs.contains("remote error: tls: internal error"), "{logs}");
    lab.minilab(&["start", "csr-approver"]).ok();
    eventually(Duration::from_secs(20), "logs return with the certificate", || {
        let ran = lab.kubectl(&["logs", "web"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
}

#[test]
fn an_approver_that_believes_the_node_gives_it_its_siblings_address() {
    let lab = Lab::with(&[SERVING, VERIFIED, ("apiserver-to-kubelet.approval", "partial")]);
    ask_for(&lab, "early", &["192.0.2.12"]);
    eventually(Duration::from_secs(10), "the approver has seen it", || {
        let events = lab.kubectl(&["get", "events", "-A"]).ok();
        if events.contains("NotApproved") { Ok(()) } else { Err(events) }
    });
    assert_eq!(condition(&lab, "early"), "");
    // A kubelet puts its node's addresses right again every ten seconds: a thief ends it first.
    lab.minilab(&["stop", "kubelet@node-1"]).ok();
    claim(&lab, "192.0.2.12");
    ask_for(&lab, "late", &["192.0.2.12"]);
    approved(&lab, "late");
}

#[test]
fn a_serving_pair_in_files_is_taken_in_without_a_restart() {
    let lab = Lab::up();
    let pair = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        put(&lab, "node-1", "/etc/kubernetes/tls.crt", &made.cert.pem());
        put(&lab, "node-1", "/etc/kubernetes/tls.key", &made.signing_key.serialize_pem());
    };
    pair("first");
    reconfigure(&lab, "node-1", |config| {
        config + "tlsCertFile: /etc/kubernetes/tls.crt\ntlsPrivateKeyFile: /etc/kubernetes/tls.key\n"
    });
    let pid = lab.pid("kubelet", "node-1");
    let san = |name: &str| {
        let script = format!(
            "curl -s --cacert /tmp/one.crt --connect-to ::192.0.2.11:10250 -o /dev/null -w '%{{ssl_verify_result}}' \
             https://{name}:10250/x || true"
        );
        let crt = lab.on("node-1", &["cat", "/etc/kubernetes/tls.crt"]);
        put(&lab, "control", "/tmp/one.crt", &crt);
        lab.on("control", &["sh", "-c", &script])
    };
    assert_eq!(san("first"), "0");
    pair("second");
    eventually(Duration::from_secs(10), "the new pair is served", || match san("second").as_str() {
        "0" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(lab.pid("kubelet", "node-1"), pid, "it is the same process");
}
