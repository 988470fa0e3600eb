//! Clients that send requests all the time, and count those that fail.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use platform::testing::PATIENCE;

/// How many clients keep their connection, and how many open one for each request.
const OF_EACH_KIND: usize = 3;

/// Running clients.
pub struct Clients {
    stop: Arc<AtomicBool>,
    /// How many requests of each client had a response so far.
    served: Vec<Arc<AtomicU64>>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Clients {
    /// Starts them.
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served: Vec<_> = (0..OF_EACH_KIND * 2).map(|_| Arc::<AtomicU64>::default()).collect();
        let failed = Arc::<AtomicU64>::default();
        let threads = served.iter().enumerate().map(|(number, served)| {
            let (stop, served, failed) = (Arc::clone(&stop), Arc::clone(served), Arc::clone(&failed));
            std::thread::spawn(move || work(address, number % 2 == 0, &stop, &served, &failed))
        });
        Self { threads: threads.collect(), served, failed, stop }
    }

    /// Whether every client has had a response: then those that keep a connection have one.
    pub fn are_at_work(&self) -> bool {
        self.served.iter().all(|served| served.load(Ordering::Relaxed) > 0)
    }

    /// How many requests had a response so far.
    pub fn served(&self) -> u64 {
        self.served.iter().map(|served| served.load(Ordering::Relaxed)).sum()
    }

    /// How many requests had none so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How many there are, and so how many requests can be in flight.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Ends them. Returns the number of requests with a response, and what has failed.
    pub fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let of_each = self.threads.into_iter().map(|thread| thread.join().unwrap());
        of_each.fold((0, Vec::new()), |(all, mut failed), (count, more)| {
            failed.extend(more);
            (all + count, failed)
        })
    }
}

fn work(
    address: SocketAddr,
    keeps: bool,
    stop: &AtomicBool,
    count: &AtomicU64,
    lost: &AtomicU64,
) -> (u64, Vec<String>) {
    let (mut served, mut failed, mut kept) = (0, Vec::new(), None);
    while !stop.load(Ordering::Relaxed) {
        match request(address, kept.take()) {
            Ok((stream, goes_on)) => {
                served += 1;
                count.store(served, Ordering::Relaxed);
                kept = (keeps && goes_on).then_some(stream);
            }
            Err(error) => {
                failed.push(format!("{error} (keeps: {keeps}, after {served})"));
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    (served, failed)
}

/// One request. Returns its connection, and whether the server keeps it.
fn request(address: SocketAddr, kept: Option<TcpStream>) -> io::Result<(TcpStream, bool)> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address)?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut response = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let length = stream.read(&mut piece)?;
        response.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&response).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Some(length) = head.split("content-length: ").nth(1)
            && body.len() >= length.split("\r\n").next().unwrap().parse().unwrap()
        {
            assert!(head.starts_with("http/1.1 200"), "{text}");
            return Ok((stream, !head.contains("connection: close")));
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
