//! `minilab image load|pull|list|remove`: the images of the lab's nodes.
//!
//! `load` hands an archive to every node, and each takes it in inside the lab, with the lab's ids. `pull` asks
//! the registry from here, outside the lab's network, and goes on as `load` does. On a real cluster every
//! node's runtime pulls for itself; `kind load` and `minikube image load` are the nearest there is.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Answer, Outcome, Output, Trouble, table, up};
use crate::lab::hostroot;
use crate::lab::plan::{HostKind, Plan};
use crate::lab::protocol::{self, Control, Reply};
use crate::lab::state::LabDir;
use crate::node::image::registry::Registry;
use crate::node::image::{self, Record, Reference};

/// What a node may say of its images.
const MOST_ANSWER: u64 = 16 << 20;

#[derive(Args)]
pub struct Image {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Bring the images of an archive (docker save, or an OCI layout) to every node
    Load(Load),
    /// Fetch an image from its registry, from outside the lab, and bring it to every node
    Pull(Pull),
    /// List the images that were brought
    #[command(visible_alias = "ls")]
    List(List),
    /// Take an image's name away, and the image with its last one
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Args)]
struct Load {
    /// The archive, or - for standard input
    archive: PathBuf,
    /// The name of an image that bears none
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Pull {
    /// For example docker.io/library/busybox:1.37
    image: String,
    /// Speak HTTP, without TLS: whoever is in between decides what you get
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Remove {
    #[arg(required = true)]
    images: Vec<String>,
}

/// What this program does inside a node for the commands above.
#[derive(Args)]
pub struct Store {
    #[command(subcommand)]
    what: StoreWhat,
}

#[derive(Subcommand)]
enum StoreWhat {
    /// The archive is standard input
    Import {
        name: Option<String>,
    },
    List,
    Remove {
        images: Vec<String>,
    },
}

/// What a node answers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Said {
    Images(Vec<Record>),
    /// Names nobody had.
    Missing(Vec<String>),
    Failed(String),
}

impl Store {
    pub fn run(self) -> Outcome {
        let said = self.answer().unwrap_or_else(|error| Said::Failed(format!("{error:#}")));
        println!("{}", serde_json::to_string(&said)?);
        Ok(Answer::Done)
    }

    fn answer(self) -> anyhow::Result<Said> {
        match self.what {
            StoreWhat::Import { name } => {
                let name = name.map(|name| Reference::parse(&name)).transpose()?;
                let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
                Ok(Said::Images(image::import(file, name.as_ref())?))
            }
            StoreWhat::List => Ok(Said::Images(image::records())),
            StoreWhat::Remove { images } => {
                let mut missing = Vec::new();
                for name in images {
                    if !image::remove(&Reference::parse(&name)?)? {
                        missing.push(name);
                    }
                }
                Ok(Said::Missing(missing))
            }
        }
    }
}

impl Image {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        match self.what {
            What::Load(load) => load.run(lab),
            What::Pull(pull) => pull.run(lab),
            What::List(list) => list.run(lab),
            What::Remove(remove) => remove.run(lab),
        }
    }
}

impl Load {
    fn run(self, lab: &LabDir) -> Outcome {
        let began = Instant::now();
        let archive = match self.archive.to_str() {
            Some("-") => {
                let mut file = nameless(lab)?;
                io::copy(&mut io::stdin().lock(), &mut file).context("read standard input")?;
                Source::Nameless(file)
            }
            _ => Source::Path(&self.archive),
        };
        bring(lab, &archive, self.name.as_deref(), self.output, began)
    }
}

impl Pull {
    fn run(self, lab: &LabDir) -> Outcome {
        let began = Instant::now();
        let reference = Reference::parse(&self.image).map_err(|error| {
            Trouble::new(Answer::Usage, error, "for example docker.io/library/busybox:1.37")
        })?;
        let trust =
            hostroot::trust().map(std::fs::read).transpose().context("read the machine's authorities")?;
        let mut registry = Registry::of(&reference, trust.unwrap_or_default(), self.plain_http)
            .context("prepare to ask the registry")?;
        let mut file = nameless(lab)?;
        let pulled = super::runtime()?.block_on(registry.pull(&reference, &mut file));
        let pulled = pulled.with_context(|| format!("failed to pull and unpack image \"{reference}\""))?;
        if !self.output.json() {
            eprintln!("fetched {reference}@{} ({} bytes)", pulled.digest, pulled.bytes);
        }
        bring(lab, &Source::Nameless(file), None, self.output, began)
    }
}

impl List {
    fn run(self, lab: &LabDir) -> Outcome {
        let mut images: BTreeMap<String, (Record, Vec<String>)> = BTreeMap::new();
        for node in nodes(lab)? {
            for record in images_of(on(lab, &node, &["list"], None)?)? {
                for name in record.names.clone() {
                    let known = images.entry(name).or_insert_with(|| (record.clone(), Vec::new()));
                    known.1.push(node.clone());
                }
            }
        }
        if self.output.json() {
            let row = |(name, (record, nodes)): (&String, &(Record, Vec<String>))| {
                json!({"image": name, "id": record.id, "digest": record.manifest,
                    "sizeBytes": record.size_bytes, "nodes": nodes})
            };
            super::print_json(&images.iter().map(row).collect::<Vec<_>>())?;
            return Ok(Answer::Done);
        }
        let rows = images.iter().map(|(name, (record, nodes))| {
            let id = record.id.trim_start_matches("sha256:").get(..12).unwrap_or_default().to_owned();
            vec![name.clone(), id, human(record.size_bytes), nodes.join(" ")]
        });
        table::print(&["IMAGE", "ID", "SIZE", "NODES"], rows)?;
        Ok(Answer::Done)
    }
}

impl Remove {
    fn run(self, lab: &LabDir) -> Outcome {
        for name in &self.images {
            Reference::parse(name)
                .map_err(|error| Trouble::new(Answer::Usage, error, "`minilab image list` shows names"))?;
        }
        let nodes = nodes(lab)?;
        let mut absent: BTreeMap<String, usize> = BTreeMap::new();
        for node in &nodes {
            let words: Vec<&str> =
                ["remove"].into_iter().chain(self.images.iter().map(String::as_str)).collect();
            match on(lab, node, &words, None)? {
                Said::Missing(names) => {
                    names.into_iter().for_each(|name| *absent.entry(name).or_default() += 1)
                }
                other => drop(images_of(other)?),
            }
        }
        let nowhere: Vec<String> =
            absent.into_iter().filter(|(_, count)| *count == nodes.len()).map(|(name, _)| name).collect();
        if !nowhere.is_empty() {
            let what = format!("no node has {}", nowhere.join(", "));
            return Err(Trouble::new(Answer::Failed, what, "`minilab image list` shows what there is"));
        }
        Ok(Answer::Done)
    }
}

/// Where an archive is read from.
enum Source<'a> {
    Path(&'a Path),
    /// A file without a name.
    Nameless(File),
}

impl Source<'_> {
    /// Opened anew, because every node reads at its own place.
    fn open(&self) -> anyhow::Result<File> {
        match self {
            Source::Path(path) => File::open(path).with_context(|| format!("open {}", path.display())),
            Source::Nameless(file) => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(0))?;
                Ok(file)
            }
        }
    }
}

/// A file that is gone with this process, on the disk that the lab is on.
fn nameless(lab: &LabDir) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600);
    options.open(&lab.state).with_context(|| format!("make a file in {}", lab.state.display()))
}

/// Lets every node take an archive in.
fn bring(lab: &LabDir, source: &Source<'_>, name: Option<&str>, output: Output, began: Instant) -> Outcome {
    let words: Vec<&str> = ["import"].into_iter().chain(name).collect();
    let mut brought = Vec::new();
    for node in nodes(lab)? {
        let said = on(lab, &node, &words, Some(source.open()?))?;
        brought = images_of(said).with_context(|| format!("load the images on {node}"))?;
    }
    let took = began.elapsed().as_secs_f64() * 1000.0;
    let names: Vec<&String> = brought.iter().flat_map(|record| &record.names).collect();
    match output.json() {
        true => super::print_json(&json!({"result": "loaded", "images": names, "tookMs": took}))?,
        false => names.iter().for_each(|name| eprintln!("{name} loaded ({took:.1} ms)")),
    }
    Ok(Answer::Done)
}

fn images_of(said: Said) -> anyhow::Result<Vec<Record>> {
    match said {
        Said::Images(images) => Ok(images),
        Said::Missing(_) => Ok(Vec::new()),
        Said::Failed(error) => Err(anyhow::anyhow!(error)),
    }
}

/// The nodes that run.
fn nodes(lab: &LabDir) -> Result<Vec<String>, Trouble> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
    let status = Control::connect(lab)?.status()?;
    let runs = |name: &str| status.hosts.iter().any(|host| host.name == name && host.pid.is_some());
    let kinds = plan.hosts.into_iter().filter(|host| host.kind == HostKind::Node);
    let nodes: Vec<String> = kinds.map(|host| host.name).filter(|name| runs(name)).collect();
    if nodes.is_empty() {
        let remedy = format!("`{} host start node-1`", up::myself(lab));
        return Err(Trouble::new(Answer::NotRunning, "no node runs", remedy));
    }
    Ok(nodes)
}

/// Runs this program in a node, as [`Store`].
fn on(lab: &LabDir, node: &str, words: &[&str], input: Option<File>) -> anyhow::Result<Said> {
    let control = Control::connect(lab)?;
    let argv = ["minilab", STORE].into_iter().chain(words.iter().copied()).map(str::to_owned).collect();
    let exec = protocol::Exec { host: node.to_owned(), argv, env: Vec::new(), terminal: false };
    let input = match input {
        Some(input) => input,
        None => File::open("/dev/null")?,
    };
    let (answer, theirs) = io::pipe()?;
    control.exec(exec, &[input.as_fd(), theirs.as_fd(), io::stderr().as_fd()])?;
    drop(theirs);
    let mut text = String::new();
    answer.take(MOST_ANSWER).read_to_string(&mut text)?;
    loop {
        match control.next()?.0 {
            Reply::Exited { code: 0 } => break,
            Reply::Exited { code } => anyhow::bail!("the image store of {node} ended with {code}"),
            Reply::Failed { error } | Reply::NotStarted { error } => anyhow::bail!(error),
            _ => {}
        }
    }
    serde_json::from_str(&text).with_context(|| format!("{node} answers {text:?}"))
}

/// The hidden command.
pub const STORE: &str = "image-store";

/// As `docker images` rounds.
fn human(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{:.1}kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}MB", bytes as f64 / 1e6),
        _ => format!("{:.2}GB", bytes as f64 / 1e9),
    }
}
