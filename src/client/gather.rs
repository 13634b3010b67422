//! One kind's objects as a watch tells of them: for roles that look at everything at once.

use std::collections::HashMap;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

/// The objects by namespace and name. A relist is gathered aside and then replaces them, so that nothing
/// is missing meanwhile.
pub struct Collection<K> {
    objects: HashMap<(String, String), K>,
    relist: HashMap<(String, String), K>,
    synced: bool,
}

impl<K> Default for Collection<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), relist: HashMap::new(), synced: false }
    }
}

impl<K> Collection<K> {
    /// Whether a whole list has been seen.
    pub fn synced(&self) -> bool {
        self.synced
    }

    pub fn all(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }
}

impl<K: Resource> Collection<K> {
    pub fn apply(&mut self, event: Event<K>) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => self.relist.clear(),
            Event::InitApply(object) => drop(self.relist.insert(key(&object), object)),
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.relist);
                self.synced = true;
            }
            Event::Apply(object) => drop(self.objects.insert(key(&object), object)),
            Event::Delete(object) => drop(self.objects.remove(&key(&object))),
        }
    }
}
