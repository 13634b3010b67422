//! The power cut: clients write while the API server is killed at random moments. What was acknowledged is there,
//! once; revisions are unique and rise; watches go on from where they were, or are told that they cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

use crate::kit::{Lab, eventually, process, random, rounds};

const WRITERS: u64 = 4;
/// Between two writes of a client: the object count of the full loop stays in the tens of thousands.
const PAUSE: Duration = Duration::from_millis(20);

async fn client(lab: &Lab) -> Client {
    let text = lab.minilab(&["kubeconfig"]).ok();
    let options = KubeConfigOptions::default();
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text).unwrap(), &options).await.unwrap();
    Client::try_from(config).unwrap()
}

fn map(name: &str, number: u64) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"number": number.to_string()}}))
        .unwrap()
}

fn revision(map: &ConfigMap) -> u64 {
    map.metadata.resource_version.as_deref().unwrap().parse().unwrap()
}

/// What a writer was told: names with the revisions they were made at.
type Told = BTreeMap<String, Option<u64>>;

/// Makes one object after the other. One whose answer was lost is asked for again: it may be there already, and
/// then its revision was told to nobody.
async fn write(client: Client, writer: u64, stop: Arc<AtomicBool>) -> (Told, u64) {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let counter = format!("counter-{writer}");
    let mut known = None;
    let (mut told, mut number, mut counted) = (Told::new(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let name = format!("written-{writer}-{number}");
        match api.create(&PostParams::default(), &map(&name, number)).await {
            Ok(made) => {
                told.insert(name, Some(revision(&made)));
                number += 1;
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                told.insert(name, None);
                number += 1;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        // One object that is changed all the time: what was acknowledged never falls back.
        let mut next = map(&counter, number);
        let outcome = match &known {
            None => api.create(&PostParams::default(), &next).await,
            Some(version) => {
                next.metadata.resource_version = Some(String::clone(version));
                api.replace(&counter, &PostParams::default(), &next).await
            }
        };
        match outcome {
            Ok(done) => (known, counted) = (done.metadata.resource_version, number),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                if let Ok(there) = api.get(&counter).await {
                    let value: u64 = there.data.unwrap()["number"].parse().unwrap();
                    assert!(value >= counted, "{counter} fell from {counted} to {value}");
                    known = there.metadata.resource_version;
                }
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    (told, counted)
}

/// Watches from one revision on through every cut; how often each name was seen made.
async fn watch(client: Client, stop: Arc<AtomicBool>, expired: Arc<AtomicU64>) -> BTreeMap<String, u32> {
    use futures_util::StreamExt;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let (mut last, mut seen) = (0, BTreeMap::new());
    while !stop.load(Ordering::Relaxed) {
        if last == 0 {
            let Ok(list) = api.list(&ListParams::default()).await else { continue };
            seen = list.items.iter().map(|map| (name_of(map), 1)).collect();
            last = list.metadata.resource_version.as_deref().unwrap().parse().unwrap();
        }
        let parameters = WatchParams::default().timeout(20);
        let Ok(stream) = api.watch(&parameters, &last.to_string()).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut stream = stream.boxed();
        while let Ok(Some(Ok(event))) = tokio::time::timeout(Duration::from_secs(2), stream.next()).await {
            let (map, made) = match event {
                WatchEvent::Added(map) => (map, true),
                WatchEvent::Modified(map) => (map, false),
                WatchEvent::Error(status) if status.code == 410 => {
                    expired.fetch_add(1, Ordering::Relaxed);
                    last = 0;
                    break;
                }
                _ => continue,
            };
            let at = revision(&map);
            assert!(at > last, "the watch told of {at} after {last}");
            last = at;
            if made {
                *seen.entry(name_of(&map)).or_default() += 1;
            }
        }
    }
    seen
}

fn name_of(map: &ConfigMap) -> String {
    map.metadata.name.clone().unwrap()
}

/// Kills the API server at a random moment and waits until another serves.
fn cut(lab: &Lab) {
    std::thread::sleep(Duration::from_millis(random() % 60));
    let pid = lab.pid("kube-apiserver", "control");
    process::kill(pid);
    eventually(Duration::from_secs(60), "another API server serves", || {
        let status = lab.status();
        let mut roles = status["roles"].as_array().into_iter().flatten();
        let role = roles.find(|role| role["name"] == "kube-apiserver").cloned().unwrap_or_default();
        let other = role["pid"].as_i64().is_some_and(|now| now != i64::from(pid)) && role["ready"] == true;
        if other { Ok(()) } else { Err(role.to_string()) }
    });
}

#[test]
fn what_was_acknowledged_outlives_every_power_cut_once() {
    let lab = Lab::up();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(client(&lab));
    let (stop, expired) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = runtime.spawn(watch(client.clone(), Arc::clone(&stop), Arc::clone(&expired)));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| runtime.spawn(write(client.clone(), writer, Arc::clone(&stop)))).collect();
    let began = Instant::now();
    let cuts = rounds(1000);
    (0..cuts).for_each(|_| cut(&lab));
    let took = began.elapsed();
    // The watch has a moment to see the last of it.
    std::thread::sleep(Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    let told: Vec<(Told, u64)> =
        writers.into_iter().map(|writer| runtime.block_on(writer).unwrap()).collect();
    let seen = runtime.block_on(watcher).unwrap();
    let listed = runtime
        .block_on(Api::<ConfigMap>::namespaced(client, "default").list(&ListParams::default()))
        .unwrap();
    let there: BTreeMap<String, ConfigMap> =
        listed.items.into_iter().map(|map| (name_of(&map), map)).collect();
    let mut revisions = BTreeSet::new();
    for (writer, (told, counted)) in told.iter().enumerate() {
        let mut last = 0;
        for number in 0..told.len() {
            let name = format!("written-{writer}-{number}");
            let map = there.get(&name).unwrap_or_else(|| panic!("{name} was acknowledged and is gone"));
            assert_eq!(map.data.as_ref().unwrap()["number"], number.to_string(), "{name}");
            let at = revision(map);
            assert!(
                told[&name].is_none_or(|told| told == at),
                "{name} was told {:?} and is at {at}",
                told[&name]
            );
            assert!(at > last, "{name} is at {at}, after one at {last}");
            assert!(revisions.insert(at), "two objects were made at {at}");
            last = at;
            assert_eq!(seen.get(&name), Some(&1), "{name} in the watch");
        }
        let counter: u64 =
            there[&format!("counter-{writer}")].data.as_ref().unwrap()["number"].parse().unwrap();
        assert!(counter >= *counted, "counter-{writer} fell from {counted} to {counter}");
    }
    let all: usize = told.iter().map(|(told, _)| told.len()).sum();
    let lost = told.iter().flat_map(|(told, _)| told.values()).filter(|told| told.is_none()).count();
    eprintln!(
        "{cuts} cuts in {:.1} s: {all} objects, {lost} of them by an answer that was lost, {} watches too old",
        took.as_secs_f64(),
        expired.load(Ordering::Relaxed)
    );
    assert!(all > cuts, "only {all} writes went through");
}
