//! `/metrics/resource`: what metrics-server scrapes.

use std::time::Duration;

use crate::node::kubelet::server::Kubelet;
use crate::node::page::Page;

pub async fn page(me: &Kubelet) -> Page {
    let sample = me.sampler.sample(&me.runtime).await;
    let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
    let mut page = Page::default();
    let each = || sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |one| (pod, one)));
    let names = [
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_start_time_seconds",
    ];
    let container = |page: &mut Page, name: &str, value: fn(&super::super::stats::ContainerSample) -> f64| {
        for (pod, one) in each() {
            let spec = &pod.sandbox.spec;
            let labels = [
                ("container", one.status.name.as_str()),
                ("namespace", spec.pod_namespace.as_str()),
                ("pod", spec.pod_name.as_str()),
            ];
            page.sample(name, &labels, value(one));
        }
    };
    page.family(
        names[0],
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    container(&mut page, names[0], |one| Duration::from_nanos(one.used.usage.cpu_nanos).as_secs_f64());
    page.family(names[1], "gauge", "[STABLE] Current working set of the container in bytes");
    container(&mut page, names[1], |one| super::float(one.used.usage.working_set));
    page.family(names[2], "gauge", "[STABLE] Start time of the container since unix epoch in seconds");
    container(&mut page, names[2], |one| super::started(&one.status));
    let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
    page.single("node_cpu_usage_seconds_total", "counter", help, seconds(sample.node.usage.cpu_nanos));
    let help = "[STABLE] Current working set of the node in bytes";
    page.single("node_memory_working_set_bytes", "gauge", help, sample.node.usage.working_set);
    let names = ["pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes"];
    page.family(names[0], "counter", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds");
    for pod in &sample.pods {
        let spec = &pod.sandbox.spec;
        let labels = [("namespace", spec.pod_namespace.as_str()), ("pod", spec.pod_name.as_str())];
        page.sample(names[0], &labels, seconds(pod.all.usage.cpu_nanos));
    }
    page.family(names[1], "gauge", "[STABLE] Current working set of the pod in bytes");
    for pod in &sample.pods {
        let spec = &pod.sandbox.spec;
        let labels = [("namespace", spec.pod_namespace.as_str()), ("pod", spec.pod_name.as_str())];
        page.sample(names[1], &labels, pod.all.usage.working_set);
    }
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    page.single("resource_scrape_error", "gauge", help, 0);
    page
}
