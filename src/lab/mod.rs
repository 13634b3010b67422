//! The lab as a whole: what it is made of, how it is set up, held together and taken away.

pub mod cloud;
pub mod files;
pub mod floor;
pub mod hostroot;
pub mod idmap;
pub mod init;
pub mod keeper;
pub mod kubeadm;
pub mod kubeconfig;
pub mod launch;
pub mod material;
pub mod objects;
pub mod order;
pub mod paths;
pub mod pids;
pub mod plan;
pub mod protocol;
mod reach;
pub mod removal;
pub mod spec;
pub mod state;
pub mod supervisor;
pub mod switch;
pub mod topology;
