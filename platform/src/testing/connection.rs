//! A connection of raw bytes, with or without TLS, for requests that no HTTP library would send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::ClientConnection;

use super::PATIENCE;
use super::tls::{Stream, TestClient};

/// A connection whose reads time out after [`PATIENCE`].
pub struct Connection(Stream);

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(Stream::Plain(stream))
    }

    /// Connects with TLS.
    pub fn secure(address: SocketAddr, client: &TestClient) -> Self {
        Self::try_secure(address, client).unwrap()
    }

    /// Connects with TLS, which may fail.
    pub fn try_secure(address: SocketAddr, client: &TestClient) -> io::Result<Self> {
        client.open(address).map(|stream| Self(Stream::Tls(stream)))
    }

    /// The connection of TLS, where there is one.
    pub fn tls(&self) -> Option<&ClientConnection> {
        match &self.0 {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(&stream.conn),
        }
    }

    /// The address of this side.
    pub fn local_address(&self) -> SocketAddr {
        self.0.socket().local_addr().unwrap()
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).unwrap();
        self.0.flush().unwrap();
        self
    }

    /// Sends these bytes; false when the server has closed the connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).and_then(|()| self.0.flush()).is_ok()
    }

    /// Closes the sending side. What the server sends can still be read.
    pub fn close_sending_side(&mut self) -> &mut Self {
        self.0.close_sending_side();
        self
    }

    /// Reads exactly this many bytes.
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads until the server closes the connection; a reset counts as a close.
    pub fn read_to_end(&mut self) -> String {
        self.try_read_to_end().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads until the server closes the connection; an alert of TLS is an error.
    pub fn try_read_to_end(&mut self) -> io::Result<String> {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.0.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => all.extend_from_slice(&piece[..length]),
                // Without the last message of TLS, too.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) =>
                {
                    break;
                }
                Err(error) => {
                    let so_far = String::from_utf8_lossy(&all);
                    return Err(io::Error::other(format!("not closed: {error}; so far {so_far:?}")));
                }
            }
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    /// Reads this many bytes, or fewer when the connection is closed before. Returns how many.
    pub fn read(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap();
        let taken = std::io::copy(&mut (&mut self.0).take(length), &mut std::io::sink()).unwrap();
        usize::try_from(taken).unwrap()
    }

    /// Reads a response head: the status line and the headers.
    pub fn read_head(&mut self) -> String {
        self.try_read_head().unwrap()
    }

    /// Reads a response head; an error when the connection is closed before its end.
    pub fn try_read_head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    /// Reads one response that has a `Content-Length`, or no body.
    pub fn read_response(&mut self) -> String {
        self.try_read_response().unwrap()
    }

    /// Reads one response that has a `Content-Length`, or no body; an error when the connection is closed before its end.
    pub fn try_read_response(&mut self) -> io::Result<String> {
        let head = self.try_read_head()?;
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body)?;
        Ok(head + &String::from_utf8_lossy(&body))
    }

    /// Whether the server sends nothing, and does not close the connection, within this time.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        let waited = self.0.wait(time);
        waited.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}
