//! The certificates API: a request by kubectl, its approval or denial, and what is never signed.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::kit::{Lab, eventually};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// A key and a request for it, in PEM.
fn request(cn: &str, org: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, org);
    params.distinguished_name.push(rcgen::DnType::CommonName, cn);
    (params.serialize_request(&key).unwrap().pem().unwrap(), key.serialize_pem())
}

fn manifest(name: &str, signer: &str, pem: &str, more: &str) -> String {
    let usages = if signer.ends_with("serving") { "server auth" } else { "client auth" };
    format!(
        "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {name}}}
spec:
  request: {}
  signerName: {signer}
  usages: [digital signature, {usages}]
{more}
",
        BASE64_STANDARD.encode(pem)
    )
}

fn create(lab: &Lab, text: &str) -> crate::kit::lab::Ran {
    let file = lab.home.path().join("csr.yaml");
    std::fs::write(&file, text).unwrap();
    lab.kubectl(&["create", "-f", file.to_str().unwrap()])
}

#[test]
fn a_request_is_approved_signed_and_used_or_denied_for_good() {
    let lab = Lab::up();
    let (pem, key) = request("vera", "devs");
    create(&lab, &manifest("vera", CLIENT, &pem, "  expirationSeconds: 3600")).ok();
    let row = lab.kubectl(&["get", "csr", "vera"]).ok();
    assert!(row.contains("Pending") && row.contains("kubernetes-admin") && row.contains("60m"), "{row}");
    assert_eq!(
        lab.kubectl(&["certificate", "approve", "vera"]).ok(),
        "certificatesigningrequest.certificates.k8s.io/vera approved\n"
    );
    let cert = eventually(Duration::from_secs(30), "it is signed", || {
        let csr = lab.object(&["csr", "vera"]);
        csr["status"]["certificate"].as_str().map(str::to_owned).ok_or_else(|| csr.to_string())
    });
    let (cert_file, key_file) = (lab.home.path().join("vera.crt"), lab.home.path().join("vera.key"));
    std::fs::write(&cert_file, BASE64_STANDARD.decode(cert).unwrap()).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let flags = [
        format!("--client-certificate={}", cert_file.display()),
        format!("--client-key={}", key_file.display()),
        format!("--kubeconfig={}", crate::accounts::bare(&lab)),
    ];
    let words: Vec<&str> = ["auth", "whoami"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let me = lab.kubectl(&words).ok();
    assert!(
        me.contains("vera") && me.contains("[devs system:authenticated]") && me.contains("X509SHA256="),
        "{me}"
    );
    let late = lab.kubectl(&["certificate", "deny", "vera"]);
    assert!(
        late.stderr.contains("certificate signing request \"vera\" is already Approved"),
        "{}{}",
        late.stdout,
        late.stderr
    );

    create(&lab, &manifest("eve", CLIENT, &request("eve", "devs").0, "")).ok();
    lab.kubectl(&["certificate", "deny", "eve"]).ok();
    assert!(lab.kubectl(&["get", "csr", "eve"]).ok().contains("Denied"));
}

#[test]
fn what_should_not_be_asked_is_refused_and_what_is_wrong_fails_by_name() {
    let lab = Lab::up();
    for (text, said) in [
        (
            manifest("root", CLIENT, &request("root", "system:masters").0, ""),
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        ),
        (
            manifest("short", CLIENT, &request("x", "y").0, "  expirationSeconds: 60"),
            "may not specify a duration less than 600 seconds",
        ),
        (
            manifest("old", "kubernetes.io/legacy-unknown", &request("x", "y").0, ""),
            "the legacy signerName is not allowed via this API version",
        ),
        (manifest("junk", CLIENT, "junk", ""), "PEM block type must be CERTIFICATE REQUEST"),
    ] {
        let refused = create(&lab, &text).fails_with(1);
        assert!(refused.contains(said), "{refused}");
    }
    // A kubelet's certificate for somebody who is no node.
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    create(&lab, &manifest("odd", signer, &request("eve", "system:nodes").0, "")).ok();
    lab.kubectl(&["certificate", "approve", "odd"]).ok();
    eventually(Duration::from_secs(30), "the signer says why not", || {
        let csr = lab.object(&["csr", "odd"]).to_string();
        let why = "subject common name does not begin with system:node:";
        if csr.contains(why) && csr.contains("SignerValidationFailure") { Ok(()) } else { Err(csr) }
    });
    // Approving is a permission of its own, per signer.
    lab.kubectl(&[
        "create",
        "clusterrole",
        "csr-editor",
        "--verb=get,update,patch",
        "--resource=certificatesigningrequests,certificatesigningrequests/approval",
    ])
    .ok();
    lab.kubectl(&["create", "clusterrolebinding", "csr-editor", "--clusterrole=csr-editor", "--user=joe"])
        .ok();
    create(&lab, &manifest("mine", CLIENT, &request("joe", "devs").0, "")).ok();
    let refused = lab.kubectl(&["certificate", "approve", "mine", "--as", "joe"]).fails_with(1);
    assert!(
        refused.contains(
            "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""
        ),
        "{refused}"
    );
}
