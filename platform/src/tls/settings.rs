//! The settings of TLS. `defaults/server.yaml` explains each key.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::setting::{Count, Span};

/// The section `server.tls`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The certificate and those between it and its authority, a PEM file.
    pub certificate: PathBuf,
    /// The private key of the certificate, a PEM file.
    pub key: PathBuf,
    /// How long a client may take for the handshake.
    pub handshake_timeout: Span<1, 600_000>,
    /// Fewer days than this until the certificate expires are a warning.
    pub warn_days: Count<0, 3_650>,
    /// The certificates of clients.
    pub clients: Clients,
    /// Where HTTP is redirected to HTTPS.
    pub redirect: Redirect,
}

/// The section `server.tls.clients`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Whether clients are asked for a certificate.
    pub certificates: ClientCertificates,
    /// The authorities that sign the certificates of clients, a PEM file.
    pub ca: PathBuf,
    /// What `server healthcheck` shows of its own, a PEM file. Empty: nothing.
    pub healthcheck_certificate: PathBuf,
    /// The private key of that certificate, a PEM file.
    pub healthcheck_key: PathBuf,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked.
    None,
    /// One that is shown has to be valid.
    Optional,
    /// There is no connection without a valid one.
    Required,
}

/// The section `server.tls.redirect`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Whether to listen for HTTP too.
    pub enabled: bool,
    /// The TCP port of HTTP; 0 lets the system choose.
    pub port: Count<0, 65_535>,
    /// The port in the URLs that clients are sent to; 0 is that of the server.
    pub to_port: Count<0, 65_535>,
}
