//! A pair for development: a certificate for this machine, signed by itself.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use super::settings::Settings;
use crate::error::StartError;

/// What the certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_hours(24);

/// How long it is valid. Browsers refuse certificates for longer than 398 days.
const VALID_FOR: Duration = Duration::from_hours(397 * 24);

/// Writes the two files of the settings, the key readable for this user only. Files that exist are replaced only with
/// `overwrite`. Returns what was done, for people.
pub fn write_pair(settings: &Settings, overwrite: bool) -> Result<String, StartError> {
    let (certificate, key) = (&settings.certificate, &settings.key);
    if !overwrite && let Some(there) = [certificate, key].into_iter().find(|path| path.exists()) {
        return Err(StartError::failed(format!(
            "{} is there already; --overwrite (make keys ARGS=--overwrite) replaces the pair",
            there.display()
        )));
    }
    let (certificate_pem, key_pem) =
        generate().map_err(|error| StartError::failed(format!("cannot make a certificate: {error}")))?;
    // A server that runs reads them meanwhile; it waits until the second one fits the first.
    for (path, pem, mode) in [(key, key_pem, 0o600), (certificate, certificate_pem, 0o644)] {
        write(path, &pem, mode)
            .map_err(|error| StartError::failed(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(format!(
        "{} and {}: for {}, {} days, for development only. No client trusts it by itself: curl --cacert {}",
        certificate.display(),
        key.display(),
        NAMES.join(", "),
        VALID_FOR.as_secs() / DAY.as_secs(),
        certificate.display(),
    ))
}

fn generate() -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "localhost, for development");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // The clock of a virtual machine that connects to this one may be behind.
    let from = SystemTime::now() - DAY;
    params.not_before = from.into();
    params.not_after = (from + VALID_FOR).into();
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Writes the file as a whole: a reader sees the old one or the new one.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let new = PathBuf::from(format!("{}.new", path.display()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // Left by a run that was stopped; or none, as usual.
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use x509_parser::extensions::GeneralName;
    use x509_parser::pem::parse_x509_pem;

    use super::*;

    #[test]
    fn the_certificate_is_for_each_name_of_this_machine_and_browsers_take_its_time() {
        let (certificate, _) = generate().unwrap();
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let expected = [
            GeneralName::DNSName("localhost"),
            GeneralName::IPAddress(&[127, 0, 0, 1]),
            GeneralName::IPAddress(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ];
        assert_eq!(names.value.general_names, expected);
        let validity = certificate.validity();
        assert!(validity.not_after.timestamp() - validity.not_before.timestamp() <= 398 * 24 * 3600);
    }
}
