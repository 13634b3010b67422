//! The lab as a whole: what it is made of, how it is set up, held together and taken away.

pub mod files;
pub mod init;
pub mod keeper;
pub mod kubeadm;
pub mod kubeconfig;
pub mod material;
pub mod paths;
pub mod plan;
pub mod protocol;
pub mod spec;
pub mod state;
pub mod supervisor;
