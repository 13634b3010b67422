//! Nothing is left behind, however a lab ends.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use crate::kit::{Lab, eventually, lab::binary, process, random, rounds};

/// What the machine shows of any lab: interfaces, mounts and sockets of this namespace.
fn machine(lab: &Lab) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for link in std::fs::read_dir("/sys/class/net").unwrap() {
        seen.insert(format!("link {}", link.unwrap().file_name().to_string_lossy()));
    }
    let home = lab.home.path().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    seen.extend(mounts.lines().filter(|line| line.contains(&home)).map(|line| format!("mount {line}")));
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let named =
        sockets.lines().filter_map(|line| line.split(' ').next_back()).filter(|path| path.contains(&home));
    seen.extend(named.map(|path| format!("socket {path}")));
    let mut folders = vec![lab.home.path().join("run")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => drop(seen.insert(format!("file {}", entry.path().display()))),
            }
        }
    }
    seen
}

#[test]
fn down_keeps_the_data_and_delete_removes_it() {
    let lab = Lab::new();
    let before = machine(&lab);
    lab.minilab(&["up"]).ok();
    lab.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let members = process::tree(lab.keeper());
    lab.minilab(&["down"]).ok();
    // The keeper lets go of its lock as it ends; the kernel may show it a moment longer.
    eventually(Duration::from_secs(5), "every process ends", || match &process::alive(&members)[..] {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
    eventually(Duration::from_secs(5), "nothing is left", || {
        let now = machine(&lab);
        if now == before { Ok(()) } else { Err(format!("{:?}", now.difference(&before).collect::<Vec<_>>())) }
    });
    lab.minilab(&["down"]).ok();
    lab.minilab(&["up"]).ok();
    lab.kubectl(&["get", "configmap", "kept"]).ok();
    let config = std::fs::read_to_string(lab.home.path().join(".kube/config")).unwrap();
    assert!(config.contains(&format!("minilab-{}", lab.name)), "{config}");
    lab.minilab(&["delete"]).ok();
    let config = std::fs::read_to_string(lab.home.path().join(".kube/config")).unwrap_or_default();
    assert!(!config.contains("minilab-"), "{config}");
    let state = lab.home.path().join("state/minilab").join(&lab.name);
    assert!(!state.exists(), "{} stays", state.display());
    lab.minilab(&["delete"]).ok();
}

#[test]
fn kills_at_random_moments_of_up_leave_nothing() {
    let lab = Lab::new();
    let before = machine(&lab);
    for round in 0..rounds(50) {
        let mut up =
            lab.command(binary()).arg("up").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random() % 700));
        let pid = up.id() as i32;
        // The lab's own processes leave `up` early, so all that carry its name are collected.
        let mut members = process::tree(pid);
        members.extend(process::named(&lab.name));
        let victims: Vec<i32> = members.iter().map(|one| one.pid).collect();
        process::kill(victims[(random() as usize) % victims.len()]);
        process::kill(pid);
        for one in process::named(&lab.name).iter().filter(|one| one.command.starts_with("minilab-keeper")) {
            process::kill(one.pid);
        }
        up.wait().unwrap();
        eventually(Duration::from_secs(2), &format!("round {round} leaves nothing"), || {
            let mut left = process::alive(&members);
            left.extend(process::named(&lab.name));
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
    lab.minilab(&["up"]).ok();
    lab.minilab(&["delete"]).ok();
    eventually(Duration::from_secs(5), "nothing is left", || {
        let now = machine(&lab);
        if now == before { Ok(()) } else { Err(format!("{:?}", now.difference(&before).collect::<Vec<_>>())) }
    });
}

#[test]
fn a_killed_first_up_leaves_no_keys_and_the_next_one_need_not_wait() {
    let lab = Lab::new();
    let state = lab.home.path().join("state/minilab").join(&lab.name);
    let begin = || {
        let up = lab.command(binary()).arg("up").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually(Duration::from_secs(20), "the keeper holds the lab", || {
            match std::fs::read_to_string(state.join("keeper.lock")) {
                Ok(said) if !said.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        assert!(state.join("pki").exists(), "there are keys to be left");
        up
    };
    let mut up = begin();
    process::kill(up.id() as i32);
    up.wait().unwrap();
    eventually(Duration::from_secs(10), "the keys are gone", || {
        let left: Vec<_> =
            std::fs::read_dir(&state).into_iter().flatten().flatten().map(|one| one.path()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // Where the dying one still holds the lab, the next waits for its end.
    let mut up = begin();
    process::kill(up.id() as i32);
    lab.minilab(&["up"]).ok();
    up.wait().unwrap();
    lab.kubectl(&["get", "nodes"]).ok();
}
