//! Start-up and memory.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::figures::{Report, median, ms};
use super::lab::{Lab, binary};

/// `up` to two nodes Ready, beside the floor: the same namespaces, links, execs and handshakes, bare.
pub fn measure(rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let (mut ups, mut again, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let lab = Lab::new()?;
        let from = Instant::now();
        lab.minilab(&["up"])?;
        ups.push(from.elapsed());
        lab.minilab(&["down"])?;
        settle();
        let from = Instant::now();
        lab.minilab(&["up"])?;
        again.push(from.elapsed());
        drop(lab);
        settle();
        floors.push(floor()?);
        settle();
    }
    let floor = median(&mut floors);
    report.row("up, new lab, to two nodes Ready", ms(median(&mut ups)), ms(floor), "300 ms");
    report.row("up, stopped lab, to two nodes Ready", ms(median(&mut again)), ms(floor), "300 ms");
    Ok(())
}

/// Network namespaces are destroyed in the background; a start right after pays for them.
fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}

fn floor() -> anyhow::Result<Duration> {
    let home = tempfile::tempdir()?;
    let output = Command::new(binary()).arg("bench-floor").env("HOME", home.path()).output()?;
    if !output.status.success() {
        bail!("bench-floor: {}", String::from_utf8_lossy(&output.stderr));
    }
    let nanoseconds: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Proportional set size of every process of the lab, idle.
pub fn memory(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    std::thread::sleep(Duration::from_secs(5));
    let keeper = lab.status()?["keeperPid"].as_i64().unwrap_or_default() as i32;
    let mut kilobytes = 0;
    for pid in tree(keeper) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let size: u64 = pss.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(0);
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        eprintln!("  {:>8} kB  {}", size, name.trim());
        kilobytes += size;
    }
    report.row(
        "memory of all processes, idle (PSS)",
        format!("{:.1} MB", kilobytes as f64 / 1e3),
        "about 22 MB".into(),
        "60 MB",
    );
    Ok(())
}

fn tree(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut members = vec![root];
    let mut at = 0;
    while at < members.len() {
        let parent = members[at];
        members.extend(parents.iter().filter(|(_, up)| *up == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    members
}
