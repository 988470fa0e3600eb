//! `server healthcheck`: asks `/ready` of the server that runs with the same configuration. For an image that has no shell
//! and no HTTP client.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Config;
use crate::error::StartError;
use crate::setting::Host;
use crate::tls;

/// How long the server may take besides what it gives its components (`health.timeout`): Docker's check waits for 5 s.
const MARGIN: Duration = Duration::from_secs(3);

/// The longest response that is read; that of `/ready` with all causes has some hundred bytes.
const MAX_RESPONSE: u64 = 64 << 10;

/// Asks the server. Returns what it has answered, on one line; the error says why it gets no requests.
pub async fn healthcheck<A>(config: &Config<A>) -> Result<String, StartError> {
    let time = config.health.timeout.get() + MARGIN;
    let Ok(port @ 1..) = u16::try_from(config.server.port.get()) else {
        let why = "server.port is 0, so only the server knows where it listens; set it, or give --port";
        return Err(StartError::failed(why));
    };
    let host = reachable(&config.server.host);
    let ssl = config.server.ssl;
    let client = ssl.then(|| tls::client_of_itself(&config.server.tls)).transpose()?;
    let url = format!("{}://{}:{port}/ready", if ssl { "https" } else { "http" }, host.in_url());
    let asked = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        if let Some(client) = client {
            let name = ServerName::try_from(host.as_str().to_owned()).map_err(std::io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
            return ask(stream, &host, config.health.token.expose()).await;
        }
        ask(stream, &host, config.health.token.expose()).await
    };
    match tokio::time::timeout(time, asked).await {
        Ok(Ok(answer)) => judge(&url, &answer),
        Ok(Err(error)) => Err(StartError::failed(format!("{url}: {error}"))),
        Err(_) => Err(StartError::failed(format!("{url}: no response within {time:?}"))),
    }
}

/// The address at which this machine reaches a server that listens on that one.
fn reachable(host: &Host) -> Host {
    let loopback = match host.as_str().parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1",
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1",
        _ => return host.clone(),
    };
    Host::parse(loopback).unwrap_or_else(|_| host.clone())
}

/// One request and its whole response.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &Host,
    token: &str,
) -> std::io::Result<String> {
    // With the token it says which component does not respond.
    let token = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let host = host.in_url();
    let request = format!("GET /ready HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn judge(url: &str, answer: &str) -> Result<String, StartError> {
    let failed = |what: &str| Err(StartError::failed(format!("{url}: {what}")));
    let Some(status) = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)) else {
        return failed("what answers there is no server of HTTP/1.1");
    };
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let said = body["status"].as_str().unwrap_or_default();
    if status == "200" && said == "ready" {
        return Ok(format!("{url}: ready"));
    }
    let components = body["components"].as_object().into_iter().flatten();
    let down = components.filter(|(_, state)| state["responds"] == Value::Bool(false));
    let causes: Vec<_> = down.map(|(name, state)| format!("; {name}: {}", state["cause"])).collect();
    failed(&format!("{status} {said}{}", causes.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_this_machine() {
        let asked = |host: &str| reachable(&Host::parse(host).unwrap()).as_str().to_owned();
        assert_eq!([asked("0.0.0.0"), asked("::")], ["127.0.0.1", "::1"]);
        assert_eq!([asked("localhost"), asked("10.0.0.1")], ["localhost", "10.0.0.1"]);
    }

    #[test]
    fn only_a_ready_server_is_ready() {
        let judged = |answer: &str| judge("u", answer).map_err(|error| error.to_string());
        let answer = |status: &str, body: &str| format!("HTTP/1.1 {status}\r\nx: y\r\n\r\n{body}");
        assert_eq!(judged(&answer("200 OK", r#"{"status":"ready"}"#)), Ok("u: ready".to_owned()));
        let down = answer(
            "503 Service Unavailable",
            r#"{"status":"not ready","components":{"cache":{"responds":true},"store":{"responds":false,"cause":"it is gone"}}}"#,
        );
        assert_eq!(judged(&down), Err("u: 503 not ready; store: \"it is gone\"".to_owned()));
        assert_eq!(
            judged(&answer("503 Service Unavailable", r#"{"status":"draining"}"#)),
            Err("u: 503 draining".to_owned())
        );
        // Another server on this port.
        assert_eq!(judged(&answer("200 OK", "<html>")), Err("u: 200 ".to_owned()));
        assert!(judged("SSH-2.0-OpenSSH").unwrap_err().contains("no server of HTTP"));
        assert!(judged("").is_err());
    }
}
