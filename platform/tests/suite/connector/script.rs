//! An upstream that does what its script says, request by request, and keeps what it was sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// These bytes, and the end of the connection.
    Send(Vec<u8>),
    /// These bytes, and then nothing.
    Stall(Vec<u8>),
    /// The connection is reset.
    Reset,
    /// A head, and then bytes for ever.
    Endless,
    /// A head, and then a byte each time this has passed.
    Drip(Duration),
}

/// A response with this status, these lines of its head, and this body.
pub fn response(status: u16, head: &str, body: impl AsRef<[u8]>) -> Act {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\n{head}connection: close\r\ncontent-length: {length}\r\n\r\n");
    Act::Send([head.as_bytes(), body].concat())
}

pub fn status(status: u16) -> Act {
    response(status, "", "")
}

pub fn ok(body: &str) -> Act {
    response(200, "", body)
}

/// The upstream. The last act of its script is repeated.
pub struct Scripted {
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub async fn start(script: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, script) = (Arc::clone(&heads), script.to_vec());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), script.clone());
                tokio::spawn(async move { play(stream, &kept, &script).await });
            }
        });
        Self { port, heads }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The heads of the requests so far, in lower case.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

async fn play(mut stream: TcpStream, heads: &Mutex<Vec<String>>, script: &[Act]) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
        // What is not read makes the end of the connection a reset.
        if head.len() == 4 && matches!(next(heads, script), Act::Reset) {
            heads.lock().unwrap().push(String::new());
            return;
        }
    }
    let act = {
        let act = next(heads, script);
        heads.lock().unwrap().push(String::from_utf8(head).unwrap().to_lowercase());
        act
    };
    // A client that has gone away ends it.
    let _ = perform(&mut stream, act).await;
}

fn next(heads: &Mutex<Vec<String>>, script: &[Act]) -> Act {
    let played = heads.lock().unwrap().len();
    script.get(played).or(script.last()).cloned().unwrap()
}

async fn perform(stream: &mut TcpStream, act: Act) -> std::io::Result<()> {
    const HEAD: &[u8] = b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n";
    match act {
        Act::Send(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            // A body that was sent with the request would make the end a reset.
            tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
        }
        Act::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            stream.read_u8().await.map(drop)
        }
        Act::Reset => Ok(()),
        Act::Endless => {
            stream.write_all(HEAD).await?;
            loop {
                stream.write_all(&[b'x'; 4096]).await?;
            }
        }
        Act::Drip(interval) => {
            stream.write_all(HEAD).await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(interval).await;
            }
        }
    }
}
