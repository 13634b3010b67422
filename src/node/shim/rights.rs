//! What a container's processes may do: their user, capabilities, seccomp filter and no-new-privileges.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};

use super::identity::{Identity, Way};
use super::program::Errand;
use super::protocol::Refusal;
use super::spec::Security;
use crate::sys::capabilities::Capabilities;
use crate::sys::container::Ids;
use crate::sys::seccomp::{self, Profile};

/// The rights a container's specification gives.
#[derive(Debug, Clone)]
pub struct Rights {
    pub security: Security,
    pub capabilities: Capabilities,
}

/// A container's user and how it was taken on: every command in the container runs as the same.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct User {
    pub identity: Identity,
    pub way: Way,
}

impl User {
    /// The one the pod or else the image asks for. Call it inside the container: the image's files count.
    pub fn resolve(security: &Security, image_user: &str) -> Result<User, Refusal> {
        let failed = |error: std::io::Error| Errand::Create.failed("read the id maps", error);
        let identity = Identity::resolve(security, image_user)?;
        let users = Ids::own("uid_map").map_err(failed)?;
        let groups = Ids::own("gid_map").map_err(failed)?;
        let way = identity.way(&users, &groups)?;
        Ok(User { identity, way })
    }
}

impl Rights {
    /// Takes them on for good: user, capabilities, seccomp. In this order: a filter without no-new-privileges
    /// needs CAP_SYS_ADMIN, dropping from the bounding set needs CAP_SETPCAP, and both are gone after setuid.
    /// `container` is the way into the namespaces of one that runs already.
    pub fn take_on(&self, user: &User, container: Option<&OwnedFd>, errand: &Errand) -> Result<(), Refusal> {
        let failed = |step: &'static str| move |error: std::io::Error| errand.failed(step, error);
        match (user.way, container) {
            (Way::Switch, _) => {}
            (Way::OnlyUser, None) => {
                user.identity.become_only().map_err(failed("enter a user namespace for the user"))?;
            }
            (Way::OnlyUser, Some(container)) => setns(container, CloneFlags::CLONE_NEWUSER)
                .map_err(|error| errand.failed("join the user's namespace", error))?,
        }
        self.capabilities.bound().map_err(failed("drop capabilities"))?;
        let no_new_privileges =
            self.security.allow_privilege_escalation == Some(false) && !self.security.privileged;
        let profile = self.profile(errand)?;
        if let (Some(profile), false) = (&profile, no_new_privileges) {
            profile.load().map_err(failed("load the seccomp filter"))?;
        }
        if user.way == Way::Switch {
            user.identity.take_on().map_err(|error| errand.failed("setup user", error))?;
        }
        if no_new_privileges {
            seccomp::no_new_privileges().map_err(failed("set no_new_privs"))?;
            if let Some(profile) = &profile {
                profile.load().map_err(failed("load the seccomp filter"))?;
            }
        }
        Ok(())
    }

    fn profile(&self, errand: &Errand) -> Result<Option<Profile>, Refusal> {
        match (self.security.seccomp.as_deref(), self.security.privileged) {
            (Some("RuntimeDefault"), false) => Profile::runtime_default(self.capabilities)
                .map(Some)
                .map_err(|error| errand.failed("make the seccomp filter", error)),
            _ => Ok(None),
        }
    }
}
