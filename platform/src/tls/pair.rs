//! A certificate and its private key: whether they can be served with, and until when.

use jiff::Timestamp;
use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::{self, Files, named};
use super::settings::Settings;

/// A pair that can be served with.
pub(super) struct Pair {
    pub(super) key: CertifiedKey,
    /// The first second in which the certificate is valid.
    pub(super) from: Timestamp,
    /// The last second in which the certificate is valid.
    pub(super) expires: Timestamp,
}

impl Pair {
    /// Checks what was read, without the times of the certificate. The error names the file that is wrong.
    pub(super) fn check(
        files: &Files,
        settings: &Settings,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        Self::of(files, settings, provider).map_err(files::with_advice)
    }

    fn of(files: &Files, settings: &Settings, provider: &CryptoProvider) -> Result<Self, String> {
        let of_certificate = named("certificate", &settings.certificate);
        let of_key = named("key", &settings.key);
        let chain = files::certificates(&files.certificate);
        let chain = chain.map_err(|error| format!("{of_certificate}: {error}"))?;
        let (from, expires) = validity(&chain[0]).map_err(|error| format!("{of_certificate}: {error}"))?;
        if is_encrypted(&files.key) {
            return Err(format!(
                "{of_key}: the key is encrypted, and nobody is asked for its password; `openssl pkey -in OLD -out NEW` \
                 writes it without one"
            ));
        }
        let private = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|_| format!("{of_key}: there is no private key as PEM in it"))?;
        let private = provider.key_provider.load_private_key(private);
        let private = private.map_err(|_| {
            format!("{of_key}: expected a key of RSA from 2048 bits, ECDSA P-256, ECDSA P-384 or Ed25519")
        })?;
        let key = CertifiedKey::new(chain, private);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(Self { key, from, expires })
            }
            Err(rustls::Error::InconsistentKeys(_)) => {
                let certificate = settings.certificate.display();
                Err(format!("{of_key}: the key does not belong to the certificate {certificate}"))
            }
            Err(error) => Err(format!("{of_certificate}: {error}")),
        }
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let of = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| error.to_string())
    };
    // The year 9999 stands for "never" (RFC 5280, section 4.1.2.5); it is later than the last timestamp of jiff.
    let expires = of(parsed.validity().not_after).unwrap_or(Timestamp::MAX);
    Ok((of(parsed.validity().not_before)?, expires))
}

/// PKCS #8 with a password, or the older form of OpenSSL.
fn is_encrypted(pem: &[u8]) -> bool {
    [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| pem.windows(mark.len()).any(|part| part == *mark))
}
