//! The live switch: what `harden` and `soften` change, what they leave alone, and what a client notices.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{Lab, eventually, process, random, rounds};

fn switch(lab: &Lab, verb: &str, targets: &[&str]) -> Value {
    let words = [&[verb], targets, &["-o", "json"]].concat();
    serde_json::from_str(&lab.minilab(&words).ok()).unwrap()
}

fn kubelet_config(lab: &Lab) -> String {
    lab.on("node-1", &["cat", "/var/lib/kubelet/config.yaml"])
}

fn port_answers(lab: &Lab, url: &str) -> bool {
    let text = lab.on("control", &["attacker", "http", url]);
    serde_json::from_str::<Value>(&text).unwrap()["status"] == 200
}

#[test]
fn a_setting_is_switched_live_and_softened_to_the_byte() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    let container = |lab: &Lab| lab.object(&["pod", "web"])["status"]["containerStatuses"][0].clone();
    let (before, config) = (container(&lab), kubelet_config(&lab));
    let port = "kubelet-access.read-only-port";
    let softened = switch(&lab, "soften", &[port]);
    assert_eq!(softened["changed"][0]["to"], "insecure", "{softened}");
    assert_eq!(softened["restarted"], serde_json::json!(["kubelet@node-1", "kubelet@node-2"]));
    assert!(port_answers(&lab, "http://192.0.2.11:10255/healthz"));
    let hardened = switch(&lab, "harden", &[port]);
    assert!(hardened["difference"].as_str().unwrap().contains("-readOnlyPort: 10255"), "{hardened}");
    assert!(!port_answers(&lab, "http://192.0.2.11:10255/healthz"));
    assert_eq!(kubelet_config(&lab), config);
    assert_eq!(container(&lab)["containerID"], before["containerID"]);
    assert_eq!(container(&lab)["restartCount"], 0);
    assert_eq!(switch(&lab, "harden", &[port])["changed"], serde_json::json!([]));
}

#[test]
fn logs_break_and_heal_as_upstreams_would_with_the_kubelets_certificates() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    switch(&lab, "harden", &["apiserver-to-kubelet.ca"]);
    let refused = lab.kubectl(&["logs", "web"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("x509: cannot validate certificate for 192.0.2.1"), "{}", refused.stderr);
    switch(&lab, "harden", &["apiserver-to-kubelet"]);
    assert_eq!(lab.kubectl(&["logs", "web"]).ok(), "real\n");
    assert_eq!(lab.kubectl(&["exec", "web", "--", "echo", "hi"]).ok(), "hi\n");
    switch(&lab, "soften", &["apiserver-to-kubelet"]);
    assert_eq!(lab.kubectl(&["logs", "web"]).ok(), "real\n");
}

#[test]
fn the_machines_port_refuses_nobody_while_everything_switches_and_nothing_written_is_lost() {
    let lab = Lab::up();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..20 {
                let name = format!("written-{number}");
                eventually(Duration::from_secs(60), "a write", || {
                    let made = lab.kubectl(&["create", "configmap", &name]);
                    assert!(!made.stderr.contains("refused"), "{}", made.stderr);
                    // A request that an ending API server cut may have been done.
                    match made.code == 0 || made.stderr.contains("already exists") {
                        true => Ok(()),
                        false => Err(made.stderr),
                    }
                });
            }
        });
        let all = ["kubelet-access", "apiserver-to-kubelet", "apiserver-access", "node-to-apiserver"];
        switch(&lab, "harden", &all);
        switch(&lab, "soften", &["apiserver-access"]);
        switch(&lab, "harden", &all);
        writer.join().unwrap();
    });
    let names = lab.kubectl(&["get", "configmaps", "-o", "name"]).ok();
    assert_eq!(names.matches("configmap/written-").count(), 20, "{names}");
}

#[test]
fn an_edit_of_the_learners_is_kept_and_named() {
    let lab = Lab::up();
    let config = "/var/lib/kubelet/config.yaml";
    lab.on("node-1", &["sed", "-i", "1i # mine", config]);
    switch(&lab, "soften", &["kubelet-access.read-only-port"]);
    assert!(
        kubelet_config(&lab).starts_with("# mine\n") && kubelet_config(&lab).contains("readOnlyPort: 10255")
    );
    lab.on("node-1", &["sed", "-i", "s/readOnlyPort: 10255/readOnlyPort: 10256/", config]);
    let custom = |name: &str| {
        let all: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
        let path =
            all.as_array().unwrap().iter().find(|path| path["name"] == "kubelet-access").unwrap().clone();
        let rows = path["settings"].as_array().unwrap().clone();
        rows.iter().find(|row| row["name"] == name).unwrap()["mode"] == "custom"
    };
    assert!(custom("read-only-port") && !custom("authorization"));
    let hardened = switch(&lab, "harden", &["kubelet-access.read-only-port"]);
    let overwritten = hardened["overwritten"].to_string();
    assert!(overwritten.contains("node-1:/var/lib/kubelet/config.yaml: readOnlyPort: 10256"), "{hardened}");
    assert!(!custom("read-only-port") && kubelet_config(&lab).starts_with("# mine\n"));
}

#[test]
fn a_switch_that_cannot_be_is_undone_and_says_why() {
    let lab = Lab::up();
    let manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    // Good alone; together with the file that the hardened setting brings the API server refuses it.
    // Among the last flags, far from those that the setting owns.
    let edit = "sed -i 's/^    - --tls-cert-file=.*$/&\\n    - --anonymous-auth=true/' \"$0\"";
    lab.on("control", &["sh", "-c", edit, manifest]);
    let serving = || {
        let ready = lab.kubectl(&["get", "--raw", "/readyz"]);
        if ready.code == 0 { Ok(()) } else { Err(ready.stderr) }
    };
    eventually(Duration::from_secs(30), "the edited API server serves", serving);
    let edited = lab.on("control", &["cat", manifest]);
    assert!(edited.contains("--anonymous-auth=true"), "{edited}");
    let failed = lab.minilab(&["harden", "apiserver-access.anonymous"]).fails_with(1);
    assert!(failed.contains("everything was put back as it was"), "{failed}");
    assert_eq!(lab.on("control", &["cat", manifest]), edited);
    eventually(Duration::from_secs(30), "the API server serves again", serving);
    let paths: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
    let access = paths.as_array().unwrap().iter().find(|path| path["name"] == "apiserver-access").unwrap();
    let rows = access["settings"].as_array().unwrap();
    assert_eq!(rows.iter().find(|row| row["name"] == "anonymous").unwrap()["mode"], "partial");
}

#[test]
fn what_a_lab_came_up_with_is_nothing_left_to_switch() {
    let lab = Lab::new();
    lab.minilab(&["up", "--profile", "insecure"]).ok();
    lab.run("web", "echo real; exec sleep 600");
    assert_eq!(lab.kubectl(&["logs", "web"]).ok(), "real\n");
    assert_eq!(lab.minilab(&["soften", "--all", "--show"]).ok(), "");
    let paths = ["kubelet-access", "apiserver-to-kubelet", "apiserver-access", "node-to-apiserver"];
    switch(&lab, "harden", &[&paths[..], &["pod-to-apiserver", "components-to-apiserver"]].concat());
    assert_eq!(lab.kubectl(&["logs", "web"]).ok(), "real\n");
    assert_eq!(lab.kubectl(&["get", "nodes", "-o", "name"]).ok().lines().count(), 2);
}

/// Follows ConfigMaps as a reflector does, from watch to watch by the last revision, until this one is seen.
fn follow(lab: &Lab, from: &str, last: &str) -> Vec<String> {
    let (mut revision, mut added) = (from.to_owned(), Vec::new());
    eventually(Duration::from_secs(120), "the last event", || {
        let path = format!(
            "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=5&resourceVersion={revision}"
        );
        for line in lab.kubectl(&["get", "--raw", &path]).stdout.lines() {
            // A line that was cut comes again.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            assert_ne!(event["type"], "ERROR", "{event}");
            let meta = &event["object"]["metadata"];
            revision = meta["resourceVersion"].as_str().unwrap().to_owned();
            added.extend(meta["name"].as_str().filter(|_| event["type"] == "ADDED").map(str::to_owned));
        }
        if added.iter().any(|name| name == last) { Ok(()) } else { Err(format!("{added:?}")) }
    });
    added
}

#[test]
fn who_watches_through_a_switch_sees_every_event_once() {
    let lab = Lab::up();
    let list = lab.kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps?limit=1"]).ok();
    let list: Value = serde_json::from_str(&list).unwrap();
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let names: Vec<String> = (0..12).map(|number| format!("seen-{number}")).collect();
    let added = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| follow(&lab, from, "seen-11"));
        let switcher = scope.spawn(|| {
            // Both turn the API server.
            switch(&lab, "harden", &["pod-to-apiserver.external-ips"]);
            switch(&lab, "soften", &["pod-to-apiserver.external-ips"]);
        });
        for name in &names {
            eventually(Duration::from_secs(60), "a write", || {
                let made = lab.kubectl(&["create", "configmap", name]);
                assert!(!made.stderr.contains("refused"), "{}", made.stderr);
                match made.code == 0 || made.stderr.contains("already exists") {
                    true => Ok(()),
                    false => Err(made.stderr),
                }
            });
        }
        switcher.join().unwrap();
        watcher.join().unwrap()
    });
    let seen: Vec<&String> = added.iter().filter(|name| name.starts_with("seen-")).collect();
    assert_eq!(seen, names.iter().collect::<Vec<_>>());
}

#[test]
fn a_switch_killed_half_way_is_undone_by_the_next() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    let config = kubelet_config(&lab);
    for _ in 0..rounds(20) {
        // Kubelets turn first, the API server after them.
        let mut killed = lab.command(crate::kit::lab::binary());
        let mut killed = killed
            .args(["harden", "apiserver-to-kubelet", "kubelet-access"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random() % 900));
        process::kill(killed.id() as i32);
        killed.wait().unwrap();
        switch(&lab, "soften", &["apiserver-to-kubelet"]);
        switch(&lab, "soften", &["kubelet-access.grants"]);
        assert_eq!(kubelet_config(&lab), config);
        let paths: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
        assert!(paths.as_array().unwrap().iter().all(|path| path["mode"] == path["default"]), "{paths:#}");
        eventually(Duration::from_secs(30), "the real log", || {
            let ran = lab.kubectl(&["logs", "web"]);
            if ran.stdout == "real\n" { Ok(()) } else { Err(ran.stderr) }
        });
    }
}

#[test]
fn what_hands_did_to_an_object_is_seen_and_put_back() {
    let lab = Lab::up();
    let name = "pod-to-apiserver.ca";
    let mode = || {
        let all: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
        let path =
            all.as_array().unwrap().iter().find(|path| path["name"] == "pod-to-apiserver").unwrap().clone();
        path["settings"].as_array().unwrap().iter().find(|row| row["name"] == "ca").unwrap()["mode"].clone()
    };
    assert_eq!(mode(), "hardened");
    let patch = |text: &str| {
        lab.kubectl(&["-n", "minilab-system", "patch", "deployment", "phone-home", "-p", text]).ok()
    };
    patch(r#"{"spec": {"template": {"spec": {"nodeSelector": {"disk": "none"}}}}}"#);
    assert_eq!(mode(), "custom");
    let mended = switch(&lab, "harden", &[name]);
    assert_eq!(mended["changed"], serde_json::json!([]));
    assert!(mended["overwritten"].to_string().contains("Deployment/minilab-system/phone-home"), "{mended}");
    assert_eq!(mode(), "hardened");
    let spec = lab.object(&["-n", "minilab-system", "deployment", "phone-home"])["spec"].clone();
    assert!(spec["template"]["spec"]["nodeSelector"].is_null(), "{spec}");
    // A rule is out of the roles made of others when the switch says it is done.
    switch(&lab, "harden", &["apiserver-proxy.grants"]);
    let role = |name: &str| lab.object(&["clusterrole", name])["rules"].to_string();
    assert!(!role("edit").contains("services/proxy") && !role("admin").contains("services/proxy"));
    switch(&lab, "soften", &["apiserver-proxy.grants"]);
    assert!(role("edit").contains("services/proxy") && role("admin").contains("services/proxy"));
}
