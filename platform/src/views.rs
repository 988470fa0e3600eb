//! HTML views and static files: their folder, and the version of each file for its URL.
//!
//! Templates are in `views/templates`; askama compiles them into the binary. Static files stay in `views/static`. The
//! URL of a static file has a hash of its content, so a browser can cache the file for ever and still sees a change at
//! once.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::error::StartError;

/// Section `views`; `defaults/views.yaml` explains each key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The folder of the static files.
    pub static_dir: PathBuf,
}

/// The static files of the server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Assets {
    dir: Arc<Path>,
    versions: Arc<HashMap<String, String>>,
}

/// Folders below this depth are not read. This ends a loop of symbolic links.
const MAX_DEPTH: usize = 16;

impl Assets {
    /// Reads the folder once. If it does not exist, the app has no static files.
    pub fn open(settings: &Settings) -> Result<Self, StartError> {
        let mut versions = HashMap::new();
        let dir = &settings.static_dir;
        if dir.exists() {
            let failed = |error: io::Error| {
                StartError::failed(format!("views.static_dir: cannot read {}: {error}", dir.display()))
            };
            collect(dir, "", MAX_DEPTH, &mut versions).map_err(failed)?;
        } else {
            tracing::warn!(target: "server", "views.static_dir: there is no folder {}, so /static has no files", dir.display());
        }
        Ok(Self { dir: Arc::from(dir.as_path()), versions: Arc::new(versions) })
    }

    /// The URL of a file, with its version: `/static/site.css?v=5d41402a`.
    pub fn url(&self, file: &str) -> String {
        match self.versions.get(file) {
            Some(version) => format!("/static/{file}?v={version}"),
            None => format!("/static/{file}"),
        }
    }

    /// Whether this is the version that the file had at the start.
    pub fn is_current(&self, file: &str, version: &str) -> bool {
        self.versions.get(file).is_some_and(|current| current == version)
    }

    /// The folder of the files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn collect(dir: &Path, prefix: &str, depth: usize, versions: &mut HashMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_dir() {
            if depth > 0 {
                collect(&path, &format!("{prefix}{name}/"), depth - 1, versions)?;
            }
        } else if path.is_file() {
            // A pipe would make the start wait for its writer. 64 of the 128 bits are enough to distinguish versions of one file.
            let version = format!("{:016x}", XxHash3_128::oneshot(&fs::read(&path)?) >> 64);
            versions.insert(format!("{prefix}{name}"), version);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_file_changes_with_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { static_dir: dir.path().to_owned() };
        fs::create_dir(dir.path().join("css")).unwrap();
        fs::write(dir.path().join("css/a.css"), "one").unwrap();
        let before = Assets::open(&settings).unwrap().url("css/a.css");
        fs::write(dir.path().join("css/a.css"), "two").unwrap();
        let after = Assets::open(&settings).unwrap().url("css/a.css");
        assert!(before.starts_with("/static/css/a.css?v="), "{before}");
        assert_ne!(before, after);
    }
}
