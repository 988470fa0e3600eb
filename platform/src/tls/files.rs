//! The files of TLS as they are on the disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
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
    Ok(tidy(&contents))
}

/// Without what editors and `cat` leave in PEM, which the parser refuses or skips: byte order marks, blanks around lines,
/// and two blocks on one line.
fn tidy(pem: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(pem).replace('\u{feff}', "").replace("----------", "-----\n-----");
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n").into_bytes()
}

/// All certificates of a PEM file, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "it is not PEM: expected BEGIN CERTIFICATE, base64, END CERTIFICATE".to_owned())?;
    // The parser skips kinds that it does not know.
    let text = String::from_utf8_lossy(pem);
    let other = text.lines().find(|line| {
        line.starts_with("-----BEGIN ")
            && (line.ends_with(" CERTIFICATE-----") || line.ends_with("PKCS7-----"))
            && *line != "-----BEGIN CERTIFICATE-----"
    });
    match other {
        Some(line) => Err(format!("'{line}': only BEGIN CERTIFICATE is read")),
        None if found.is_empty() => Err("there is no BEGIN CERTIFICATE in it".to_owned()),
        None => Ok(found),
    }
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

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    #[test]
    fn no_certificate_of_a_file_is_dropped() {
        let pem = || generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let found = |text: &str| certificates(&tidy(text.as_bytes())).map(|found| found.len());
        let (one, two) = (pem(), pem());
        let (one, two) = (one.trim_end(), two.trim_end());
        assert_eq!(found(&format!("{one}\n{two}\n")), Ok(2));
        assert_eq!(found(&format!("{one}{two}")), Ok(2));
        assert_eq!(found(&format!("\u{feff}{one}\n\u{feff}{two}")), Ok(2));
        assert_eq!(found(&format!("  {one} \n{two}").replace('\n', " \t\r\n  ")), Ok(2));
        let trusted = two.replace("CERTIFICATE-----", "TRUSTED CERTIFICATE-----");
        let error = found(&format!("{one}\n{trusted}\n")).unwrap_err();
        assert!(error.contains("'-----BEGIN TRUSTED CERTIFICATE-----': only BEGIN CERTIFICATE"), "{error}");
        let error = found(&format!("{one}\n{}", two.replacen("MII", "M!I", 1))).unwrap_err();
        assert!(error.contains("is not PEM: expected BEGIN CERTIFICATE"), "{error}");
    }
}
