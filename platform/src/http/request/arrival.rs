//! How a connection has come in, other than as plain HTTP, and the requests that are refused for it.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::LOCATION;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::error::{Error, Kind};
use crate::http::settings::allowed_hosts::AllowedHosts;
use crate::http::settings::request_host::RequestHost;
use crate::tls::{ClientCertificate, Tls};

/// The port that URLs with `https` need not name.
const HTTPS_PORT: u16 = 443;

/// How a connection has come in.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// With TLS, and perhaps with a certificate of the client.
    Tls(Option<ClientCertificate>),
    /// At the port whose requests are sent to HTTPS.
    ToRedirect(Arc<ToHttps>),
    /// As plain HTTP at the port of HTTPS.
    Mistaken,
}

impl Arrival {
    /// The response to a request that no handler is to see.
    pub(crate) fn refusal(
        &self,
        request: &Request,
        host: Option<&RequestHost>,
        allowed: &AllowedHosts,
    ) -> Option<Response> {
        match self {
            Self::Tls(_) => None,
            Self::ToRedirect(to) => {
                // Of the probes too, which the gate lets pass: nobody is sent to a host that is not allowed.
                let redirect = allowed.check(host).and_then(|()| to.redirect(request.uri(), host));
                Some(redirect.unwrap_or_else(IntoResponse::into_response))
            }
            Self::Mistaken => {
                let message = "This port speaks HTTPS only: use a URL that begins with https://";
                let error = Error::new(Kind::BadRequest).with_reason("HTTPS Required").with_message(message);
                Some(error.into_response())
            }
        }
    }
}

/// Where requests for HTTP are sent.
pub(crate) struct ToHttps {
    pub(crate) tls: Arc<Tls>,
    pub(crate) port: u16,
}

impl std::fmt::Debug for ToHttps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToHttps").field("port", &self.port).finish_non_exhaustive()
    }
}

impl ToHttps {
    /// 308 keeps the method and the body. A host that the certificate is not for is refused: a cache in between would
    /// keep what any client can make it say.
    fn redirect(&self, target: &Uri, host: Option<&RequestHost>) -> Result<Response, Error> {
        let host = host.map(|host| host.name().to_ascii_lowercase());
        let host = host.ok_or_else(|| Error::bad_request("Invalid Host Header"))?;
        if !self.tls.covers(host.trim_start_matches('[').trim_end_matches(']')) {
            let message = "The certificate of this server is not for this host";
            return Err(Error::new(Kind::Other(421))
                .with_reason("Misdirected Request")
                .with_message(message));
        }
        let port = if self.port == HTTPS_PORT { String::new() } else { format!(":{}", self.port) };
        let target = target.path_and_query().map(PathAndQuery::as_str);
        let target = target.filter(|target| target.starts_with('/')).unwrap_or("/");
        let location = HeaderValue::try_from(format!("https://{host}{port}{target}"));
        let location = location.map_err(|_| Error::bad_request("Malformed Request"))?;
        Ok((StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response())
    }
}
