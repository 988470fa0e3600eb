//! HTTPS at the start: the pair, the port that is redirected, and what the log says of them.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::config::server::Settings;
use crate::error::StartError;
use crate::http::server::{self, Https};
use crate::process::HandedOver;
use crate::tls::Tls;

/// Reads the pair, where HTTPS is on, and refuses one that cannot be served with. Where the files of `before` are broken
/// by now, that is served with.
pub(super) fn read(settings: &Settings, before: Option<&Arc<Tls>>) -> Result<Option<Arc<Tls>>, StartError> {
    if !settings.ssl {
        return Ok(None);
    }
    match (Tls::load(&settings.tls), before) {
        (Ok(tls), _) => Ok(Some(Arc::new(tls))),
        (Err(error), Some(before)) if before.is_of(&settings.tls) => {
            tracing::error!(target: "server", %error, "the certificate cannot be used: the one from before is served");
            Ok(Some(Arc::clone(before)))
        }
        (Err(error), _) => Err(error),
    }
}

/// Keeps the last good pair for workers that start later, when the files may be broken. They are looked at until what is
/// returned is dropped.
pub(super) fn keep(tls: Arc<Tls>) -> HandedOver {
    let watched = Arc::clone(&tls);
    let watching = AbortOnDropHandle::new(tokio::spawn(async move { watched.watch().await }));
    Box::new(move || {
        let _ = &watching;
        tls.hand_over()
    })
}

/// What HTTPS needs, where it is on. `port` is that of HTTPS. A worker is handed its pair over.
pub(super) async fn open(
    settings: &Settings,
    backlog: u32,
    port: u16,
    is_worker: bool,
    handed_over: Option<&[u8]>,
) -> Result<Option<Https>, StartError> {
    if !settings.ssl {
        return Ok(None);
    }
    let tls = Arc::new(match handed_over {
        Some(handed_over) => Tls::take_over(&settings.tls, handed_over)?,
        None => Tls::load(&settings.tls)?,
    });
    if !is_worker {
        tls.log();
    }
    let redirect = match redirect_listener(settings, backlog, is_worker).await? {
        None => None,
        Some(listener) => {
            let of_http = listener.local_addr().map_or(0, |address| address.port());
            let to_port = u16::try_from(settings.tls.redirect.to_port.get()).unwrap_or_default();
            let to_port = if to_port == 0 { port } else { to_port };
            tracing::info!(target: "server", port = of_http, to_port, "redirecting HTTP to HTTPS");
            Some((listener, to_port))
        }
    };
    let watched = Arc::clone(&tls);
    tokio::spawn(async move { watched.watch().await });
    Ok(Some(Https { tls, handshake_timeout: settings.tls.handshake_timeout.get(), redirect }))
}

/// Listens for HTTP, where that is on. Each worker listens for itself, on the same port.
async fn redirect_listener(
    settings: &Settings,
    backlog: u32,
    is_worker: bool,
) -> Result<Option<TcpListener>, StartError> {
    let redirect = &settings.tls.redirect;
    if !redirect.enabled {
        return Ok(None);
    }
    let (host, port) = (settings.host.as_str(), u16::try_from(redirect.port.get()).unwrap_or_default());
    let listener = server::bind(host, port, backlog, is_worker).await.map_err(|error| {
        StartError::failed(format!("server.tls.redirect.port: cannot listen on {host}:{port}: {error}"))
    })?;
    Ok(Some(listener))
}
