//! Leader election: of several processes of one component only the holder of a Lease works
//! (`client-go/tools/leaderelection`).
//!
//! `kube-system/NAME`, renewed every two seconds, lost when it could not be renewed for ten, given back at
//! an orderly end. One thing differs from upstream: a lease held by a process of this same host is taken
//! over at once instead of after fifteen seconds, since the host starts one process of each role and
//! the other is known to be gone.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::go_duration;
use crate::client::events::{Kind, Recorder, reference};
use crate::net::go_text;

/// The part of the command line that is about it.
#[derive(Debug, Clone, clap::Args)]
pub struct LeaderOptions {
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, require_equals = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    #[arg(long, default_value = "15s", value_parser = go_duration::parse)]
    pub leader_elect_lease_duration: Duration,
    #[arg(long, default_value = "10s", value_parser = go_duration::parse)]
    pub leader_elect_renew_deadline: Duration,
    #[arg(long, default_value = "2s", value_parser = go_duration::parse)]
    pub leader_elect_retry_period: Duration,
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

/// Whether this process may work; cloning shares it.
#[derive(Clone)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Returns when this process is the leader.
    pub async fn acquired(&mut self) {
        // An election that is over without a leader ends the process; nobody may go on then.
        if self.0.wait_for(|leads| *leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One candidate.
struct Candidate {
    api: Api<Lease>,
    options: LeaderOptions,
    name: String,
    identity: String,
    host: String,
    recorder: Recorder,
}

/// Stands for election as `component` until `stop`; a leader that loses its lease cancels `stop`, and the
/// process ends, to be started again.
pub fn stand(
    client: Client,
    options: &LeaderOptions,
    component: &'static str,
    stop: &CancellationToken,
) -> (Leadership, tokio::task::JoinHandle<()>) {
    let (leads, told) = watch::channel(!options.leader_elect);
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let candidate = Candidate {
        api: Api::namespaced(client.clone(), &options.leader_elect_resource_namespace),
        name: options.leader_elect_resource_name.clone().unwrap_or_else(|| component.to_owned()),
        identity: format!("{host}_{}", uuid::Uuid::new_v4()),
        recorder: Recorder::new(client, component, ""),
        options: options.clone(),
        host,
    };
    let stop = stop.clone();
    let term = tokio::task::spawn_local(async move {
        match candidate.options.leader_elect {
            true => candidate.run(leads, stop).await,
            // Nobody to agree with: the channel must only stay open.
            false => stop.cancelled().await,
        }
    });
    (Leadership(told), term)
}

impl Candidate {
    async fn run(self, leads: watch::Sender<bool>, stop: CancellationToken) {
        info!("attempting to acquire leader lease {}...", self.shown());
        let mut lease = tokio::select! {
            lease = self.acquire() => lease,
            () = stop.cancelled() => return,
        };
        info!("successfully acquired lease {}", self.shown());
        let message = format!("{} became leader", self.identity);
        self.recorder.event(&reference(&lease), Kind::Normal, "LeaderElection", message);
        let _ = leads.send(true);
        tokio::select! {
            () = self.hold(&mut lease) => {
                error!("failed to renew lease {}: leaderelection lost", self.shown());
                stop.cancel();
            }
            () = stop.cancelled() => self.release(lease).await,
        }
    }

    fn shown(&self) -> String {
        format!("{}/{}", self.options.leader_elect_resource_namespace, self.name)
    }

    /// Tries until the lease is ours.
    async fn acquire(&self) -> Lease {
        // Somebody else's lease is judged by how long it stood still here, never by its own clock.
        let mut seen: Option<(Option<LeaseSpec>, Instant)> = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                Err(error) => {
                    warn!(error = go_text(&error), "error retrieving resource lock {}", self.shown())
                }
            }
            tokio::time::sleep(self.options.leader_elect_retry_period).await;
        }
    }

    async fn attempt(
        &self,
        seen: &mut Option<(Option<LeaseSpec>, Instant)>,
    ) -> Result<Option<Lease>, kube::Error> {
        let mut fresh = Lease::default();
        fresh.metadata.name = Some(self.name.clone());
        fresh.spec = Some(self.spec(None));
        match self.api.create(&PostParams::default(), &fresh).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            other => return other.map(Some),
        }
        let mut lease = self.api.get(&self.name).await?;
        if seen.as_ref().is_none_or(|(spec, _)| *spec != lease.spec) {
            *seen = Some((lease.spec.clone(), Instant::now()));
        }
        let since = seen.as_ref().map_or_else(Instant::now, |(_, at)| *at);
        if !self.may_take(lease.spec.as_ref(), since.elapsed()) {
            return Ok(None);
        }
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            other => other.map(Some),
        }
    }

    /// Whether the lease is free: given back, run out, or held by a dead process of this host.
    fn may_take(&self, spec: Option<&LeaseSpec>, stood_still: Duration) -> bool {
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let own_host = holder.split_once('_').is_some_and(|(host, _)| host == self.host);
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        holder.is_empty() || own_host || stood_still > life
    }

    /// What the lease says when it is ours.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let same = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let seconds = self.options.leader_elect_lease_duration.as_secs();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            acquire_time: if same { before.and_then(|spec| spec.acquire_time.clone()) } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(transitions + i32::from(before.is_some() && !same)),
            ..LeaseSpec::default()
        }
    }

    /// Renews; returns when it could not for too long.
    async fn hold(&self, lease: &mut Lease) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.options.leader_elect_renew_deadline {
            tokio::time::sleep(self.options.leader_elect_retry_period).await;
            let mut next = lease.clone();
            next.spec = Some(self.spec(lease.spec.as_ref()));
            let how = PostParams::default();
            let write = self.api.replace(&self.name, &how, &next);
            match tokio::time::timeout(self.options.leader_elect_renew_deadline, write).await {
                Ok(Ok(written)) => (*lease, renewed) = (written, Instant::now()),
                Ok(Err(kube::Error::Api(status))) if status.code == 409 || status.code == 404 => {
                    match self.attempt(&mut None).await {
                        Ok(Some(taken)) => (*lease, renewed) = (taken, Instant::now()),
                        // Another process leads now.
                        Ok(None) => return,
                        Err(error) => {
                            warn!(error = go_text(&error), "error retrieving resource lock {}", self.shown())
                        }
                    }
                }
                Ok(Err(error)) => warn!(error = go_text(&error), "Failed to update lease {}", self.shown()),
                Err(_) => return,
            }
        }
    }

    /// Gives the lease back, so that a successor need not wait.
    async fn release(&self, mut lease: Lease) {
        let now = Some(MicroTime(Timestamp::now()));
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: transitions,
            ..LeaseSpec::default()
        });
        let how = PostParams::default();
        let write = self.api.replace(&self.name, &how, &lease);
        if !matches!(tokio::time::timeout(Duration::from_millis(200), write).await, Ok(Ok(_))) {
            warn!("Failed to release lease {}", self.shown());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        leader: LeaderOptions,
    }

    fn candidate() -> Candidate {
        let client = Client::new(
            tower::service_fn(|_: http::Request<kube::client::Body>| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
            }),
            "default",
        );
        Candidate {
            api: Api::namespaced(client.clone(), "kube-system"),
            options: Flags::parse_from(["x"]).leader,
            name: "kube-scheduler".into(),
            identity: "control_1".into(),
            host: "control".into(),
            recorder: Recorder::new(client, "x", ""),
        }
    }

    #[tokio::test]
    async fn a_lease_is_taken_when_it_is_free_run_out_or_of_a_dead_process_here() {
        let candidate = candidate();
        let held = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let now = Duration::ZERO;
        assert!(candidate.may_take(Some(&held("")), now));
        assert!(candidate.may_take(Some(&held("control_2")), now));
        assert!(!candidate.may_take(Some(&held("elsewhere_2")), now));
        assert!(candidate.may_take(Some(&held("elsewhere_2")), Duration::from_secs(16)));
    }

    #[tokio::test]
    async fn only_a_change_of_holder_counts_as_a_transition() {
        let candidate = candidate();
        let first = candidate.spec(None);
        assert_eq!((first.lease_transitions, first.lease_duration_seconds), (Some(0), Some(15)));
        let renewed = candidate.spec(Some(&first));
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(0), &first.acquire_time));
        let other = LeaseSpec { holder_identity: Some("control_0".into()), ..first };
        assert_eq!(candidate.spec(Some(&other)).lease_transitions, Some(1));
    }
}
