//! `/metrics/cadvisor`: the machine and each container, under cAdvisor's names.

use crate::node::kubelet::server::Kubelet;
use crate::node::kubelet::server::stats::{ContainerSample, PodSample};
use crate::node::page::Page;

/// Name, kind, help, and the value of one container.
type Family = (&'static str, &'static str, &'static str, fn(&ContainerSample) -> f64);

const FAMILIES: &[Family] = &[
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |one| {
        std::time::Duration::from_nanos(one.used.usage.cpu_nanos).as_secs_f64()
    }),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |one| super::float(one.used.usage.anonymous)),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |one| super::float(one.used.usage.resident),
    ),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |one| {
        super::float(one.used.usage.working_set)
    }),
    ("container_processes", "gauge", "Number of processes running inside the container.", |one| {
        super::float(one.used.usage.processes)
    }),
    (
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds.",
        |one| super::started(&one.status),
    ),
];

pub async fn page(me: &Kubelet) -> Page {
    let sample = me.sampler.sample(&me.runtime).await;
    let mut page = Page::default();
    let machine = &me.machine;
    let os = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", machine.kernel.as_str()),
        ("osVersion", machine.os_image.as_str()),
    ];
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor \
                version & cadvisor revision.";
    page.family("cadvisor_version_info", "gauge", help);
    page.sample("cadvisor_version_info", &os, 1);
    for (name, kind, help, value) in FAMILIES {
        page.family(name, kind, help);
        for pod in &sample.pods {
            for container in &pod.containers {
                let labels = labels(pod, container);
                let labels: Vec<(&str, &str)> =
                    labels.iter().map(|(label, text)| (*label, text.as_str())).collect();
                page.sample(name, &labels, value(container));
            }
        }
    }
    network(&mut page, &sample.pods);
    let ids = [
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", machine.machine_id.as_str()),
        ("system_uuid", machine.system_uuid.as_str()),
    ];
    page.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    page.sample("machine_cpu_cores", &ids, machine.cpus);
    page.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    page.sample("machine_memory_bytes", &ids, machine.memory_bytes);
    page
}

fn labels(pod: &PodSample, container: &ContainerSample) -> [(&'static str, String); 6] {
    let spec = &pod.sandbox.spec;
    [
        ("container", container.status.name.clone()),
        ("id", format!("/pod{}/{}", spec.pod_uid, container.status.id)),
        ("image", container.status.image_id.clone()),
        ("name", container.status.id.clone()),
        ("namespace", spec.pod_namespace.clone()),
        ("pod", spec.pod_name.clone()),
    ]
}

fn network(page: &mut Page, pods: &[PodSample]) {
    type Column =
        (&'static str, &'static str, fn(&crate::node::kubelet::server::stats::proc::Interface) -> u64);
    const COLUMNS: &[Column] = &[
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |one| one.received),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |one| one.receive_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |one| one.sent),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |one| one.send_errors,
        ),
    ];
    for (name, help, value) in COLUMNS {
        page.family(name, "counter", help);
        for pod in pods {
            let spec = &pod.sandbox.spec;
            let id = format!("/pod{}", spec.pod_uid);
            for interface in &pod.interfaces {
                let labels = [
                    ("id", id.as_str()),
                    ("interface", interface.name.as_str()),
                    ("name", pod.sandbox.id.as_str()),
                    ("namespace", spec.pod_namespace.as_str()),
                    ("pod", spec.pod_name.as_str()),
                ];
                page.sample(name, &labels, value(interface));
            }
        }
    }
}
