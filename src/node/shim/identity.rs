//! Who a container's process is: from numbers the pod gives, or names the image's own files explain.
//!
//! Where the lab has only one id (no newuidmap and `/etc/subuid`) another user than root is made by one more
//! user namespace in which nobody else exists. What that cannot do is refused with the remedy.

use std::fs;
use std::path::Path;

use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::protocol::{Refusal, RefusalKind};
use super::spec::{SandboxSpec, Security};
use crate::sys::container::{self, Ids};

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, without `gid`.
    pub groups: Vec<u32>,
    pub home: String,
}

impl Identity {
    /// Resolves in the root this process sees: call it inside the container.
    pub fn resolve(security: &Security, image_user: &str) -> Result<Identity, Refusal> {
        let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
        Identity::resolve_in(security, image_user, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn resolve_in(
        security: &Security,
        image_user: &str,
        passwd: &str,
        group: &str,
    ) -> Result<Identity, Refusal> {
        let (image_user, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
        let wanted = security.run_as_user.map(|uid| uid.to_string());
        let wanted = wanted.as_deref().unwrap_or(if image_user.is_empty() { "0" } else { image_user });
        let account = rows(passwd).find(|row| row[0] == wanted || row.get(2) == Some(&wanted));
        let uid = match (wanted.parse(), &account) {
            (Ok(uid), _) => uid,
            (_, Some(row)) => number(row, 2),
            _ => return Err(unknown("user", wanted, "passwd")),
        };
        let primary = account.as_ref().map_or(0, |row| number(row, 3));
        let gid = match (security.run_as_group, image_group) {
            (Some(gid), _) => gid,
            (None, name) if !name.is_empty() && security.run_as_user.is_none() => find_group(group, name)?,
            _ => primary,
        };
        let name = account.as_ref().map(|row| row[0]).unwrap_or_default();
        let member = |row: &Vec<&str>| row.get(3).is_some_and(|list| list.split(',').any(|one| one == name));
        let memberships =
            rows(group).filter(|row| !name.is_empty() && member(row)).map(|row| number(&row, 2));
        let mut groups: Vec<u32> = memberships.chain(security.supplemental_groups.iter().copied()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|other| *other != gid);
        let home =
            account.and_then(|row| row.get(5).filter(|home| !home.is_empty()).map(|home| home.to_string()));
        Ok(Identity { uid, gid, groups, home: home.unwrap_or_else(|| "/".to_owned()) })
    }

    /// How this identity can be taken on with the ids there are.
    pub fn way(&self, users: &Ids, groups: &Ids) -> Result<Way, Refusal> {
        let known = users.contains(self.uid) && groups.contains(self.gid);
        if known && self.groups.iter().all(|gid| groups.contains(*gid)) {
            return Ok(Way::Switch);
        }
        if self.groups.is_empty() {
            return Ok(Way::OnlyUser);
        }
        let message = format!(
            "failed to generate container spec: supplemental groups {:?} do not exist in this lab, which has {}: \
             install newuidmap (package uidmap) and give your user a range in /etc/subuid and /etc/subgid, or \
             start the lab with sudo",
            self.groups,
            if users.only_root() { "only one id" } else { "no such ids" },
        );
        Err(Refusal::new(RefusalKind::Config, message))
    }

    /// Becomes it. Capabilities this process has left are gone afterwards unless it is root.
    pub fn take_on(&self) -> nix::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        match nix::unistd::setgroups(&groups) {
            // Denied for good in a user namespace mapped without privileges; then nothing was asked for.
            Err(nix::Error::EPERM) if groups.is_empty() => {}
            result => result?,
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)
    }

    /// Enters the namespace in which only this identity exists.
    pub fn become_only(&self) -> std::io::Result<()> {
        container::become_only(self.uid, self.gid)
    }
}

/// How to become an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// setuid, as always.
    Switch,
    /// One more user namespace, with no other id in it.
    OnlyUser,
}

/// `runAsNonRoot`, checked in the kubelet's words before anything is made.
pub fn verify_non_root(
    security: &Security,
    image_user: &str,
    pod: &SandboxSpec,
    container: &str,
) -> Result<(), Refusal> {
    if !security.run_as_non_root {
        return Ok(());
    }
    let pod = format!("{}_{}({})", pod.pod_name, pod.pod_namespace, pod.pod_uid);
    let place = format!("(pod: {pod:?}, container: {container})");
    let user = image_user.split(':').next().unwrap_or_default();
    let message = match (security.run_as_user, user) {
        (Some(0), _) => format!("container's runAsUser breaks non-root policy {place}"),
        (Some(_), _) => return Ok(()),
        (None, "" | "0") => format!("container has runAsNonRoot and image will run as root {place}"),
        (None, user) if user.parse::<u32>().is_err() => format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
        ),
        _ => return Ok(()),
    };
    Err(Refusal::new(RefusalKind::Config, message))
}

fn rows(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().map(|line| line.trim().split(':').collect())
}

fn number(row: &[&str], column: usize) -> u32 {
    row.get(column).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn find_group(file: &str, name: &str) -> Result<u32, Refusal> {
    match name.parse() {
        Ok(gid) => Ok(gid),
        Err(_) => rows(file)
            .find(|row| row[0] == name)
            .map(|row| number(&row, 2))
            .ok_or_else(|| unknown("group", name, "group")),
    }
}

fn unknown(what: &str, name: &str, file: &str) -> Refusal {
    let text = format!("unable to find {what} {name}: no matching entries in {file} file");
    Refusal::create("failed to create shim task: OCI runtime create failed", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:7:other,web\n";

    #[test]
    fn numbers_and_names_are_completed_from_the_images_files() {
        let none = Security::default();
        let resolve =
            |security: &Security, user| Identity::resolve_in(security, user, PASSWD, GROUP).unwrap();
        let web = Identity { uid: 101, gid: 102, groups: vec![7], home: "/srv".into() };
        assert_eq!(resolve(&none, "web"), web);
        assert_eq!(resolve(&Security { run_as_user: Some(101), ..none.clone() }, ""), web);
        assert_eq!(resolve(&none, "web:logs").gid, 7);
        assert_eq!(resolve(&Security { run_as_user: Some(5000), ..none.clone() }, "web").gid, 0);
        assert!(Identity::resolve_in(&none, "nobody", PASSWD, GROUP).is_err());
    }

    #[test]
    fn an_image_of_root_is_refused_where_non_root_is_asked_for() {
        let pod = super::super::sandbox::tests::pod("web");
        let security = Security { run_as_non_root: true, ..Security::default() };
        let text = verify_non_root(&security, "", &pod, "c").unwrap_err().message;
        assert!(
            text.starts_with("container has runAsNonRoot and image will run as root (pod: \"web_"),
            "{text}"
        );
        assert!(verify_non_root(&security, "1000", &pod, "c").is_ok());
        assert!(verify_non_root(&Security { run_as_user: Some(1), ..security }, "", &pod, "c").is_ok());
    }
}
