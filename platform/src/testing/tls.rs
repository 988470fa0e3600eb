//! Certificates for tests, and the stream of a client with or without TLS.

use std::fs;
use std::io::{self, BufRead as _, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::PATIENCE;
use crate::connector;

/// A certificate and its private key, as PEM.
#[derive(Clone)]
pub struct TestPair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl TestPair {
    /// For `localhost` and 127.0.0.1, signed by itself.
    pub fn for_this_machine() -> Self {
        Self::new(&["localhost", "127.0.0.1"], |_| ())
    }

    /// For these names, signed by itself, with changes.
    pub fn new(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = params(names, change);
        Self { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// The certificate as the wire has it.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    /// Writes `keys/public-key.pem` and `keys/private-key.pem` in this folder, the key for this user only.
    pub fn write(&self, folder: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        let keys = folder.join("keys");
        fs::create_dir_all(&keys).unwrap();
        let key = keys.join("private-key.pem");
        fs::write(&key, &self.key).unwrap();
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(keys.join("public-key.pem"), &self.certificate).unwrap();
    }

    /// What a client needs that trusts this certificate only.
    pub fn client(&self) -> TestClient {
        TestClient::trusting(&[self])
    }
}

fn params(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::ExplicitNoCa;
    change(&mut params);
    (params, KeyPair::generate().unwrap())
}

/// An authority that signs certificates.
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub certificate: String,
}

impl TestAuthority {
    /// With this name.
    pub fn new(name: &str) -> Self {
        let (params, key) = params(&[], |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
        });
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Signs a certificate for this common name, with changes.
    pub fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TestPair {
        let (params, key) = params(&[], |params| {
            params.distinguished_name.push(DnType::CommonName, name);
            change(params);
        });
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        TestPair { certificate, key: key.serialize_pem() }
    }
}

/// A client with TLS. It keeps the sessions of its connections.
#[derive(Clone)]
pub struct TestClient(Arc<ClientConfig>);

impl TestClient {
    /// Trusts these certificates, and has none of its own.
    pub fn trusting(pairs: &[&TestPair]) -> Self {
        Self::with(pairs, None)
    }

    /// Trusts these certificates, and shows one of its own.
    pub fn with(pairs: &[&TestPair], own: Option<&TestPair>) -> Self {
        Self::with_versions(pairs, own, rustls::ALL_VERSIONS)
    }

    /// The same, with these versions of TLS only.
    pub fn with_versions(
        pairs: &[&TestPair],
        own: Option<&TestPair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        connector::install_tls_provider();
        let mut roots = RootCertStore::empty();
        for pair in pairs {
            roots.add(pair.der()).unwrap();
        }
        let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![own.der()], key).unwrap()
            }
        };
        Self(Arc::new(config))
    }

    /// The configuration of rustls, to be changed.
    pub fn config(&mut self) -> &mut ClientConfig {
        Arc::make_mut(&mut self.0)
    }

    /// Connects, and makes the handshake. In TLS 1.3 the server may refuse the client after that.
    pub(super) fn open(
        &self,
        address: SocketAddr,
    ) -> io::Result<Box<StreamOwned<ClientConnection, TcpStream>>> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::from(address.ip());
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Box::new(StreamOwned::new(connection, socket)))
    }
}

/// The stream of a client.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Says that nothing more is sent.
    pub(super) fn close_sending_side(&mut self) {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
        self.socket().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The error of waiting this long for something to read, if there is nothing.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(time)).unwrap();
        let waited = match self {
            Self::Plain(socket) => socket.peek(&mut [0]).map(|_| ()),
            Self::Tls(stream) => stream.fill_buf().map(|_| ()),
        };
        self.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        waited
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
