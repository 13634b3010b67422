//! The course: exercises that begin with a working attack and end with a repair that holds.
//!
//! An exercise brings the lab to a state ([`stage`]), looks at what a learner does by what comes of it
//! ([`check`]), asks ([`question`]), helps ([`hint`]), and remembers ([`progress`]) beside the lab, so that what
//! was learned outlives it. Nothing here looks at a setting: attacks run, requests are answered or refused,
//! packets are counted.

mod book;
pub mod check;
mod export;
mod ground;
mod hint;
mod journal;
mod leftovers;
mod progress;
mod question;
mod results;
mod schema;
mod seed;
mod stage;
mod wrong;

pub use book::{Chapter, Folder, find, folders};
pub use check::{Line, Report, check};
pub use export::killercoda;
pub use ground::Ground;
pub use hint::hint;
pub use journal::note;
pub use progress::{Begun, Marks, Progress};
pub use question::{Reply, answer, choices};
pub use results::{Results, grade};
pub use schema::Mark;
pub use stage::{begin, identity, is_stuck};

/// Why the course cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CourseError {
    #[error("there is no exercise {0:?}; `minilab lab list` shows them")]
    NoExercise(String),
    #[error("no exercise has been started")]
    NotStarted,
    #[error("this lab is not the one exercise {0} began in, or its start was cut off")]
    OtherLab(u8),
    #[error("there is no question {name:?} in this exercise; it has {there}")]
    NoQuestion { name: String, there: String },
    #[error("read labs/{name}/lab.yaml")]
    Parse { name: &'static str, source: serde_yaml_ng::Error },
    #[error("read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} is no progress or results file")]
    Damaged { path: String, source: serde_json::Error },
    #[error("start a runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    State(#[from] crate::lab::state::StateError),
    #[error(transparent)]
    Switch(#[from] crate::lab::switch::SwitchError),
    #[error(transparent)]
    Client(#[from] crate::client::ClientError),
    #[error("the lab cannot be asked")]
    Lab(#[from] crate::lab::protocol::ProtocolError),
    #[error(transparent)]
    Files(#[from] crate::lab::files::FilesError),
    #[error(transparent)]
    Attack(#[from] crate::attack::AttackError),
    #[error("{0}")]
    Spec(String),
    #[error("{0:#}")]
    Object(anyhow::Error),
    #[error("{what} took too long: {last}")]
    Late { what: String, last: String },
    #[error("the system gave no random bytes")]
    Random,
}
