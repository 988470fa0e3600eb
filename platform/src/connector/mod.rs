//! Calls to other services (docs/CONNECTOR.md): they end in time, are repeated only where that does no harm, and leave an
//! upstream alone that fails.
//!
//! A handler takes a [`ConnectorTo`](crate::http::ConnectorTo) and says `.get("/path").send().await?`.

mod breaker;
mod budget;
mod call;
mod error;
mod forward;
mod forwarder;
mod framing;
mod hop_by_hop;
mod lazy;
mod path;
mod permits;
mod public_addresses;
mod response;
mod retry_after;
mod settings;
mod tunnel;
mod upload;
mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::redirect;

use crate::error::StartError;

pub use call::{Call, TIMEOUT_HEADER};
pub use error::{CallError, Cause};
pub(crate) use hop_by_hop::remove_on_arrival;
pub(crate) use path::leads_upwards;
pub use response::{Response, Streamed};
pub use settings::{BaseUrl, Breaker, Forward, Settings, UpstreamSettings};
pub use tunnel::TunnelBounds;
pub(crate) use upstream::method_name;
pub use upstream::{Connector, IncomingRequest, Tally};

/// A service that this one calls, as a type: so that a handler can say which one it takes.
pub trait Upstream: Send + Sync + 'static {
    /// Its key in the section `upstreams` of the configuration.
    const NAME: &'static str;
}

/// The name of what reaches any public URL, in logs and errors.
const PUBLIC: &str = "public";

/// The name of what reaches any URL.
#[cfg(feature = "oidc")]
const ANY: &str = "any";

/// The connectors of all upstreams.
pub struct Connectors {
    upstreams: BTreeMap<String, Connector>,
    public: Connector,
    /// What reaches any URL at all.
    #[cfg(feature = "oidc")]
    any: Connector,
}

impl Connectors {
    /// Makes a connector for each upstream, and connects to none. `name` is that of the server.
    pub fn open(
        all: &Settings,
        upstreams: &BTreeMap<String, UpstreamSettings>,
        name: &str,
    ) -> Result<Self, StartError> {
        let tls = lazy::Tls::new(tls);
        let client = |public| Arc::new(client(name, public, &tls));
        let own = client(None);
        let mut opened = BTreeMap::new();
        for (name, UpstreamSettings { url, health, settings }) in upstreams {
            // What the environment can name too.
            if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
                let message = format!("upstreams.{name}: a name has lower-case letters, digits and '_'");
                return Err(StartError::config(message));
            }
            let clients = (Arc::clone(&own), forwarder::forwarder(settings, &tls));
            let url = Some(url.url().clone());
            let connector = Connector::new(name, url, health.as_deref(), *settings, clients);
            opened.insert(name.clone(), connector);
        }
        let clients = (client(Some(public_addresses::system())), forwarder::forwarder(all, &tls));
        let public = Connector::new(PUBLIC, None, None, *all, clients);
        Ok(Self {
            upstreams: opened,
            public,
            #[cfg(feature = "oidc")]
            any: Connector::new(ANY, None, None, *all, (own, forwarder::forwarder(all, &tls)))
                .reaching_any_address(),
        })
    }

    /// The connector of an upstream; the error names those that there are.
    pub fn get(&self, name: &str) -> Result<&Connector, StartError> {
        self.upstreams.get(name).ok_or_else(|| {
            let known: Vec<_> = self.upstreams.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            StartError::config(format!(
                "upstreams.{name}: is missing in the configuration; there are: {known}"
            ))
        })
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Connector> {
        self.upstreams.values()
    }

    /// What reaches any URL, for those that the configuration names, and what is found there: never for one of a user.
    #[cfg(feature = "oidc")]
    pub(crate) fn any(&self) -> &Connector {
        &self.any
    }

    /// What reaches any public URL.
    pub fn public(&self) -> &Connector {
        &self.public
    }
}

/// A client whose connections go to public addresses only, where a look-up is given.
fn client(
    name: &str,
    public: Option<public_addresses::Lookup>,
    tls: &Arc<lazy::Tls>,
) -> lazy::Lazy<reqwest::Client> {
    let name = name.replace(|c: char| !c.is_ascii_graphic(), "-");
    lazy::Lazy::new(tls, move |config| make_client(&name, public.clone(), config))
}

fn make_client(
    name: &str,
    public: Option<public_addresses::Lookup>,
    mut tls: rustls::ClientConfig,
) -> Result<reqwest::Client, String> {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        // A redirect would lead past the limits of the upstream, and past the guard.
        .redirect(redirect::Policy::none())
        .referer(false)
        // `HTTP_PROXY` would connect where nothing is checked.
        .no_proxy()
        // The connector counts and bounds its retries itself.
        .retry(reqwest::retry::never())
        .user_agent(name);
    let builder = match public {
        Some(lookup) => builder.dns_resolver(Arc::new(public_addresses::PublicOnly(lookup))),
        None => builder,
    };
    builder.build().map_err(|error| format!("cannot make an HTTP client: {error}"))
}

/// Makes ring the provider of TLS for clients that choose none, such as `reqwest::Client::new()` in the code of an app:
/// without one they panic. The first provider of a process stays.
pub(crate) fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// TLS 1.2 and 1.3 by ring, and the roots of the operating system. Without any, no certificate is trusted, and a call by
/// HTTPS says so.
fn tls() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let hint = "no certificate of an upstream can be trusted: install ca-certificates";
        tracing::warn!(target: "server.outbound", "this system has no root certificates, {hint}");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
