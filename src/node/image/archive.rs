//! Image archives: what `docker save` writes and OCI image layouts in a tar.
//!
//! Stands for `ctr images import`. The archive is read where it lies: one pass notes where each file begins,
//! then manifests and layers are read by offset. Left out on purpose: layers in zstd, and archives inside
//! archives; an archive compressed as a whole is unpacked first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::Value;

use super::{ImageError, Reference, arch};

/// Manifests and configurations are small (docker's own limit).
const MOST_JSON: u64 = 4 << 20;
/// Files in an archive: each image has a handful.
const MOST_FILES: usize = 10_000;
/// Images of one archive.
const MOST_IMAGES: usize = 256;
/// How deep indexes lie in each other.
const DEEPEST: usize = 4;

/// An archive whose files are known.
pub struct Archive {
    file: File,
    places: BTreeMap<String, (u64, u64)>,
}

/// One image of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub names: Vec<Reference>,
    /// The digest of its manifest, where it has one.
    pub manifest: Option<String>,
    /// Files of the archive.
    pub config: String,
    pub layers: Vec<String>,
}

fn broken(what: impl Into<String>) -> ImageError {
    ImageError::Archive { what: what.into() }
}

fn unreadable(source: io::Error) -> ImageError {
    ImageError::Read { source }
}

impl Archive {
    /// Reads what is in it; `spool` makes a file for one that is compressed as a whole.
    pub fn open(mut file: File, spool: impl FnOnce() -> io::Result<File>) -> Result<Archive, ImageError> {
        if is_gzip(&mut file).map_err(unreadable)? {
            let mut plain = spool().map_err(unreadable)?;
            io::copy(&mut MultiGzDecoder::new(&file), &mut plain).map_err(unreadable)?;
            file = plain;
        }
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let mut places = BTreeMap::new();
        let mut links = Vec::new();
        let mut tar = tar::Archive::new(&file);
        for entry in tar.entries_with_seek().map_err(unreadable)? {
            let entry = entry.map_err(|_| broken("it is no tar archive"))?;
            let path = entry.path().map_err(unreadable)?.to_string_lossy().into_owned();
            let path = path.trim_start_matches("./").to_owned();
            if entry.header().entry_type().is_symlink()
                && let Ok(Some(target)) = entry.link_name()
            {
                links.push((path, target.to_string_lossy().into_owned()));
                continue;
            }
            places.insert(path, (entry.raw_file_position(), entry.size()));
            if places.len() > MOST_FILES {
                return Err(broken(format!("it has more than {MOST_FILES} files")));
            }
        }
        // Old `docker save` writes a layer that two images share once, and a link to it.
        for (path, target) in links {
            let target = target.trim_start_matches("../").to_owned();
            if let Some(place) = places.get(&target).copied() {
                places.insert(path, place);
            }
        }
        Ok(Archive { file, places })
    }

    /// Its images. `name` is for one that bears none.
    pub fn images(&self, name: Option<&Reference>) -> Result<Vec<Found>, ImageError> {
        let mut found =
            match (self.places.contains_key("manifest.json"), self.places.contains_key("index.json")) {
                (true, _) => self.saved()?,
                (false, true) => self.layout()?,
                (false, false) => {
                    let what = "it has neither manifest.json (docker save) nor index.json (OCI)";
                    return Err(broken(what));
                }
            };
        if found.is_empty() {
            return Err(broken(format!("it has no image for linux/{}", arch())));
        }
        if let (Some(name), [only]) = (name, &mut found[..]) {
            only.names = vec![name.clone()];
        }
        match found.iter().find(|image| image.names.is_empty()) {
            Some(_) => Err(broken("an image in it has no name; give it one with --as NAME")),
            None => Ok(found),
        }
    }

    /// `docker save`.
    fn saved(&self) -> Result<Vec<Found>, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let saved: Vec<Saved> = self.json("manifest.json")?;
        let read = |image: Saved| {
            let names = image.repo_tags.iter().flatten().map(|name| Reference::parse(name));
            Ok(Found {
                names: names.collect::<Result<_, _>>()?,
                manifest: None,
                config: image.config,
                layers: image.layers,
            })
        };
        saved.into_iter().take(MOST_IMAGES).map(read).collect()
    }

    /// An OCI image layout.
    fn layout(&self) -> Result<Vec<Found>, ImageError> {
        let mut found = Vec::new();
        let index: Value = self.json("index.json")?;
        for entry in index["manifests"].as_array().into_iter().flatten().take(MOST_IMAGES) {
            found.extend(self.described(entry, DEEPEST)?);
        }
        Ok(found)
    }

    /// The image an index's entry leads to, where it is for this machine.
    fn described(&self, entry: &Value, depth: usize) -> Result<Option<Found>, ImageError> {
        if !for_this_machine(entry) {
            return Ok(None);
        }
        let digest = entry["digest"].as_str().unwrap_or_default();
        let manifest: Value = self.json(&blob(digest)?)?;
        if let (Some(entries), Some(depth)) = (manifest["manifests"].as_array(), depth.checked_sub(1)) {
            for inner in entries.iter().take(MOST_IMAGES) {
                if let Some(image) = self.described(inner, depth)? {
                    let names = names(entry)?;
                    let names = if names.is_empty() { image.names } else { names };
                    return Ok(Some(Found { names, manifest: Some(digest.to_owned()), ..image }));
                }
            }
            return Ok(None);
        }
        let path = |value: &Value| blob(value["digest"].as_str().unwrap_or_default());
        let layers = manifest["layers"].as_array().into_iter().flatten().map(path);
        Ok(Some(Found {
            names: names(entry)?,
            manifest: Some(digest.to_owned()),
            config: path(&manifest["config"])?,
            layers: layers.collect::<Result<_, _>>()?,
        }))
    }

    /// A small file, in full.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        let mut reader = self.reader(path)?;
        if reader.limit() > MOST_JSON {
            return Err(broken(format!("{path} is larger than {MOST_JSON} bytes")));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, ImageError> {
        serde_json::from_slice(&self.bytes(path)?).map_err(|error| broken(format!("{path}: {error}")))
    }

    /// A layer's tar, decompressed.
    pub fn layer(&self, path: &str) -> Result<Box<dyn Read + '_>, ImageError> {
        let mut reader = self.reader(path)?;
        let mut magic = [0; 4];
        let length = reader.read(&mut magic).map_err(unreadable)?;
        let reader = self.reader(path)?;
        match &magic[..length] {
            [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(io::BufReader::new(reader)))),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                Err(broken(format!("{path} is compressed with zstd, which is not read here")))
            }
            _ => Ok(Box::new(reader)),
        }
    }

    fn reader(&self, path: &str) -> Result<Take<&File>, ImageError> {
        let found = self.places.get(path.trim_start_matches("./"));
        let (start, length) = *found.ok_or_else(|| broken(format!("it has no {path}")))?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start)).map_err(unreadable)?;
        Ok(file.take(length))
    }
}

fn is_gzip(file: &mut File) -> io::Result<bool> {
    let mut magic = [0; 2];
    file.seek(SeekFrom::Start(0))?;
    let length = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(length == 2 && magic == [0x1f, 0x8b])
}

/// An entry that names no platform is for any.
pub fn for_this_machine(entry: &Value) -> bool {
    let platform = &entry["platform"];
    platform.is_null() || (platform["os"] == "linux" && platform["architecture"] == arch())
}

/// Where a layout keeps what has this digest.
fn blob(digest: &str) -> Result<String, ImageError> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| broken(format!("{digest:?} is no digest")))?;
    Ok(format!("blobs/sha256/{hex}"))
}

/// The names containerd and buildx leave; a bare tag names nothing.
fn names(entry: &Value) -> Result<Vec<Reference>, ImageError> {
    let notes = &entry["annotations"];
    let whole = notes["io.containerd.image.name"].as_str();
    let short = notes["org.opencontainers.image.ref.name"].as_str().filter(|name| name.contains(['/', ':']));
    whole.or(short).into_iter().map(Reference::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &str)]) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn open(files: &[(&str, &str)]) -> Archive {
        Archive::open(tar_of(files), tempfile::tempfile).unwrap()
    }

    #[test]
    fn docker_saves_archive_names_its_images_and_layers() {
        let manifest = r#"[{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["a/layer.tar"]}]"#;
        let archive = open(&[("manifest.json", manifest), ("c.json", "{}"), ("a/layer.tar", "bytes")]);
        let found = archive.images(None).unwrap();
        assert_eq!(found[0].names[0].to_string(), "docker.io/library/app:1");
        let mut layer = String::new();
        archive.layer("a/layer.tar").unwrap().read_to_string(&mut layer).unwrap();
        assert_eq!((layer.as_str(), archive.bytes("c.json").unwrap().as_slice()), ("bytes", &b"{}"[..]));
    }

    #[test]
    fn an_oci_layout_gives_the_image_of_this_machine() {
        let (index, inner, manifest) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let top = format!(
            r#"{{"manifests": [{{"digest": "sha256:{index}",
               "annotations": {{"io.containerd.image.name": "quay.io/x/y:2"}}}}]}}"#
        );
        let list = format!(
            r#"{{"manifests": [
               {{"digest": "sha256:{inner}", "platform": {{"os": "linux", "architecture": "s390x"}}}},
               {{"digest": "sha256:{manifest}", "platform": {{"os": "linux", "architecture": "{}"}}}}]}}"#,
            arch()
        );
        let image = format!(
            r#"{{"config": {{"digest": "sha256:{inner}"}}, "layers": [{{"digest": "sha256:{index}"}}]}}"#
        );
        let archive = open(&[
            ("index.json", &top),
            (&format!("blobs/sha256/{index}"), &list),
            (&format!("blobs/sha256/{manifest}"), &image),
        ]);
        let found = archive.images(None).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].names[0].to_string(), "quay.io/x/y:2");
        assert_eq!(found[0].layers, [format!("blobs/sha256/{index}")]);
        assert_eq!(found[0].manifest.as_deref(), Some(&*format!("sha256:{index}")));
    }

    #[test]
    fn what_is_no_archive_of_images_is_refused_by_name() {
        let text = |files: &[(&str, &str)]| open(files).images(None).unwrap_err().to_string();
        assert!(text(&[("hello", "x")]).contains("neither manifest.json"));
        assert!(text(&[("manifest.json", "{")]).contains("manifest.json: "));
        let nameless = r#"[{"Config": "c.json", "RepoTags": null, "Layers": []}]"#;
        assert!(text(&[("manifest.json", nameless)]).contains("--as NAME"));
    }
}
