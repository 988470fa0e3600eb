//! What the server offers: TLS 1.3 and 1.2 with the cipher suites of Mozilla's intermediate profile
//! (<https://wiki.mozilla.org/Security/Server_Side_TLS>), HTTP/2 and HTTP/1.1.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite as suite};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, version};

use super::files::{self, named};
use super::settings::{ClientCertificates, Settings};

/// Listed, so that no later version of rustls adds one. The profile has one more, DHE for TLS 1.2 without elliptic
/// curves, which rustls does not have: such clients are older than TLS 1.2 with ECDHE, of 2008.
const SUITES: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// How many sessions are kept for clients that come back; each takes about 1 KiB. Without, a client does the whole
/// handshake again. Tickets, which would need no memory, would be readable for as long as their key is kept.
const SESSIONS: usize = 4_096;

/// The provider of the cryptography.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: SUITES.to_vec(), ..ring::default_provider() }
}

/// The configuration of all connections. It keeps sessions, so that a client which was verified is not verified again
/// while the configuration is the same. `ca` is the file with the authorities of clients.
pub(super) fn server_config(
    provider: CryptoProvider,
    key: CertifiedKey,
    settings: &Settings,
    ca: Option<&[u8]>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| format!("TLS: {error}"))?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let of_ca = named("clients.ca", &settings.clients.ca);
            let roots = roots(pem).map_err(|error| format!("{of_ca}: {error}"))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match settings.clients.certificates {
                ClientCertificates::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| format!("{of_ca}: {error}"))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(config)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in files::certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}
