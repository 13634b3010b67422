//! Storage: claims get volumes, and volumes made for a claim go with it.

pub mod binder;
mod provision;

/// Marks a claim whose binding is complete, and a volume or claim that was bound by a controller.
const COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The node a scheduler chose for the first pod of a claim that waits for one.
const SELECTED: &str = "volume.kubernetes.io/selected-node";
