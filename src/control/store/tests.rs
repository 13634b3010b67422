use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::record::Record;
use super::*;

const PODS: &str = "/registry/pods/";

fn draft(text: &str) -> Draft {
    let head = "{\"rv\":\"";
    Draft { bytes: format!("{head}\",\"v\":\"{text}\"}}").into_bytes(), revision_at: head.len() }
}

async fn put(store: &Store, key: &str, text: &str) -> Entry {
    store.write(PODS, key, None, Change::Put(draft(text))).await.unwrap()
}

async fn delete(store: &Store, key: &str) -> Entry {
    store.write(PODS, key, None, Change::Delete(draft("last"))).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn keys(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|entry| &*entry.key).collect()
}

#[tokio::test]
async fn acknowledged_writes_and_their_revisions_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let a = put(&store, "default/a", "1").await;
    let again = put(&store, "default/a", "2").await;
    put(&store, "default/b", "1").await;
    delete(&store, "default/b").await;
    store.close().await;
    assert!(matches!(
        store.write(PODS, "x", None, Change::Put(draft("late"))).await,
        Err(StoreError::Closed)
    ));

    let store = Store::open(dir.path()).unwrap();
    let found = store.get(PODS, "default/a").unwrap();
    assert_eq!((found.create_revision, found.mod_revision), (a.mod_revision, again.mod_revision));
    assert_eq!(text(&found.value), "{\"rv\":\"3\",\"v\":\"2\"}");
    assert!(store.get(PODS, "default/b").is_none());
    assert_eq!(store.revision(), 5);
    let mut watch = store.watch(PODS, a.mod_revision).unwrap();
    let events = watch.next().await.unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.revision, event.deleted)).collect();
    assert_eq!(seen, [(3, false), (4, false), (5, true)], "watches resume from the log");
}

#[tokio::test]
async fn compare_and_swap_refuses_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let write = |expect, text: &str| {
        let store = store.clone();
        let draft = draft(text);
        async move { store.write(PODS, "k", Some(expect), Change::Put(draft)).await }
    };
    assert!(matches!(write(Expect::Revision(9), "x").await, Err(StoreError::Missing)));
    let first = write(Expect::Absent, "1").await.unwrap();
    assert!(matches!(write(Expect::Absent, "2").await, Err(StoreError::Exists)));
    let second = write(Expect::Revision(first.mod_revision), "2").await.unwrap();
    let lost = write(Expect::Revision(first.mod_revision), "3").await;
    assert!(matches!(lost, Err(StoreError::Modified { current }) if current == second.mod_revision));
    let bad = Draft { bytes: b"{}".to_vec(), revision_at: 40 };
    assert!(matches!(store.write(PODS, "k", None, Change::Put(bad)).await, Err(StoreError::Malformed)));
    assert_eq!(store.revision(), second.mod_revision, "a refused write takes no revision");
}

#[tokio::test]
async fn concurrent_writers_lose_nothing_and_share_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let writers = (0..64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                put(&store, &format!("ns/{writer}-{round}"), "x").await;
            }
        })
    });
    futures_util::future::join_all(writers).await;
    assert_eq!(store.list(PODS, "ns/", None, None, None).unwrap().entries.len(), 640);
    assert_eq!(store.revision(), 641);
}

#[tokio::test]
async fn lists_page_and_look_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        put(&store, key, "x").await;
    }
    let first = store.list(PODS, "a/", None, Some(2), None).unwrap();
    assert_eq!((keys(&first), first.remaining, first.revision), (vec!["a/1", "a/2"], 1, 5));
    delete(&store, "a/3").await;
    put(&store, "a/2", "y").await;
    let rest = store.list(PODS, "a/", Some("a/2"), Some(2), Some(first.revision)).unwrap();
    assert_eq!((keys(&rest), rest.remaining), (vec!["a/3"], 0), "the old page still has what was deleted");
    let ahead = store.list(PODS, "", None, None, Some(99));
    assert!(matches!(ahead, Err(StoreError::Future { asked: 99, current: 7 })));
    store.compact(7).await.unwrap();
    let gone = store.list(PODS, "", None, None, Some(5));
    assert!(matches!(gone, Err(StoreError::Compacted { oldest: 7 })));
}

#[tokio::test]
async fn compaction_ends_old_watches_and_shrinks_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for round in 0..20 {
        put(&store, "k", &round.to_string()).await;
    }
    put(&store, "gone", "x").await;
    let last = delete(&store, "gone").await.mod_revision;
    store.compact(last).await.unwrap();
    assert!(matches!(store.watch(PODS, 5), Err(StoreError::Compacted { .. })));
    assert!(store.watch(PODS, last).is_ok());
    store.close().await;
    let mut records = 0;
    let mut engine = SledEngine::open(dir.path()).unwrap();
    assert_eq!(engine.load(&mut |_| records += 1).unwrap(), last);
    assert_eq!(records, 1, "only the live object's record stays");
    drop(engine);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(text(&store.get(PODS, "k").unwrap().value), "{\"rv\":\"21\",\"v\":\"19\"}");
    assert!(put(&store, "new", "x").await.mod_revision > last, "revisions are never used twice");
}

#[tokio::test]
async fn a_watch_delivers_in_order_and_ends_after_its_last_event() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut watch = store.watch(PODS, store.revision()).unwrap();
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "a").await;
    let other = store.write("/registry/other/", "x", None, Change::Put(draft("x"))).await.unwrap();
    let events = watch.next().await.unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(
        text(&events[0].frame(Frame::Added)),
        "{\"type\":\"ADDED\",\"object\":{\"rv\":\"2\",\"v\":\"1\"}}\n"
    );
    let lost = events[1].frame(Frame::Deleted);
    assert_eq!(text(&lost), "{\"type\":\"DELETED\",\"object\":{\"rv\":\"3\",\"v\":\"1\"}}\n");
    assert_eq!(text(&events[2].object(Frame::Deleted)), "{\"rv\":\"4\",\"v\":\"last\"}");
    assert_eq!(watch.catch_up(), other.mod_revision, "a bookmark may be as new as the store");
    put(&store, "b", "1").await;
    store.close().await;
    assert_eq!(watch.next().await.unwrap().len(), 1);
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
}

/// An engine on memory whose disk can be broken: before a group is kept, or after.
#[derive(Clone, Default)]
struct Faulty {
    kept: Arc<Mutex<Vec<Record>>>,
    refuse: Arc<AtomicBool>,
    fail_late: Arc<AtomicBool>,
}

impl Engine for Faulty {
    fn load(&mut self, each: &mut dyn FnMut(Record)) -> io::Result<Revision> {
        self.kept.lock().unwrap().iter().cloned().for_each(each);
        Ok(0)
    }
    fn append(&mut self, group: &[Record]) -> io::Result<()> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err(io::Error::other("no space left on device"));
        }
        self.kept.lock().unwrap().extend_from_slice(group);
        match self.fail_late.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::other("input/output error")),
            false => Ok(()),
        }
    }
    fn compact(&mut self, _: &[Revision], _: Revision) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn after_an_io_error_reads_go_on_and_writes_return_once_the_log_is_checked() {
    let disk = Faulty::default();
    let engine = disk.clone();
    let store = Store::start(Box::new(move || Ok(Box::new(engine.clone())))).unwrap();
    put(&store, "a", "1").await;
    disk.refuse.store(true, Ordering::SeqCst);
    let refused = store.write(PODS, "a", None, Change::Put(draft("2"))).await;
    assert!(matches!(refused, Err(StoreError::Io(_))));
    assert_eq!(text(&store.get(PODS, "a").unwrap().value), "{\"rv\":\"2\",\"v\":\"1\"}");
    disk.refuse.store(false, Ordering::SeqCst);
    disk.fail_late.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let late = store.write(PODS, "b", None, Change::Put(draft("kept"))).await;
    assert!(matches!(late, Err(StoreError::Io(_))), "the flush failed after the group was kept");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let retry = store.write(PODS, "c", None, Change::Put(draft("x"))).await;
    assert!(retry.is_err(), "the log holds more than the cache knew; the writer is told to look again");
    assert!(store.get(PODS, "b").is_some(), "what the log kept is taken in");
    assert_eq!(put(&store, "c", "x").await.mod_revision, 4);
}

#[tokio::test]
async fn a_log_that_lost_revisions_is_refused_and_goes_on_being_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, "default/a", "1").await;
    store.close().await;
    let log = dir.path().join("sled/db");
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, b"").unwrap();
    for _ in 0..2 {
        let error = Store::open(dir.path()).err().expect("an empty log is no empty cluster");
        let StoreError::Io(source) = &error else { panic!("{error}") };
        assert!(source.to_string().contains("it reads back to revision 0 and had 2"), "{source}");
    }
    // A copy put back is taken.
    std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
    std::fs::create_dir(dir.path().join("sled")).unwrap();
    std::fs::write(&log, whole).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.get(PODS, "default/a").is_some());
    store.close().await;
}

#[tokio::test]
async fn half_a_snapshot_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, "default/a", "1").await;
    store.close().await;
    let half = dir.path().join("sled/snap.0000000000000000.generating");
    std::fs::write(&half, b"").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(!half.exists() && store.get(PODS, "default/a").is_some());
    store.close().await;
}
