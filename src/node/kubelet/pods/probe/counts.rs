//! How often each probe passed and failed: `/metrics/probes`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::Outcome;

/// More series than a node's pods can have; beyond it new ones are not counted.
const MOST: usize = 4096;

/// A probe of a container, and a result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub kind: &'static str,
    pub result: &'static str,
}

/// The counts of this process. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<Series, u64>>>);

impl Counts {
    pub(super) fn note(&self, series: Series) {
        let mut all = self.0.lock().expect("nothing panics while holding the lock");
        if all.len() < MOST || all.contains_key(&series) {
            *all.entry(series).or_default() += 1;
        }
    }

    /// A pod that is gone is no longer told of.
    pub fn forget(&self, uid: &str) {
        self.0.lock().expect("nothing panics while holding the lock").retain(|series, _| series.uid != uid);
    }

    pub fn all(&self) -> Vec<(Series, u64)> {
        let all = self.0.lock().expect("nothing panics while holding the lock");
        all.iter().map(|(series, count)| (series.clone(), *count)).collect()
    }
}

impl Outcome {
    /// As upstream's metric names it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Success => "successful",
            Self::Failure(_) => "failed",
            Self::Errored(_) => "unknown",
        }
    }
}
