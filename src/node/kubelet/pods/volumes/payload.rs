//! The files of configMap, secret, projected and downwardAPI volumes.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection,
};

use super::super::PodError;
use super::super::downward::{Surroundings, field, resource};
use super::super::objects::{Fetched, Objects, Source};
use super::atomic::{File, Given, Payload, stays_inside};

const DEFAULT_MODE: i32 = 0o644;
/// Upstream's default life of a projected token.
const TOKEN_SECONDS: i64 = 3600;

/// One source of files.
enum Part<'a> {
    Object { source: Source, name: &'a str, items: Option<&'a [KeyToPath]>, optional: bool },
    Downward(&'a [DownwardAPIVolumeFile]),
    Token { audience: &'a str, seconds: i64, path: &'a str },
}

/// What a volume's files are made from.
pub struct Gather<'a> {
    pub pod: &'a Pod,
    pub around: &'a Surroundings,
    pub objects: &'a Objects,
}

impl Gather<'_> {
    /// The volume's files; nothing for volumes of other kinds.
    pub async fn payload(&self, volume: &Volume) -> Result<Option<Payload>, PodError> {
        let Some((parts, mode)) = parts(volume)? else { return Ok(None) };
        let mut fetched = Fetched::default();
        let mut payload = Payload::new();
        for part in &parts {
            match part {
                Part::Object { source, name, items, optional } => {
                    self.objects.fetch(&mut fetched, &[(*source, (*name).to_owned())]).await?;
                    self.object(&fetched, (*source, name), (*items, *optional), mode, &mut payload)?;
                }
                Part::Downward(files) => self.downward(files, mode, &mut payload)?,
                Part::Token { audience, seconds, path } => {
                    let token = self.objects.token(self.pod, audience, *seconds).await?;
                    put(&mut payload, path, token.into_bytes(), mode)?;
                    self.tighten(&mut payload, &PathBuf::from(path));
                }
            }
        }
        if let Some(group) = self.fs_group() {
            // What the volume's group may read (`SetVolumeOwnership` of a read-only volume).
            for file in payload.values_mut() {
                let before = file.given.unwrap_or(Given { user: None, group: None, mode: file.mode });
                file.given = Some(Given { group: Some(group), mode: before.mode | 0o440, ..before });
            }
        }
        Ok(Some(payload))
    }

    fn fs_group(&self) -> Option<u32> {
        let security = self.pod.spec.as_ref()?.security_context.as_ref()?;
        security.fs_group.and_then(|group| u32::try_from(group).ok()).filter(|group| *group != 0)
    }

    /// A token is for the containers' user alone, where they all have the same one, or for the pod's group.
    fn tighten(&self, payload: &mut Payload, path: &PathBuf) {
        let user = self.only_user();
        if let Some(file) = payload.get_mut(path)
            && (user.is_some() || self.fs_group().is_some())
        {
            file.given = Some(Given { user, group: None, mode: 0o600 });
        }
    }

    /// The user every container runs as, if it is one (`FsUserFrom`).
    fn only_user(&self) -> Option<u32> {
        let spec = self.pod.spec.as_ref()?;
        let of_pod = spec.security_context.as_ref().and_then(|security| security.run_as_user);
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        let own = |one: &Container| one.security_context.as_ref().and_then(|security| security.run_as_user);
        let mut users = all.map(|one| own(one).or(of_pod));
        let first = users.next()??;
        users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
    }

    fn object(
        &self,
        fetched: &Fetched,
        (source, name): (Source, &str),
        (items, optional): (Option<&[KeyToPath]>, bool),
        mode: i32,
        payload: &mut Payload,
    ) -> Result<(), PodError> {
        let Some(data) = fetched.get(source, name) else {
            return if optional {
                Ok(())
            } else {
                Err(PodError::Missing { what: source.word(), name: name.into() })
            };
        };
        let Some(items) = items else {
            return data.iter().try_for_each(|(key, bytes)| put(payload, key, bytes.clone(), mode));
        };
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => put(payload, &item.path, bytes.clone(), item.mode.unwrap_or(mode))?,
                None if optional => {}
                None => {
                    return Err(PodError::Volume(format!(
                        "references non-existent {} key: {}",
                        source.word(),
                        item.key
                    )));
                }
            }
        }
        Ok(())
    }

    fn downward(
        &self,
        files: &[DownwardAPIVolumeFile],
        mode: i32,
        payload: &mut Payload,
    ) -> Result<(), PodError> {
        for file in files {
            let text = match (&file.field_ref, &file.resource_field_ref) {
                (Some(selector), _) => field(self.pod, selector, self.around)?,
                (None, Some(selector)) => {
                    let name = selector.container_name.as_deref().unwrap_or_default();
                    let containers = self.pod.spec.iter().flat_map(|spec| &spec.containers);
                    let container = containers.into_iter().find(|container| container.name == name);
                    let unknown = || PodError::Config(format!("container {name} not found"));
                    resource(container.ok_or_else(unknown)?, selector, self.around)?
                }
                (None, None) => continue,
            };
            put(payload, &file.path, text.into_bytes(), file.mode.unwrap_or(mode))?;
        }
        Ok(())
    }
}

fn put(payload: &mut Payload, path: &str, bytes: Vec<u8>, mode: i32) -> Result<(), PodError> {
    let path = PathBuf::from(path);
    if !stays_inside(&path) {
        return Err(PodError::Volume(format!("invalid path: {}", path.display())));
    }
    payload.insert(path, File { bytes, mode: u32::try_from(mode & 0o777).unwrap_or(0o644), given: None });
    Ok(())
}

/// A volume's sources and its default mode.
fn parts(volume: &Volume) -> Result<Option<(Vec<Part<'_>>, i32)>, PodError> {
    if let Some(map) = &volume.config_map {
        let part = Part::Object {
            source: Source::ConfigMap,
            name: &map.name,
            items: map.items.as_deref(),
            optional: map.optional == Some(true),
        };
        return Ok(Some((vec![part], map.default_mode.unwrap_or(DEFAULT_MODE))));
    }
    if let Some(secret) = &volume.secret {
        let part = Part::Object {
            source: Source::Secret,
            name: secret.secret_name.as_deref().unwrap_or_default(),
            items: secret.items.as_deref(),
            optional: secret.optional == Some(true),
        };
        return Ok(Some((vec![part], secret.default_mode.unwrap_or(DEFAULT_MODE))));
    }
    if let Some(downward) = &volume.downward_api {
        let files = downward.items.as_deref().unwrap_or_default();
        return Ok(Some((vec![Part::Downward(files)], downward.default_mode.unwrap_or(DEFAULT_MODE))));
    }
    let Some(projected) = &volume.projected else { return Ok(None) };
    let parts: Result<Vec<Part<'_>>, PodError> = projected.sources.iter().flatten().map(projection).collect();
    Ok(Some((parts?, projected.default_mode.unwrap_or(DEFAULT_MODE))))
}

fn projection(source: &VolumeProjection) -> Result<Part<'_>, PodError> {
    if let Some(map) = &source.config_map {
        let items = map.items.as_deref();
        let optional = map.optional == Some(true);
        return Ok(Part::Object { source: Source::ConfigMap, name: &map.name, items, optional });
    }
    if let Some(secret) = &source.secret {
        let items = secret.items.as_deref();
        let optional = secret.optional == Some(true);
        return Ok(Part::Object { source: Source::Secret, name: &secret.name, items, optional });
    }
    if let Some(downward) = &source.downward_api {
        return Ok(Part::Downward(downward.items.as_deref().unwrap_or_default()));
    }
    if let Some(token) = &source.service_account_token {
        return Ok(Part::Token {
            audience: token.audience.as_deref().unwrap_or_default(),
            seconds: token.expiration_seconds.unwrap_or(TOKEN_SECONDS),
            path: &token.path,
        });
    }
    Err(PodError::Volume("this kind of projection is not supported by this kubelet".into()))
}
