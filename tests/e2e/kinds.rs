//! Kinds that do something: Jobs, StatefulSets with volumes, budgets, quotas, priorities. One lab for all.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{Lab, clients, eventually};

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn kinds_that_newcomers_manifests_have_do_what_they_say() {
    let lab = Lab::up();
    jobs_end(&lab);
    a_schedule_makes_jobs(&lab);
    a_stateful_set_keeps_names_order_and_data(&lab);
    a_budget_holds_evictions_back(&lab);
    a_namespace_has_bounds(&lab);
    important_pods_get_room(&lab);
    neighbours_matter(&lab);
    old_and_new_templates_come_back(&lab);
    what_is_used_is_told_and_followed(&lab);
}

fn until(lab: &Lab, arguments: &[&str], expect: &str) {
    eventually(PATIENCE, &format!("kubectl {} says {expect:?}", arguments.join(" ")), || {
        let ran = lab.kubectl(arguments);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        if ran.stdout.trim() == expect { Ok(()) } else { Err(said) }
    });
}

fn jobs_end(lab: &Lab) {
    for kubectl in clients::both() {
        lab.kubectl_of(kubectl, &["create", "job", "hello", "--image=minilab/toolbox", "--", "echo", "hi"])
            .ok();
        lab.kubectl(&["wait", "--for=condition=Complete", "job/hello", "--timeout=120s"]).ok();
        assert_eq!(lab.kubectl_of(kubectl, &["logs", "job/hello"]).ok(), "hi\n");
        let table = lab.kubectl_of(kubectl, &["get", "job", "hello", "--no-headers"]).ok();
        assert!(table.contains("Complete") && table.contains("1/1"), "{table}");
        lab.kubectl_of(kubectl, &["delete", "job", "hello"]).ok();
    }
    lab.apply(JOBS);
    lab.kubectl(&["wait", "--for=condition=Complete", "job/indexed", "--timeout=120s"]).ok();
    let indexed = lab.object(&["job", "indexed"]);
    assert_eq!(
        (&indexed["status"]["completedIndexes"], &indexed["status"]["succeeded"]),
        (&"0-2".into(), &3.into())
    );
    lab.kubectl(&["wait", "--for=condition=Failed", "job/broken", "--timeout=120s"]).ok();
    let broken = lab.object(&["job", "broken"]);
    let reason = condition(&broken, "Failed")["reason"].clone();
    assert_eq!((reason, &broken["status"]["failed"]), ("PodFailurePolicy".into(), &1.into()));
    // One whose time is over goes with its pods.
    until(lab, &["get", "jobs,pods", "-l", "app=brief", "-o", "name"], "");
    let refused =
        lab.kubectl(&["patch", "job", "indexed", "--type=merge", "-p", r#"{"spec":{"completions":9}}"#]);
    assert!(refused.fails_with(1).contains("spec.completions: Invalid value: 9: field is immutable"));
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array().unwrap();
    all.iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}

const JOBS: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: indexed}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: minilab/toolbox, command: [sh, -c, 'test \"$(hostname)\" = indexed-$JOB_COMPLETION_INDEX']}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: minilab/toolbox, command: [sh, -c, exit 42]}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: brief, labels: {app: brief}}
spec:
  ttlSecondsAfterFinished: 0
  template:
    metadata: {labels: {app: brief}}
    spec: {restartPolicy: Never, containers: [{name: c, image: minilab/toolbox, command: ['true']}]}
";

fn a_schedule_makes_jobs(lab: &Lab) {
    let schedule = "--schedule=@every 1s";
    lab.kubectl(&["create", "cronjob", "tick", "--image=minilab/toolbox", schedule, "--", "date"]).ok();
    eventually(PATIENCE, "the CronJob has made a Job that ended", || {
        let cron = lab.object(&["cronjob", "tick"]);
        cron["status"]["lastSuccessfulTime"].as_str().map(drop).ok_or(cron["status"].to_string())
    });
    lab.kubectl(&["patch", "cronjob", "tick", "-p", r#"{"spec":{"suspend":true}}"#]).ok();
    lab.kubectl(&["create", "job", "by-hand", "--from=cronjob/tick"]).ok();
    lab.kubectl(&["wait", "--for=condition=Complete", "job/by-hand", "--timeout=120s"]).ok();
    lab.kubectl(&["delete", "cronjob", "tick"]).ok();
    let bad = lab.kubectl(&["create", "cronjob", "bad", "--image=x", "--schedule=* * *"]).fails_with(1);
    assert!(bad.contains("expected exactly 5 fields, found 3: [* * *]"), "{bad}");
}

const DATABASE: &str = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: db, image: minilab/toolbox, command: [sh, -c, 'hostname >> /data/names; sleep infinity'], volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
";

fn a_stateful_set_keeps_names_order_and_data(lab: &Lab) {
    lab.apply(DATABASE);
    lab.kubectl(&["rollout", "status", "statefulset/db", "--timeout=120s"]).ok();
    let made = lab.object(&["pods", "-l", "app=db", "--sort-by=.metadata.creationTimestamp"]);
    let names: Vec<&str> =
        made["items"].as_array().unwrap().iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["db-0", "db-1"]);
    let claims = lab.kubectl(&["get", "pvc", "--no-headers"]).ok();
    assert_eq!(
        claims.lines().filter(|line| line.contains("Bound") && line.contains("standard")).count(),
        2,
        "{claims}"
    );
    // A pod that comes back finds what it left.
    let uid = lab.object(&["pod", "db-1"])["metadata"]["uid"].clone();
    lab.kubectl(&["delete", "pod", "db-1"]).ok();
    eventually(PATIENCE, "db-1 is made anew", || {
        let pod = lab.kubectl(&["get", "pod", "db-1", "-o", "jsonpath={.metadata.uid}"]).stdout;
        if pod.is_empty() || uid == pod.as_str() { Err(pod) } else { Ok(()) }
    });
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/db-1", "--timeout=120s"]).ok();
    until(lab, &["exec", "db-1", "--", "cat", "/data/names"], "db-1\ndb-1");
    lab.kubectl(&["set", "env", "statefulset/db", "A=b"]).ok();
    lab.kubectl(&["rollout", "status", "statefulset/db", "--timeout=120s"]).ok();
    let history = lab.kubectl(&["rollout", "history", "statefulset/db"]).ok();
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    lab.kubectl(&["rollout", "undo", "statefulset/db"]).ok();
    lab.kubectl(&["rollout", "status", "statefulset/db", "--timeout=120s"]).ok();
    assert!(lab.object(&["statefulset", "db"])["spec"]["template"]["spec"]["containers"][0]["env"].is_null());
    lab.kubectl(&["scale", "statefulset/db", "--replicas=1"]).ok();
    until(lab, &["get", "pods", "-l", "app=db", "-o", "name"], "pod/db-0");
    lab.kubectl(&["delete", "statefulset,service", "db"]).ok();
    lab.kubectl(&["delete", "pvc", "--all"]).ok();
    until(lab, &["get", "pv", "-o", "name"], "");
}

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: minilab/toolbox, command: [sleep, infinity]}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: shop}
spec: {minAvailable: 2, selector: {matchLabels: {app: shop}}}
";

fn a_budget_holds_evictions_back(lab: &Lab) {
    lab.apply(SHOP);
    lab.kubectl(&["rollout", "status", "deployment/shop", "--timeout=120s"]).ok();
    until(
        lab,
        &["get", "pdb", "shop", "-o", "jsonpath={.status.currentHealthy}/{.status.disruptionsAllowed}"],
        "2/0",
    );
    let pod = lab
        .kubectl(&[
            "get",
            "pods",
            "-l",
            "app=shop",
            "-o",
            "jsonpath={.items[0].metadata.name} {.items[0].spec.nodeName}",
        ])
        .ok();
    let (_, node) = pod.split_once(' ').unwrap();
    let drain = ["drain", node, "--ignore-daemonsets", "--pod-selector=app=shop", "--timeout=3s"];
    let held = lab.kubectl(&drain).fails_with(1);
    assert!(held.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{held}");
    lab.kubectl(&["patch", "pdb", "shop", "--type=merge", "-p", r#"{"spec":{"minAvailable":1}}"#]).ok();
    let drained = lab
        .kubectl(&["drain", node, "--ignore-daemonsets", "--pod-selector=app=shop", "--timeout=120s"])
        .ok();
    assert!(drained.contains("evicted"), "{drained}");
    lab.kubectl(&["uncordon", node]).ok();
    lab.kubectl(&["delete", "deployment,pdb", "shop"]).ok();
}

const BOUNDS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota, namespace: team}
spec: {hard: {pods: '1', requests.cpu: 500m, configmaps: '2'}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: bounds, namespace: team}
spec: {limits: [{type: Container, defaultRequest: {cpu: 100m}, default: {cpu: 200m}, max: {cpu: 300m}}]}
";

fn a_namespace_has_bounds(lab: &Lab) {
    lab.apply(BOUNDS);
    until(lab, &["-n", "team", "get", "quota", "quota", "-o", "jsonpath={.status.used.configmaps}"], "1");
    let run =
        ["-n", "team", "run", "one", "--image=minilab/toolbox", "--restart=Never", "--", "sleep", "infinity"];
    lab.kubectl(&run).ok();
    let one = lab.object(&["-n", "team", "pod", "one"]);
    assert_eq!(one["spec"]["containers"][0]["resources"]["limits"]["cpu"], "200m");
    let mut two = run;
    two[3] = "two";
    assert_eq!(
        lab.kubectl(&two).fails_with(1),
        "Error from server (Forbidden): pods \"two\" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=1, limited: pods=1\n"
    );
    let large = r#"{"spec":{"containers":[{"name":"big","image":"i","resources":{"limits":{"cpu":"1"}}}]}}"#;
    let big = ["-n", "team", "run", "big", "--image=i", "--overrides", large];
    let refused = lab.kubectl(&big).fails_with(1);
    assert!(refused.contains("maximum cpu usage per Container is 300m, but limit is 1"), "{refused}");
    lab.kubectl(&["-n", "team", "delete", "pod", "one", "--now"]).ok();
    until(lab, &["-n", "team", "get", "quota", "quota", "-o", "jsonpath={.status.used.pods}"], "0");
    lab.kubectl(&["delete", "namespace", "team", "--wait=false"]).ok();
}

fn asks_for_all(name: &str, class: &str, cpus: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  {class}
  terminationGracePeriodSeconds: 0
  nodeSelector: {{kubernetes.io/hostname: node-1}}
  containers: [{{name: c, image: minilab/toolbox, command: [sleep, infinity], resources: {{requests: {{cpu: '{cpus}'}}}}}}]
"
    )
}

fn important_pods_get_room(lab: &Lab) {
    lab.kubectl(&["create", "priorityclass", "high", "--value=1000"]).ok();
    let cpus = lab.object(&["node", "node-1"])["status"]["allocatable"]["cpu"].as_str().unwrap().to_owned();
    let most = format!(
        "{}m",
        cpus.trim_end_matches('m').parse::<u32>().unwrap() * if cpus.ends_with('m') { 1 } else { 1000 } * 6
            / 10
    );
    lab.apply(&asks_for_all("low", "", &most));
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/low", "--timeout=120s"]).ok();
    lab.apply(&asks_for_all("waits", "", &most));
    until(
        lab,
        &["get", "pod", "waits", "-o", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}"],
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector. no new claims \
         to deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption \
         is not helpful for scheduling.",
    );
    lab.kubectl(&["delete", "pod", "waits"]).ok();
    lab.apply(&asks_for_all("urgent", "priorityClassName: high", &most));
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/urgent", "--timeout=120s"]).ok();
    until(lab, &["get", "pod", "low", "--ignore-not-found", "-o", "name"], "");
    lab.kubectl(&["delete", "pod", "urgent", "--now"]).ok();
}

const APART: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: apart}
spec:
  replicas: 3
  selector: {matchLabels: {app: apart}}
  template:
    metadata: {labels: {app: apart}}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: apart}}}
      containers: [{name: c, image: minilab/toolbox, command: [sleep, infinity]}]
";

fn neighbours_matter(lab: &Lab) {
    lab.apply(APART);
    let nodes = "jsonpath={range .items[*]}{.spec.nodeName} {end}";
    eventually(PATIENCE, "two of three run apart", || {
        let said = lab.kubectl(&["get", "pods", "-l", "app=apart", "-o", nodes]).stdout;
        let mut where_to: Vec<&str> = said.split_whitespace().collect();
        where_to.sort_unstable();
        if where_to == ["node-1", "node-2"] { Ok(()) } else { Err(said) }
    });
    eventually(PATIENCE, "the third is told why", || {
        let said = lab
            .kubectl(&[
                "get",
                "events",
                "--field-selector=reason=FailedScheduling",
                "-o",
                "jsonpath={..message}",
            ])
            .stdout;
        let why = "2 node(s) didn't match pod anti-affinity rules";
        if said.contains(why) { Ok(()) } else { Err(said) }
    });
    lab.kubectl(&["delete", "deployment", "apart"]).ok();
}

fn old_and_new_templates_come_back(lab: &Lab) {
    let daemon = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: minilab/toolbox, command: [sleep, infinity]}]}
";
    lab.apply(daemon);
    lab.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=120s"]).ok();
    lab.kubectl(&["set", "env", "daemonset/agent", "A=b"]).ok();
    lab.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=120s"]).ok();
    lab.kubectl(&["rollout", "undo", "daemonset/agent"]).ok();
    lab.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=120s"]).ok();
    assert!(
        lab.object(&["daemonset", "agent"])["spec"]["template"]["spec"]["containers"][0]["env"].is_null()
    );
    lab.kubectl(&["delete", "daemonset", "agent"]).ok();
}

const CROWD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd}
spec:
  selector: {matchLabels: {app: crowd}}
  template:
    metadata: {labels: {app: crowd}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: minilab/toolbox, command: [sleep, infinity], resources: {requests: {cpu: 100m}}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: crowd}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: crowd}
  minReplicas: 2
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
";

fn what_is_used_is_told_and_followed(lab: &Lab) {
    lab.apply(CROWD);
    until(lab, &["get", "deployment", "crowd", "-o", "jsonpath={.status.readyReplicas}"], "2");
    for kubectl in clients::both() {
        eventually(PATIENCE, "kubectl top tells of both nodes and pods", || {
            let nodes = lab.kubectl_of(kubectl, &["top", "nodes", "--no-headers"]);
            let pods = lab.kubectl_of(kubectl, &["top", "pods", "-l", "app=crowd", "--no-headers"]);
            let told = nodes.stdout.lines().count() == 2
                && pods.stdout.lines().filter(|line| line.contains("Mi")).count() == 2;
            if told {
                Ok(())
            } else {
                Err(format!("{}{}{}{}", nodes.stdout, nodes.stderr, pods.stdout, pods.stderr))
            }
        });
    }
    eventually(PATIENCE, "the autoscaler knows what its pods use", || {
        let table = lab.kubectl(&["get", "hpa", "crowd", "--no-headers"]).stdout;
        if table.contains("Deployment/crowd")
            && table.contains("cpu: ")
            && table.contains("%/50%")
            && !table.contains("<unknown>")
        {
            Ok(())
        } else {
            Err(table)
        }
    });
    lab.kubectl(&["delete", "deployment,hpa", "crowd"]).ok();
}
