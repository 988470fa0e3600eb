//! The TLS of the server: its certificate and private key, the profile, the certificates of clients, and the pair of
//! `make keys` for development.
//!
//! It opens no sockets: `http` makes the handshakes.

mod development;
mod files;
mod healthcheck_client;
mod identity;
mod pair;
mod profile;
mod served_pair;
mod settings;

pub use development::write_pair;
pub use healthcheck_client::client_of_itself;
pub use identity::ClientCertificate;
pub use served_pair::Tls;
pub use settings::{ClientCertificates, Clients, Redirect, Settings};
