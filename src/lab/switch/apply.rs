//! A switch being done: phase by phase, everything noted that would have to be undone.

use std::path::Path;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::runtime::Runtime;

use super::files::{Rewrite, rewrite};
use super::{Step, SwitchError, kubelets_reachable};
use crate::client;
use crate::lab::files::{Record, Tree};
use crate::lab::material::Material;
use crate::lab::objects;
use crate::lab::paths::Settings;
use crate::lab::plan::{HostKind, ObjectChange, Plan, RoleChange, Turn};
use crate::lab::protocol::{Control, Reply, Request};
use crate::lab::state::LabDir;

/// How long roles may take to serve again.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long one question to a kubelet may take.
const ONE_TRY: Duration = Duration::from_secs(5);
const MANAGER: &str = "minilab";

/// Something that was done.
enum Deed {
    File(Rewrite),
    Object(ObjectChange),
    /// Another plan lies in the lab's directory; this one was there.
    Plan(Box<Plan>),
    /// These roles turned.
    Roles(Vec<String>),
}

/// Who does a switch.
pub struct Worker<'a> {
    lab: &'a LabDir,
    material: &'a Material,
    runtime: Runtime,
    client: Client,
    /// While this connection is open the supervisor heeds no manifest by itself.
    control: Control,
    record: Record,
    deeds: Vec<Deed>,
    overwritten: Vec<String>,
}

impl<'a> Worker<'a> {
    pub fn new(lab: &'a LabDir, material: &'a Material) -> Result<Worker<'a>, SwitchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SwitchError::Runtime)?;
        let client = runtime.block_on(async { client::from_kubeconfig(lab.kubeconfig()) })?;
        let control = Control::connect(lab)?;
        asked(control.ask(&Request::Hold)?)?;
        let record = Record::read(lab);
        Ok(Worker {
            lab,
            material,
            runtime,
            client,
            control,
            record,
            deeds: Vec::new(),
            overwritten: Vec::new(),
        })
    }

    /// One direction of a switch.
    pub fn step(&mut self, step: &Step) -> Result<(), SwitchError> {
        let mut planned = false;
        for phase in step.difference.phases(step.direction) {
            for change in phase.objects {
                self.object(change, step.exactly)?;
            }
            for change in phase.files {
                let tree = Tree::of(self.lab, &change.host)?;
                if let Some(rewrite) = rewrite(&tree, change, self.material)? {
                    self.file(&tree, rewrite)?;
                }
            }
            // The supervisor learns of the plan with the first roles that are not the hub's own.
            if !planned && phase.roles.iter().any(|role| role.role != "kube-apiserver") {
                self.plan(step)?;
                planned = true;
            }
            self.turn(&phase.roles)?;
        }
        if !planned {
            self.plan(step)?;
        }
        Ok(())
    }

    fn object(&mut self, change: &ObjectChange, exactly: bool) -> Result<(), SwitchError> {
        let client = self.client.clone();
        let lost = self.runtime.block_on(async {
            let mut lost = exactly;
            let live = match &change.before {
                Some(before) => {
                    let live = objects::live(&client, before).await?;
                    lost |= live.as_ref().is_none_or(|live| !objects::agrees(before, live));
                    live
                }
                None => None,
            };
            match (&change.after, live) {
                (Some(planned), Some(live)) if exactly && planned["apiVersion"] == "apps/v1" => {
                    objects::replace(&client, MANAGER, planned, &live, false).await?;
                }
                _ => put(&client, change).await?,
            }
            Ok(lost)
        });
        if lost.map_err(SwitchError::Object)? {
            self.overwritten.push(format!("{} was not as the lab had made it", change.name()));
        }
        self.deeds.push(Deed::Object(change.clone()));
        Ok(())
    }

    fn file(&mut self, tree: &Tree, rewrite: Rewrite) -> Result<(), SwitchError> {
        rewrite.write(tree)?;
        self.record.note(&rewrite.host, &rewrite.file.path, rewrite.planned.as_deref());
        let lost = rewrite.overwritten.iter().map(|line| format!("{}: {line}", rewrite.name()));
        self.overwritten.extend(lost);
        self.deeds.push(Deed::File(rewrite));
        Ok(())
    }

    fn plan(&mut self, step: &Step) -> Result<(), SwitchError> {
        self.write_plan(&step.after)?;
        self.deeds.push(Deed::Plan(Box::new(step.before.clone())));
        Ok(())
    }

    fn write_plan(&self, plan: &Plan) -> Result<(), SwitchError> {
        let bytes = serde_json::to_vec(plan).expect("a plan has only string keys");
        Ok(self.lab.write(&self.lab.plan_file(), 0o600, &bytes)?)
    }

    fn turn(&mut self, roles: &[&RoleChange]) -> Result<(), SwitchError> {
        if roles.is_empty() {
            return Ok(());
        }
        let named: Vec<String> =
            roles.iter().filter(|role| role.turn != Turn::Goes).map(|role| role.name()).collect();
        self.deeds.push(Deed::Roles(named.clone()));
        self.ask_to_turn(named)
    }

    fn ask_to_turn(&self, restart: Vec<String>) -> Result<(), SwitchError> {
        let (roles, request) = (restart.join(", "), Request::Turn { restart: restart.clone() });
        match self.control.ask_within(&request, PATIENCE)? {
            Some(reply) => asked(reply),
            None => {
                let said = restart.first().and_then(|role| self.last_words(role));
                let said = said.map(|line| format!("; the log of {} ends with: {line}", restart[0]));
                Err(SwitchError::Late { roles, limit: PATIENCE, said: said.unwrap_or_default() })
            }
        }
    }

    fn last_words(&self, role: &str) -> Option<String> {
        let (name, host) = role.split_once('@')?;
        let text = std::fs::read(self.lab.log(name, host)).ok()?;
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }

    /// After a switch that touched the way to the kubelets: whether the API server reaches every kubelet, where
    /// it should under these settings.
    pub fn kubelets_answer(&self, settings: &Settings, steps: &[Step]) -> Result<(), SwitchError> {
        let turned = |step: &Step| {
            let mut roles = step.difference.roles.iter();
            roles.any(|role| matches!(role.role.as_str(), "kubelet" | "kube-apiserver"))
        };
        if !kubelets_reachable(settings) || !steps.iter().any(turned) {
            return Ok(());
        }
        let running = self.running_kubelets()?;
        let deadline = Instant::now() + PATIENCE;
        for node in running {
            self.runtime.block_on(answers(&self.client, &node, deadline))?;
        }
        Ok(())
    }

    /// Waits for what follows from the objects; names what did not come in time.
    pub fn settle(&self, steps: &[Step]) -> Vec<String> {
        self.runtime.block_on(super::settle::settled(&self.client, steps))
    }

    /// Nodes whose kubelet serves; one that somebody stopped is not waited for.
    fn running_kubelets(&self) -> Result<Vec<String>, SwitchError> {
        let status = Control::connect(self.lab)?.status()?;
        let serving = status.roles.into_iter().filter(|role| role.name == "kubelet" && role.ready);
        let plan = std::fs::read(self.lab.plan_file()).ok();
        let plan: Option<Plan> = plan.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let node = |name: &str| {
            let mut hosts = plan.iter().flat_map(|plan| &plan.hosts);
            hosts.any(|host| host.name == name && host.kind == HostKind::Node)
        };
        Ok(serving.map(|role| role.host).filter(|host| node(host)).collect())
    }

    /// Puts everything back, last deed first.
    pub fn undo(&mut self) -> Result<(), SwitchError> {
        let mut roles = Vec::new();
        let mut first_error = None;
        for deed in std::mem::take(&mut self.deeds).into_iter().rev() {
            let undone = match deed {
                Deed::File(rewrite) => {
                    let tree = Tree::of(self.lab, &rewrite.host);
                    tree.and_then(|tree| rewrite.undo(&tree)).map_err(SwitchError::from)
                }
                Deed::Object(change) => {
                    let back = ObjectChange { before: change.after, after: change.before };
                    let client = self.client.clone();
                    self.runtime.block_on(put(&client, &back)).map_err(SwitchError::Object)
                }
                Deed::Plan(before) => self.write_plan(&before),
                Deed::Roles(turned) => {
                    roles.extend(turned);
                    Ok(())
                }
            };
            // What can be put back is, whatever else cannot.
            if let Err(error) = undone {
                first_error.get_or_insert(error);
            }
        }
        let turned = self.ask_to_turn(roles);
        first_error.map_or(turned, Err)
    }

    /// The record of what was written, once it is to stay.
    pub fn keep(&self) -> Result<(), SwitchError> {
        Ok(self.record.save(self.lab)?)
    }

    /// Which roles turned, and what was overwritten.
    pub fn done(self) -> (Vec<String>, Vec<String>) {
        let mut restarted: Vec<String> = Vec::new();
        for deed in self.deeds {
            if let Deed::Roles(roles) = deed {
                restarted
                    .extend(roles.into_iter().filter(|role| !restarted.contains(role)).collect::<Vec<_>>());
            }
        }
        (restarted, self.overwritten)
    }
}

pub(super) fn asked(reply: Reply) -> Result<(), SwitchError> {
    match reply {
        Reply::Failed { error } => Err(SwitchError::Lab(error)),
        _ => Ok(()),
    }
}

async fn put(client: &Client, change: &ObjectChange) -> anyhow::Result<()> {
    match (&change.before, &change.after) {
        (_, None) => match &change.before {
            Some(object) => objects::remove(client, object).await,
            None => Ok(()),
        },
        (None, Some(object)) => objects::put(client, MANAGER, object).await,
        (Some(before), Some(after)) => objects::change(client, MANAGER, before, after).await,
    }
}

/// Asks a kubelet how it is, through the API server and with everything that is verified on that way.
async fn answers(client: &Client, node: &str, deadline: Instant) -> Result<(), SwitchError> {
    let path = Path::new("/api/v1/nodes").join(node).join("proxy/healthz");
    loop {
        let request = http::Request::get(path.display().to_string()).body(Vec::new());
        let Ok(request) = request else { return Ok(()) };
        let error = match tokio::time::timeout(ONE_TRY, client.request_text(request)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ONE_TRY:?}"),
        };
        if Instant::now() >= deadline {
            return Err(SwitchError::Kubelet { node: node.to_owned(), error });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
