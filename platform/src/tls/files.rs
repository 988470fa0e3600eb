//! The files of TLS as they are on the disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::settings::{ClientCertificates, Settings};

/// The largest file that is read: hundreds of certificates of authorities fit into it.
const MAX_SIZE: u64 = 1 << 20;

/// The contents of the files.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Files {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    /// The authorities of clients, if those are asked for certificates.
    pub(super) ca: Option<Vec<u8>>,
}

impl Files {
    /// Reads them. The error names the key of the configuration and the file.
    pub(super) fn read(settings: &Settings) -> Result<Self, String> {
        let ca = match settings.clients.certificates {
            ClientCertificates::None => None,
            _ => Some(read("clients.ca", &settings.clients.ca)?),
        };
        let certificate = read("certificate", &settings.certificate).map_err(with_advice)?;
        let key = read("key", &settings.key).map_err(with_advice)?;
        Ok(Self { certificate, key, ca })
    }
}

/// What to do about a pair that cannot be used.
pub(super) fn with_advice(error: String) -> String {
    format!("{error}; `make keys` writes a pair for development")
}

/// How a file is named in an error.
pub(super) fn named(key: &str, path: &Path) -> String {
    format!("server.tls.{key} {}", path.display())
}

/// Reads the file that the key `server.tls.KEY` names.
pub(super) fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", named(key, path));
    if path.as_os_str().is_empty() {
        return Err(wrong(&"expected the path of a PEM file"));
    }
    let contents = contents(path).map_err(|error| wrong(&error))?;
    if contents.trim_ascii().is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    Ok(contents)
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    // To open a named pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let mut contents = Vec::new();
    let length = File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut contents)?;
    if length as u64 > MAX_SIZE {
        return Err(io::Error::other("is larger than 1 MiB"));
    }
    Ok(contents)
}

/// Whether every user of the machine may read the file.
pub(super) fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
