//! Taints and tolerations (`k8s.io/component-helpers/scheduling/corev1`).

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether one toleration tolerates one taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.as_deref().unwrap_or_default().to_owned();
    let (key, effect, value) = (text(&toleration.key), text(&toleration.effect), text(&toleration.value));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && value == text(&taint.value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: text(key),
            operator: text(operator),
            value: text(value),
            effect: text(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn keys_values_and_effects_must_fit_and_empty_ones_fit_all() {
        let taint =
            Taint { key: "a".into(), value: Some("1".into()), effect: "NoSchedule".into(), time_added: None };
        assert!(tolerates(&toleration("a", "", "1", ""), &taint));
        assert!(tolerates(&toleration("a", "Exists", "", "NoSchedule"), &taint));
        assert!(tolerates(&toleration("", "Exists", "", ""), &taint));
        assert!(!tolerates(&toleration("a", "Equal", "2", ""), &taint));
        assert!(!tolerates(&toleration("a", "Exists", "", "NoExecute"), &taint));
        assert!(!tolerates(&toleration("b", "Exists", "", ""), &taint));
    }
}
