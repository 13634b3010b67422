//! What Kubernetes' API says, without any I/O: paths, `Status`, selectors, patches, quantities, flags.

pub mod age;
pub mod cron;
pub mod fields;
pub mod flags;
pub mod go_duration;
pub mod go_list;
pub mod go_path;
pub mod go_quote;
pub mod go_time;
pub mod merge_keys;
pub mod names;
pub mod patch;
pub mod percent;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod taints;
pub mod usage;
