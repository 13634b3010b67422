//! Error texts a learner meets, each with the setting it is about, its cause and the next thing to try.
//!
//! The texts are upstream's (kubectl, kubelet, the API server, Go's TLS); a pasted line is matched by the
//! parts that never change. The most telling row comes first.

/// One error.
#[derive(Debug, PartialEq)]
pub struct KnownError {
    /// All of these are in the text.
    parts: &'static [&'static str],
    /// `path` or `path.setting`.
    pub about: &'static str,
    pub what: &'static str,
    pub cause: &'static str,
    next: &'static str,
}

pub(super) const fn error(
    parts: &'static [&'static str],
    about: &'static str,
    what: &'static str,
    cause: &'static str,
    next: &'static str,
) -> KnownError {
    KnownError { parts, about, what, cause, next }
}

const ERRORS: &[KnownError] = &[
    error(
        &["no relationship found between node"],
        "node-to-apiserver.credential",
        "the Node authorizer refused a kubelet",
        "no pod bound to that node uses the object, so its key may not read it",
        "minilab kubectl get pods -A -o wide --field-selector spec.nodeName=NODE",
    ),
    error(
        &["only its own Node object"],
        "node-to-apiserver.credential",
        "the Node authorizer refused a kubelet",
        "a node's certificate reads its own Node and no other",
        "minilab kubectl auth can-i get nodes/OTHER --as system:node:NODE --as-group system:nodes",
    ),
    error(
        &["is not allowed to modify node"],
        "node-to-apiserver.restriction",
        "NodeRestriction refused a kubelet",
        "a node's certificate may change its own Node alone",
        "minilab exec control -- cat /etc/kubernetes/manifests/kube-apiserver.yaml",
    ),
    error(
        &["is not allowed to modify taints"],
        "node-to-apiserver.restriction",
        "NodeRestriction refused a kubelet",
        "taints are an administrator's; a kubelet sets them only when it registers",
        "minilab kubectl taint nodes NODE KEY=VALUE:NoSchedule",
    ),
    error(
        &["can only create a node CSR with CN="],
        "node-to-apiserver.restriction",
        "NodeRestriction refused a certificate request",
        "a node may ask for a certificate of its own name only",
        "minilab kubectl get csr",
    ),
    error(
        &["node requested token"],
        "node-to-apiserver.restriction",
        "NodeRestriction refused a token request",
        "a node may ask for tokens of accounts whose pods run on it, bound to those pods",
        "minilab kubectl get pods -A -o wide",
    ),
    error(
        &["is not authorized to request tokens for this audience"],
        "pod-to-apiserver.token",
        "NodeRestriction refused a token request",
        "a kubelet may ask only for audiences that a volume of the pod mentions",
        "minilab kubectl get pod POD -o jsonpath='{.spec.volumes}'",
    ),
    error(
        &["none of the public keys", "are pinned"],
        "node-to-apiserver.join",
        "kubeadm join refused the cluster it found",
        "the CA in cluster-info is not the one whose digest the node was told: somebody may stand on the wire",
        "minilab logs kubeadm@NODE",
    ),
    error(
        &["failed to verify JWS signature"],
        "node-to-apiserver.join",
        "kubeadm join refused cluster-info",
        "whoever answered does not know the bootstrap token",
        "minilab kubectl -n kube-public get configmap cluster-info -o yaml",
    ),
    error(
        &["token id", "is invalid for this cluster or it has expired"],
        "node-to-apiserver.join",
        "kubeadm join found no signature of its token",
        "the bootstrap token expired (it lives a day) or never was",
        "minilab kubectl -n kube-system get secrets --field-selector type=bootstrap.kubernetes.io/token",
    ),
    error(
        &["cannot create certificate signing request", "Unauthorized"],
        "node-to-apiserver.credential",
        "TLS bootstrapping failed",
        "the bootstrap token is wrong, expired, or not for authentication",
        "minilab kubectl -n kube-system get secrets --field-selector type=bootstrap.kubernetes.io/token",
    ),
    error(
        &["system:bootstrap:", "cannot create resource \"certificatesigningrequests\""],
        "node-to-apiserver.credential",
        "TLS bootstrapping was refused",
        "nothing binds the token's group to system:node-bootstrapper",
        "minilab kubectl get clusterrolebinding kubeadm:kubelet-bootstrap -o yaml",
    ),
    error(
        &["certificate signing request is denied"],
        "node-to-apiserver.credential",
        "somebody denied a node's certificate",
        "kubectl certificate deny, or an approver's policy",
        "minilab kubectl get csr -o wide",
    ),
    error(
        &["use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"],
        "apiserver-access.authorization",
        "CertificateSubjectRestriction refused a certificate request",
        "a certificate of system:masters could never be taken back",
        "minilab kubectl get clusterrolebinding cluster-admin -o yaml",
    ),
    error(
        &["error dialing backend", "x509"],
        "apiserver-to-kubelet.ca",
        "the API server does not believe the kubelet",
        "--kubelet-certificate-authority is set and the kubelet's certificate is not of it, or not for that address",
        "minilab kubectl get csr; minilab certs",
    ),
    error(
        &["remote error: tls: internal error"],
        "apiserver-to-kubelet.serving-certificates",
        "the kubelet has no serving certificate yet",
        "its request kubernetes.io/kubelet-serving waits for somebody to approve it",
        "minilab kubectl get csr; minilab kubectl certificate approve NAME",
    ),
    error(
        &["10250", "x509"],
        "apiserver-to-kubelet.ca",
        "the API server does not believe the kubelet",
        "--kubelet-certificate-authority is set and the kubelet's certificate is not of it, or not for that address",
        "minilab kubectl get csr; minilab certs",
    ),
    error(
        &["x509: certificate is valid for", "not"],
        "apiserver-to-kubelet.serving-certificates",
        "a certificate names other addresses than the one dialled",
        "a self-signed kubelet certificate has its host name only; one from the cluster has its addresses",
        "minilab certs",
    ),
    error(
        &["x509: cannot validate certificate for", "because it doesn't contain any IP SANs"],
        "apiserver-to-kubelet.serving-certificates",
        "a certificate has no address at all",
        "the kubelet serves with the certificate it made for itself, and was dialled by its address",
        "minilab explain apiserver-to-kubelet.serving-certificates",
    ),
    error(
        &["x509: certificate has expired or is not yet valid"],
        "node-to-apiserver.credential",
        "a certificate is out of date",
        "nobody renewed it, or a clock is wrong",
        "minilab certs",
    ),
    error(
        &["x509: certificate signed by unknown authority"],
        "node-to-apiserver.ca",
        "a client does not believe the server it reached",
        "the server's certificate is of another authority: a wrong kubeconfig, or somebody on the wire",
        "minilab certs; minilab kubeconfig",
    ),
    error(
        &["Forbidden (user=", "subresource"],
        "kubelet-access.authorization",
        "the kubelet refused a caller",
        "its webhook asked the API server, and RBAC gives this user no such subresource of nodes",
        "minilab kubectl auth can-i get nodes/proxy --as USER",
    ),
    error(
        &["User \"system:anonymous\" cannot"],
        "apiserver-access.anonymous",
        "a request without any credential was refused",
        "nothing was sent that says who asks, and RBAC gives nobody that right",
        "minilab kubectl auth whoami",
    ),
    error(
        &["User \"system:serviceaccount:", "cannot"],
        "pod-to-apiserver.rbac",
        "RBAC refused a pod's account",
        "no Role or ClusterRole bound to it allows this",
        "minilab kubectl auth can-i --list --as system:serviceaccount:NAMESPACE:NAME",
    ),
    error(
        &["User \"system:kube-scheduler\" cannot"],
        "components-to-apiserver.identity",
        "RBAC refused the scheduler",
        "each component has its own identity, which may do its own work only",
        "minilab kubectl get clusterrole system:kube-scheduler -o yaml",
    ),
    error(
        &["is attempting to grant RBAC permissions not currently held"],
        "apiserver-access.authorization",
        "RBAC refused to let somebody hand out more than they hold",
        "who makes a role or a binding must hold its rules, or the verbs escalate and bind",
        "minilab kubectl auth can-i --list --as USER",
    ),
    error(
        &["violates PodSecurity"],
        "apiserver-access.authorization",
        "PodSecurity refused a pod",
        "its namespace enforces a pod security standard that the pod does not meet",
        "minilab kubectl get namespace NAMESPACE --show-labels",
    ),
    error(
        &["Use of external IPs is denied by admission control"],
        "pod-to-apiserver.external-ips",
        "DenyServiceExternalIPs refused a Service",
        "a Service with an address that is not its own could take another's traffic (CVE-2020-8554)",
        "minilab explain pod-to-apiserver.external-ips",
    ),
    error(
        &["service account token has expired"],
        "pod-to-apiserver.token",
        "a token is out of date",
        "it lived as long as it was asked for; programs must read the file again",
        "minilab logs kube-apiserver",
    ),
    error(
        &["service account token has been invalidated"],
        "pod-to-apiserver.token",
        "a token was revoked",
        "the pod, Secret, node or account it was bound to is gone",
        "minilab kubectl get pods,serviceaccounts -A",
    ),
    error(
        &["is invalid for the target audiences"],
        "pod-to-apiserver.token",
        "a token is for somebody else",
        "its aud does not name this API server",
        "minilab kubectl create token NAME --audience AUDIENCE",
    ),
    error(
        &["You must be logged in to the server"],
        "apiserver-access.anonymous",
        "the API server did not recognize the caller (401)",
        "a wrong or expired certificate or token; a wrong credential is never treated as none",
        "minilab logs kube-apiserver",
    ),
    error(
        &["Unauthorized"],
        "apiserver-access.anonymous",
        "somebody was not recognized (401)",
        "a wrong or expired certificate or token; a wrong credential is never treated as none",
        "minilab logs kube-apiserver",
    ),
    error(
        &["leaderelection lost"],
        "components-to-apiserver.identity",
        "a component gave up because it could not renew its lease",
        "the API server did not answer for ten seconds, or another process leads",
        "minilab kubectl -n kube-system get leases",
    ),
    error(
        &["was refused - did you specify the right host or port?"],
        "apiserver-access",
        "nothing listens there",
        "the lab does not run, or runs on another port",
        "minilab status",
    ),
    error(
        &["forbidden: User", "cannot"],
        "apiserver-access.authorization",
        "the API server refused a caller (403)",
        "it knows who asks, and no authorizer allows this",
        "minilab kubectl auth can-i --list --as USER",
    ),
    error(
        &["is forbidden: User", "cannot"],
        "apiserver-access.authorization",
        "the API server refused a caller (403)",
        "it knows who asks, and no authorizer allows this",
        "minilab kubectl auth can-i --list --as USER",
    ),
];

/// The error a text is; a text that fits several rows is the first, most telling one.
pub fn known_errors(text: &str) -> Vec<&'static KnownError> {
    rows().find(|error| error.parts.iter().all(|part| text.contains(part))).into_iter().collect()
}

fn rows() -> impl Iterator<Item = &'static KnownError> {
    super::more_errors::ROWS.iter().chain(ERRORS)
}

impl KnownError {
    /// The next command, with whoever and whatever the text names in their places.
    pub fn next_for(&self, text: &str) -> String {
        let quoted = |before: &str, quote: char| {
            let rest = text.split_once(before)?.1;
            let name = rest.split(quote).next()?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._:@".contains(c);
            (!name.is_empty() && name.len() <= 253 && name.chars().all(plain)).then_some(name)
        };
        let node = ["node \"", "User \"system:node:"].iter().find_map(|before| quoted(before, '"'));
        let node = node.or_else(|| quoted("node '", '\''));
        let mut next = self.next.to_owned();
        for (word, name) in [
            ("USER", quoted("User \"", '"').or_else(|| quoted("user \"", '"'))),
            ("NODE", node),
            ("NAMESPACE", quoted("in the namespace \"", '"')),
        ] {
            if let Some(name) = name {
                let words = next.split(' ').map(|one| match one.strip_suffix(word) {
                    Some(before) if !before.ends_with(|c: char| c.is_ascii_uppercase()) => {
                        format!("{before}{name}")
                    }
                    _ => one.to_owned(),
                });
                next = words.collect::<Vec<_>>().join(" ");
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::paths::PATHS;

    #[test]
    fn every_error_is_about_a_setting_that_exists_and_says_what_to_try() {
        for error in rows() {
            let (path, setting) = match error.about.split_once('.') {
                Some((path, setting)) => (path, Some(setting)),
                None => (error.about, None),
            };
            let row = PATHS.iter().find(|row| row.name == path).expect(error.about);
            assert!(
                setting.is_none_or(|setting| row.settings.iter().any(|one| one.name == setting)),
                "{}",
                error.about
            );
            assert!(error.next.contains("minilab "), "{}", error.next);
        }
    }

    #[test]
    fn a_pasted_line_finds_the_most_telling_row() {
        for (text, about) in [
            (
                "Error from server (Forbidden): secrets \"db\" is forbidden: User \"system:node:node-1\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\": no relationship found between node 'node-1' and this object",
                "node-to-apiserver.credential",
            ),
            (
                "Error from server: Get \"https://192.0.2.11:10250/containerLogs/a/b/c\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
                "apiserver-to-kubelet.ca",
            ),
            (
                "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority",
                "node-to-apiserver.ca",
            ),
            ("error: You must be logged in to the server (Unauthorized)", "apiserver-access.anonymous"),
            (
                "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
                "apiserver-access.authorization",
            ),
        ] {
            assert_eq!(known_errors(text)[0].about, about, "{text}");
        }
        assert!(known_errors("something else").is_empty());
        let text = "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"a\"";
        assert!(known_errors(text)[0].next_for(text).ends_with("--as jane"));
        let text = "nodes \"node-1\" is forbidden: node \"node-1\" is not allowed to modify taints";
        assert!(known_errors(text)[0].next_for(text).contains("taint nodes node-1 KEY=VALUE"));
    }
}
