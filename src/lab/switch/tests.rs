//! What a switch would do, setting by setting, against a golden file; and edits that survive.

use super::*;
use crate::lab::files;
use crate::lab::paths::{Profile, name};

fn made(dir: &std::path::Path) -> (LabDir, Spec, Material) {
    let lab = LabDir::new("one", Some(dir)).unwrap();
    drop(lab.lock().unwrap());
    let material = Material::of(&lab).unwrap();
    let spec = Spec::new("one", 1, Profile::Default, 6443);
    files::apply(&lab, &plan(&spec), &material).unwrap();
    (lab, spec, material)
}

fn with(spec: &Spec, setting: Setting, mode: Mode) -> Spec {
    let mut settings = spec.modes();
    settings.set(setting, mode);
    let mut spec = spec.clone();
    spec.settings = settings.departures_from(spec.profile);
    spec
}

/// A step as it reads with no lab: planned texts alone.
fn readable(step: &Step) -> String {
    let mut text = String::new();
    for change in &step.difference.files {
        let body =
            |file: &Option<crate::lab::plan::PlannedFile>| match file.as_ref().map(|file| &file.contents) {
                None => String::new(),
                Some(crate::lab::plan::Contents::Text(text) | crate::lab::plan::Contents::Template(text)) => {
                    text.clone()
                }
                // By way of JSON, so that enums read as maps and not as YAML tags.
                Some(named) => serde_yaml_ng::to_string(&serde_json::to_value(named).unwrap()).unwrap(),
            };
        let grown = if change.grown { " (where it is)" } else { "" };
        text += &format!("file {}:{}{grown}\n", change.host, change.path().display());
        text += &lines::unified(&body(&change.before), &body(&change.after));
    }
    for change in &step.difference.objects {
        let yaml = |object: &Option<serde_json::Value>| {
            object.as_ref().map(|object| serde_yaml_ng::to_string(object).unwrap()).unwrap_or_default()
        };
        text += &format!("object {}\n", change.name());
        text += &lines::unified(&yaml(&change.before), &yaml(&change.after));
    }
    for phase in step.difference.phases(step.direction) {
        let words = |role: &crate::lab::plan::RoleChange| format!("{:?} {}", role.turn, role.name());
        let objects = phase.objects.iter().map(|change| change.name());
        let files = phase.files.iter().map(|change| format!("{}:{}", change.host, change.path().display()));
        let all: Vec<String> =
            objects.chain(files).chain(phase.roles.iter().map(|role| words(role))).collect();
        text += &format!("phase {}\n", all.join(", "));
    }
    text
}

#[test]
fn each_settings_difference_is_the_golden_one() {
    let mut now = String::new();
    for (path, row) in rows() {
        let base = Spec::new("minilab", 1, Profile::Default, 6443);
        let open = with(&base, row.id, Mode::Insecure);
        let switch = Switch::to(&open, &with(&open, row.id, Mode::Hardened).modes());
        now += &format!("=== harden {}.{}\n", path.name, row.name);
        now += &switch.steps.iter().map(readable).collect::<String>();
    }
    let base = Spec::new("minilab", 1, Profile::Default, 6443);
    let switch = Switch::to(&base, &Settings::of(Profile::Hardened));
    now += "=== from the default profile to hardened\n";
    now += &switch.steps.iter().map(readable).collect::<String>();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lab/switch/switches.golden");
    if std::env::var_os("MINILAB_GOLDEN").is_some() {
        std::fs::write(golden, &now).unwrap();
    }
    let kept = std::fs::read_to_string(golden).unwrap();
    assert!(now == kept, "a switch changed; `just golden` rewrites {golden}, then read its difference");
}

#[test]
fn a_switch_to_another_profiles_settings_ends_in_them() {
    for (from, to) in [
        (Profile::Default, Profile::Hardened),
        (Profile::Hardened, Profile::Default),
        (Profile::Flags, Profile::Insecure),
    ] {
        let switch = Switch::to(&Spec::new("minilab", 1, from, 6443), &Settings::of(to));
        let reached = switch.spec.modes();
        assert!(
            rows().all(|(_, row)| reached.mode(row.id) == Settings::of(to).mode(row.id)),
            "{from} to {to}"
        );
    }
}

#[test]
fn what_closes_comes_before_what_opens() {
    let spec = Spec::new("minilab", 1, Profile::Default, 6443);
    let mut wanted = spec.modes();
    wanted.set(Setting::ToKubeletCa, Mode::Hardened);
    wanted.set(Setting::KubeletReadOnlyPort, Mode::Insecure);
    let switch = Switch::to(&spec, &wanted);
    let directions: Vec<Direction> = switch.steps.iter().map(|step| step.direction).collect();
    assert_eq!(directions, [Direction::Hardening, Direction::Softening]);
    assert_eq!(switch.changed.len(), 2);
    assert!(Switch::to(&spec, &spec.modes()).steps.is_empty());
}

#[test]
fn a_learners_line_survives_a_switch_of_the_same_file_and_a_line_of_the_settings_own_is_custom() {
    let temp = tempfile::tempdir().unwrap();
    let (lab, spec, material) = made(temp.path());
    let config = lab.host("node-1").join("var/lib/kubelet/config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("maxPods: 7\n{text}")).unwrap();
    let found = |setting| look(&lab, &spec, &[setting]).unwrap().remove(0);
    let untouched = |setting| found(setting).edited.is_empty();
    assert!(untouched(Setting::KubeletReadOnlyPort) && untouched(Setting::KubeletAuthorization));
    let mut wanted = spec.modes();
    wanted.set(Setting::KubeletReadOnlyPort, Mode::Insecure);
    let shown = Switch::to(&spec, &wanted).show(&lab).unwrap();
    assert!(shown.contains("+readOnlyPort: 10255"), "{shown}");
    let change = &Switch::to(&spec, &wanted).steps[0].difference.files;
    let change = change.iter().find(|change| change.host == "node-1").unwrap();
    let tree = files::Tree::of(&lab, "node-1").unwrap();
    let rewrite = super::files::rewrite(&tree, change, &material).unwrap().unwrap();
    let after = rewrite.after.clone().unwrap();
    assert!(after.starts_with("maxPods: 7\n") && after.contains("readOnlyPort: 10255"));
    assert!(rewrite.overwritten.is_empty());
    assert!(text.contains("mode: Webhook"));
    std::fs::write(&config, text.replace("mode: Webhook", "mode: AlwaysAllow")).unwrap();
    let by_hand = found(Setting::KubeletAuthorization);
    assert_eq!((by_hand.mode, by_hand.edited.len()), (Some(Mode::Insecure), 1));
    assert!(untouched(Setting::KubeletReadOnlyPort));
    std::fs::write(&config, text.replace("mode: Webhook", "mode: Sometimes")).unwrap();
    let by_hand = found(Setting::KubeletAuthorization);
    assert_eq!((by_hand.mode, by_hand.edited.len()), (None, 1));
    // What keeps its mode is put back as it was.
    let mended = Switch::to(&spec, &spec.modes()).mending(&[by_hand]);
    assert!(mended.changed.is_empty() && !mended.is_empty());
    let shown = mended.show(&lab).unwrap();
    assert!(shown.contains("-  mode: Sometimes") && shown.contains("+  mode: Webhook"), "{shown}");
}

#[test]
fn nothing_is_custom_in_a_lab_nobody_touched() {
    let temp = tempfile::tempdir().unwrap();
    let (lab, spec, _) = made(temp.path());
    let all: Vec<Setting> = rows().map(|(_, row)| row.id).collect();
    let custom: Vec<String> = look(&lab, &spec, &all)
        .unwrap()
        .into_iter()
        .filter(|live| !live.edited.is_empty())
        .map(|live| name(live.setting))
        .collect();
    assert!(custom.is_empty(), "{custom:?}");
}
