//! A client of this server itself, for `server healthcheck`: it trusts the certificate of the configuration and no other one, for
//! whichever name.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::files::{self, Files};
use super::profile;
use super::settings::{ClientCertificates, Settings};
use crate::error::StartError;

/// The configuration of that client.
pub fn client_of_itself(settings: &Settings) -> Result<ClientConfig, StartError> {
    let files = Files::read(settings).map_err(StartError::config)?;
    let own = files::certificates(&files.certificate)
        .map_err(|error| StartError::config(format!("server.tls.certificate: {error}")))?
        .swap_remove(0);
    let provider = Arc::new(profile::provider());
    let failed = |error: Error| StartError::failed(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let verifier = Arc::new(Pinned { own, provider });
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let clients = &settings.clients;
    if clients.healthcheck_certificate.as_os_str().is_empty() {
        if clients.certificates == ClientCertificates::Required {
            return Err(StartError::config(
                "server.tls.clients.healthcheck_certificate is empty, and the server requires a certificate",
            ));
        }
        return Ok(builder.with_no_client_auth());
    }
    let (certificate, key) = ("clients.healthcheck_certificate", "clients.healthcheck_key");
    let chain = files::certificates(&read(certificate, &clients.healthcheck_certificate)?);
    let chain = chain.map_err(|error| StartError::config(format!("server.tls.{certificate}: {error}")))?;
    let wrong = |error: &dyn std::fmt::Display| StartError::config(format!("server.tls.{key}: {error}"));
    let key = PrivateKeyDer::from_pem_slice(&read(key, &clients.healthcheck_key)?)
        .map_err(|error| wrong(&error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| wrong(&error))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, StartError> {
    files::read(key, path).map_err(StartError::config)
}

#[derive(Debug)]
struct Pinned {
    own: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.own {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
