//! The proxy for comparison: hyper alone, with the connections to its upstream kept. It has no limits and no log, and leaves
//! all headers but `Host` as they are.

use std::error::Error;
use std::net::SocketAddr;

use axum::http::header::HOST;
use axum::http::uri::PathAndQuery;
use axum::http::{Request, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Passes requests for `/proxy/…` on to the upstream.
pub async fn serve(listener: TcpListener, upstream: SocketAddr) -> std::io::Result<()> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Incoming>();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        let pass = service_fn(move |mut request: Request<Incoming>| {
            let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
            let path = path.strip_prefix("/proxy").unwrap_or(path);
            let uri: Result<Uri, _> = format!("http://{upstream}{path}").parse();
            let client = client.clone();
            async move {
                *request.uri_mut() = uri?;
                request.headers_mut().remove(HOST);
                Ok::<_, Box<dyn Error + Send + Sync>>(client.request(request).await?)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), pass));
    }
}
