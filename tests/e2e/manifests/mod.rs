//! Ten manifests in the shape of well-known ones, applied unchanged to one lab, each in a namespace of its own.
//!
//! A guestbook, a StatefulSet with volumes, a blog with its database, a CronJob, Jobs, a kind of one's own with
//! its operator, NetworkPolicies, a quota, a DaemonSet, and an application as a platform team ships it.

use std::time::Duration;

use crate::kit::{Lab, eventually};

/// Under the load of other tests.
const PATIENCE: &str = "--timeout=120s";
const LONG: Duration = Duration::from_secs(120);

/// What is applied, and what must come to stand: by kubectl's `rollout status`, or by `wait` where a condition is
/// named.
const MANIFESTS: &[(&str, &str, &[&str])] = &[
    (
        "guestbook",
        include_str!("guestbook.yaml"),
        &["deploy/redis-leader", "deploy/redis-follower", "deploy/frontend"],
    ),
    ("statefulset", include_str!("statefulset.yaml"), &["statefulset/web"]),
    ("blog", include_str!("blog.yaml"), &["deploy/blog-mysql", "deploy/blog"]),
    ("cronjob", include_str!("cronjob.yaml"), &[]),
    ("jobs", include_str!("jobs.yaml"), &["condition=Complete job/indexed", "condition=Complete job/policy"]),
    ("operator", include_str!("operator.yaml"), &["deploy/greeter"]),
    ("network-policy", include_str!("network-policy.yaml"), &["deploy/db", "deploy/web", "deploy/stranger"]),
    ("quota", include_str!("quota.yaml"), &["deploy/team-app"]),
    ("log-agent", include_str!("log-agent.yaml"), &["daemonset/fluentd"]),
    ("shop", include_str!("shop.yaml"), &["deploy/shop"]),
];

fn namespace(name: &str) -> String {
    // The operator's manifest makes its own, as most do.
    if name == "operator" { "greeter-system".into() } else { format!("m-{name}") }
}

fn apply(lab: &Lab, name: &str, text: &str) {
    let namespace = namespace(name);
    if name != "operator" {
        lab.kubectl(&["create", "namespace", &namespace]).ok();
    }
    let file = lab.home.path().join(format!("{name}.yaml"));
    std::fs::write(&file, text).unwrap();
    let words = ["apply", "-f", file.to_str().unwrap()];
    match name {
        "operator" => lab.kubectl(&words).ok(),
        _ => lab.kubectl(&[&["-n", &namespace], &words[..]].concat()).ok(),
    };
}

#[test]
fn ten_well_known_manifests_apply_unchanged_and_come_to_stand() {
    let lab = Lab::up();
    for (name, text, _) in MANIFESTS {
        apply(&lab, name, text);
    }
    for (name, _, wanted) in MANIFESTS {
        let namespace = namespace(name);
        for one in *wanted {
            let words = match one.split_once(' ') {
                Some((condition, what)) => {
                    vec!["wait".to_owned(), format!("--for={condition}"), what.to_owned()]
                }
                None => vec!["rollout".into(), "status".into(), (*one).to_owned()],
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            lab.kubectl(&[&["-n", &namespace, PATIENCE], &words[..]].concat()).ok();
        }
    }
    the_cronjob_gives_jobs(&lab);
    the_operator_works(&lab);
    the_policy_keeps_strangers_out(&lab);
    let quota = lab.object(&["quota", "team", "-n", "m-quota"])["status"]["used"].clone();
    assert_eq!((&quota["pods"], &quota["count/deployments.apps"]), (&"3".into(), &"1".into()), "{quota}");
    let bound = lab.object(&["pvc", "-n", "m-statefulset"]);
    let claims: Vec<_> = bound["items"].as_array().into_iter().flatten().collect();
    assert!(
        claims.len() == 2 && claims.iter().all(|claim| claim["status"]["phase"] == "Bound"),
        "{claims:?}"
    );
    let scaler = lab.object(&["hpa", "shop", "-n", "m-shop"]);
    assert_eq!(scaler["spec"]["maxReplicas"], 4);
}

fn the_cronjob_gives_jobs(lab: &Lab) {
    lab.kubectl(&["-n", "m-cronjob", "create", "job", "now", "--from=cronjob/hello"]).ok();
    lab.kubectl(&["-n", "m-cronjob", PATIENCE, "wait", "--for=condition=Complete", "job/now"]).ok();
    let said = lab.kubectl(&["-n", "m-cronjob", "logs", "job/now"]).ok();
    assert!(said.ends_with("Hello from the Kubernetes cluster\n"), "{said}");
}

fn the_operator_works(lab: &Lab) {
    let greeting = "apiVersion: example.com/v1\nkind: Greeting\n\
                    metadata: {name: hello, namespace: greeter-system}\nspec: {whom: moon, times: 2}\n";
    lab.apply(greeting);
    let ready = "--for=jsonpath={.status.phase}=Ready";
    lab.kubectl(&["-n", "greeter-system", PATIENCE, "wait", ready, "greeting/hello"]).ok();
    let text = ["-n", "greeter-system", "get", "configmap", "hello", "-o", "jsonpath={.data.text}"];
    assert_eq!(lab.kubectl(&text).ok(), "Hello, moon!\nHello, moon!");
    let wrong = lab.kubectl(&[
        "-n",
        "greeter-system",
        "patch",
        "greeting",
        "hello",
        "--type=merge",
        "-p",
        r#"{"spec": {"whom": "world", "times": 9}}"#,
    ]);
    assert!(wrong.fails_with(1).contains("the world is greeted at most five times"));
    lab.kubectl(&["-n", "greeter-system", "delete", "greeting", "hello"]).ok();
    eventually(LONG, "what it owned goes with it", || match lab.kubectl(&text).code {
        0 => Err("its ConfigMap is still there".to_owned()),
        _ => Ok(()),
    });
}

fn the_policy_keeps_strangers_out(lab: &Lab) {
    let reach = |from: &str| {
        let script = "import socket; socket.create_connection(('db', 5432), 2)";
        lab.kubectl(&["-n", "m-network-policy", "exec", from, "--", "python3", "-c", script]).code
    };
    eventually(LONG, "the frontend reaches the database", || match reach("deploy/web") {
        0 => Ok(()),
        code => Err(format!("exit {code}")),
    });
    assert_ne!(reach("deploy/stranger"), 0, "a stranger reaches the database");
}
