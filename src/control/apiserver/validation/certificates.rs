//! CertificateSigningRequests: what may be asked for, and what may be said about it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{duplicate, each, immutable, invalid_all, join, metadata, required, text};
use crate::api::names;
use crate::api::status::Cause;
use crate::pki;

/// What a certificate may be for, as the kind lists it.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub fn signing_request(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::path_segment);
    if let Some(old) = old {
        immutable(&mut causes, object, old, "spec", "");
        verdicts(&mut causes, object, old);
        return causes;
    }
    let spec = &object["spec"];
    let pem = STANDARD.decode(text(spec, "request")).unwrap_or_default();
    match pki::Request::from_pem(&String::from_utf8_lossy(&pem)) {
        Err(pki::PkiError::Request(why)) => {
            causes.push(Cause::invalid("spec.request", &spec["request"], &why));
        }
        Err(error) => causes.push(Cause::invalid("spec.request", &spec["request"], &error.to_string())),
        Ok(_) => {}
    }
    usages(&mut causes, spec);
    let signer = text(spec, "signerName");
    if required(&mut causes, spec, "signerName", "spec") {
        match signer.split_once('/') {
            Some((domain, rest)) if !rest.is_empty() && !rest.contains('/') => {
                causes.extend(invalid_all(
                    "spec.signerName",
                    &spec["signerName"],
                    names::dns1123_subdomain(domain),
                ));
            }
            _ => {
                let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
                causes.push(Cause::invalid("spec.signerName", &spec["signerName"], why));
            }
        }
    }
    if signer == "kubernetes.io/legacy-unknown" {
        let why = "the legacy signerName is not allowed via this API version";
        causes.push(Cause::invalid("spec.signerName", &spec["signerName"], why));
    }
    if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.push(Cause::invalid("spec.expirationSeconds", &spec["expirationSeconds"], why));
    }
    causes
}

fn usages(causes: &mut Vec<Cause>, spec: &Value) {
    if spec["usages"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.usages", ""));
    }
    let mut seen = Vec::new();
    for (path, usage) in each(spec, "usages", "spec") {
        if !usage.as_str().is_some_and(|usage| USAGES.contains(&usage)) {
            causes.push(Cause::unsupported(path.clone(), usage, USAGES));
        }
        if seen.contains(&usage) {
            causes.push(duplicate(path, usage));
        }
        seen.push(usage);
    }
}

/// Why a certificate cannot be kept; around its blocks there may be any text.
fn certificate_fault(pem: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(pem);
    let mut blocks = 0;
    for block in text.split("-----BEGIN ").skip(1) {
        let Some((label, rest)) = block.split_once("-----") else { continue };
        if label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {label:?}"));
        }
        let body = rest.split_once("-----END CERTIFICATE-----").map(|(body, _)| body)?;
        if body.contains(':') {
            return Some("no PEM block headers are permitted".into());
        }
        blocks += 1;
    }
    if blocks == 0 {
        return Some("must contain one or more PEM blocks".into());
    }
    let readable = |all: Vec<_>| all.iter().try_for_each(|der| pki::Facts::from_der(der).map(drop));
    pki::certificates(pem).and_then(readable).err().map(|error| error.to_string())
}

/// A verdict is True, of one kind, and stays; so does a certificate once it is issued.
fn verdicts(causes: &mut Vec<Cause>, object: &Value, old: &Value) {
    let of = |request: &Value, kind: &str| {
        let all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|condition| condition["type"] == kind)
    };
    for (path, condition) in each(&object["status"], "conditions", "status") {
        let (kind, status) = (text(condition, "type"), &condition["status"]);
        if matches!(kind, "Approved" | "Denied" | "Failed") && *status != "True" {
            causes.push(Cause::unsupported(join(&path, "status"), status, &["True"]));
        }
    }
    if of(object, "Approved").is_some() && of(object, "Denied").is_some() {
        let why = "Approved and Denied conditions are mutually exclusive";
        causes.push(Cause::invalid("status.conditions", &object["status"]["conditions"], why));
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if of(old, kind).is_some() && of(object, kind).is_none() {
            let why = format!("updates may not remove a condition of type {kind:?}");
            causes.push(Cause::forbidden("status.conditions", &why));
        }
    }
    let certificate =
        |request: &Value| request["status"]["certificate"].as_str().unwrap_or_default().to_owned();
    let issued = certificate(object);
    if certificate(old) == issued {
        return;
    }
    let why = match STANDARD.decode(&issued) {
        Ok(pem) if !pem.is_empty() => certificate_fault(&pem),
        _ => None,
    };
    if let Some(why) = why {
        causes.push(Cause::invalid("status.certificate", &object["status"]["certificate"], &why));
    }
    if !certificate(old).is_empty() {
        causes.push(Cause::forbidden(
            "status.certificate",
            "updates may not modify existing certificate content",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(pem: &str, usages: &[&str]) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {
            "request": STANDARD.encode(pem), "usages": usages, "signerName": "example.com/a",
        }})
    }

    fn texts(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn usages_are_known_and_asked_for_once() {
        let (pem, _) = pki::request("a", &[], &[], &[]).unwrap();
        assert!(signing_request(&asked(&pem, &["client auth"]), None).is_empty());
        let causes = texts(signing_request(&asked(&pem, &["client auth", "foo", "client auth"]), None));
        assert!(
            causes[0].starts_with("spec.usages[1]: Unsupported value: \"foo\": supported values: \"any\"")
        );
        assert_eq!(causes[1], "spec.usages[2]: Duplicate value: \"client auth\"");
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (pem, _) = pki::request("a", &[], &[], &[]).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        let mut der = STANDARD.decode(body).unwrap();
        *der.last_mut().unwrap() ^= 1;
        let forged = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        );
        let causes = texts(signing_request(&asked(&forged, &["client auth"]), None));
        assert!(causes[0].ends_with("x509: ECDSA verification failure"), "{causes:?}");
    }

    #[test]
    fn a_status_takes_certificates_and_nothing_else() {
        assert_eq!(certificate_fault(b"hello").as_deref(), Some("must contain one or more PEM blocks"));
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(certificate_fault(key).unwrap().contains("found \"PRIVATE KEY\""));
        let bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(certificate_fault(bad).is_some());
        let good = pki::Authority::new("ca").unwrap().cert_pem().to_owned();
        assert_eq!(certificate_fault(format!("words before\n{good}").as_bytes()), None);
    }
}
