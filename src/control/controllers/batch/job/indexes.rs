//! Sets of indexes as a status writes them: `0-3,7`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// More than upstream allows; a longer range in a text nobody of us wrote is not read.
const MOST: u32 = 1_000_000;

/// The index a pod of an Indexed Job has.
pub fn of(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

pub fn read(text: &str) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
            && last < MOST
        {
            all.extend(first..=last);
        }
    }
    all
}

pub fn write(all: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in all {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let texts = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        // Upstream writes two neighbours as two.
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_three_and_more_are_written_short() {
        let all: BTreeSet<u32> = [0, 1, 2, 3, 7, 9, 10].into();
        assert_eq!(write(&all), "0-3,7,9,10");
        assert_eq!(read(&write(&all)), all);
        assert!(read("5-99999999999,x").is_empty());
    }
}
