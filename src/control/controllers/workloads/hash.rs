//! The hash in `pod-template-hash` and `controller-revision-hash`.
//!
//! Upstream hashes a Go dump of the template, which no other program can reproduce and nothing may
//! rely on; here it is FNV-1a over the template's JSON, written in upstream's alphabet.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Letters and digits that spell no words (`k8s.io/apimachinery/pkg/util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A stable short name of a template; `collisions` tells apart two that met in one name.
pub fn of_template(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    let salt = collisions.map(i32::to_le_bytes).unwrap_or_default();
    let salted = json.iter().chain(if collisions.is_some() { &salt[..] } else { &[] });
    let hash =
        salted.fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_stable_and_tells_templates_apart() {
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_value(
                serde_json::json!({"spec": {"containers": [{"name": "c", "image": image}]}}),
            )
            .unwrap()
        };
        assert_eq!(of_template(&template("a"), None), of_template(&template("a"), None));
        assert_ne!(of_template(&template("a"), None), of_template(&template("b"), None));
        assert_ne!(of_template(&template("a"), None), of_template(&template("a"), Some(1)));
        assert!(of_template(&template("a"), None).bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
