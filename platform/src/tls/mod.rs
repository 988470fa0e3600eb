//! The TLS of the server: its certificate and private key, the profile, the certificates of clients, and the pair of
//! `make keys` for development.
//!
//! It opens no sockets: `http` makes the handshakes.

mod development;
mod files;
mod identity;
mod live;
mod own;
mod pair;
mod profile;
mod settings;

pub use development::write_pair;
pub use identity::ClientCertificate;
pub use live::Tls;
pub use own::client_of_itself;
pub use settings::{ClientCertificates, Clients, Redirect, Settings};
