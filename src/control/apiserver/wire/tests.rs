use serde_json::json;

use super::*;

/// A length-delimited field.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    let mut out = match number {
        0..16 => vec![number << 3 | 2, length],
        _ => vec![(number << 3 | 2) | 0x80, number >> 4, length],
    };
    out.extend_from_slice(content);
    out
}

fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
}

#[test]
fn a_deployment_is_read_with_its_maps_lists_and_zeroes() {
    let labels = bytes(1, &[bytes(1, b"app"), bytes(2, b"web")].concat());
    let port = [vec![3 << 3, 0xd0, 0x3e], bytes(4, b"")].concat();
    let container = [bytes(1, b"web"), bytes(2, b"nginx"), bytes(6, &port), bytes(8, b"")].concat();
    let template = bytes(2, &bytes(2, &container));
    let spec = [vec![1 << 3, 0], bytes(2, &labels), bytes(3, &template), vec![5 << 3, 0]].concat();
    let metadata = [bytes(1, b"web"), bytes(3, b""), bytes(8, b"")].concat();
    let raw = [bytes(1, &metadata), bytes(2, &spec)].concat();
    let expect = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": [
            {"name": "web", "image": "nginx", "ports": [{"containerPort": 8016}], "resources": {}}]}}},
    });
    assert_eq!(decode(&envelope("apps/v1", "Deployment", &raw)).unwrap(), expect);
}

#[test]
fn inlined_messages_bytes_times_and_ports_read_as_json_has_them() {
    let source = bytes(19, &[bytes(1, &bytes(1, b"cfg")), vec![3 << 3, 0xa4, 0x03]].concat());
    let volume = [bytes(1, b"v"), bytes(2, &source)].concat();
    let pod = decode(&envelope("v1", "Pod", &bytes(2, &bytes(1, &volume)))).unwrap();
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "v", "configMap": {"name": "cfg", "defaultMode": 420}}])
    );
    let secret = bytes(2, &[bytes(1, b"pw"), bytes(2, b"hi")].concat());
    assert_eq!(decode(&envelope("v1", "Secret", &secret)).unwrap()["data"], json!({"pw": "aGk="}));
    let target = bytes(4, &[vec![1 << 3, 1], bytes(3, b"http")].concat());
    let service = decode(&envelope("v1", "Service", &bytes(2, &bytes(1, &target)))).unwrap();
    assert_eq!(service["spec"]["ports"], json!([{"targetPort": "http"}]));
    let metadata = bytes(1, &bytes(8, &[1 << 3, 60]));
    let pod = decode(&envelope("v1", "Pod", &metadata)).unwrap();
    assert_eq!(pod["metadata"]["creationTimestamp"], "1970-01-01T00:01:00Z");
}

#[test]
fn broken_bodies_are_refused() {
    assert!(matches!(decode(b"{}"), Err(WireError::Magic)));
    let whole = envelope("v1", "Pod", &bytes(1, &bytes(1, b"web")));
    for cut in 0..whole.len() {
        // Some cuts fall between two fields and leave less, but never more than was sent.
        let _ = decode(&whole[..cut]);
    }
    assert!(matches!(decode(&whole[..whole.len() - 1]), Err(WireError::Short)));
    assert!(matches!(decode(&envelope("v1", "Nonsense", b"")), Err(WireError::Unknown { .. })));
    assert!(decode(&envelope("v1", "Pod", &[0x0b])).is_err());
}

#[test]
fn every_type_a_field_names_is_in_the_table() {
    for (name, fields) in table() {
        for field in fields.values() {
            let known = field.code.strip_prefix('>').is_none_or(|of| table().contains_key(of));
            assert!(known, "{name}.{}: {}", field.name, field.code);
        }
    }
}

#[test]
fn every_resource_can_be_sent_as_protobuf() {
    // The clients of these send JSON.
    let own = |group: &str| {
        !matches!(
            group,
            "apiextensions.k8s.io"
                | "apiregistration.k8s.io"
                | "admissionregistration.k8s.io"
                | "metrics.k8s.io"
        )
    };
    for row in crate::control::apiserver::registry::all().iter().filter(|row| own(row.group)) {
        let name = type_name(&row.api_version(), row.kind);
        assert!(table().contains_key(name.as_str()), "{name}");
    }
}
