//! The connection between the supervisor and one worker: a pair of Unix sockets, the worker's end of which is its
//! standard input.
//!
//! The supervisor sends the version of this protocol with the listening socket and a second stream, the text of the
//! configuration file, what else it hands over, and then one byte for each order. The worker sends one byte when it is ready, and one each second; and
//! on the second stream, once a second, what it has counted, if it counts. When either process
//! ends, however it ends, the other one reads the end of the stream.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, send, sendmsg,
};

/// Changes with the protocol: after SIGUSR2 the two may be of different versions of the program.
const VERSION: u8 = 3;

/// The worker serves requests.
pub(super) const READY: u8 = b'r';

/// The runtime of the worker runs.
pub(super) const BEAT: u8 = b'b';

/// The worker shuts down as at SIGTERM.
pub(super) const DRAIN: u8 = b'd';

/// Another worker takes the connections from now on.
pub(super) const RETIRE: u8 = b'n';

/// How long a report may be: a page of many thousand figures has some MB. Four bytes of text, read as a length, are more
/// than that.
pub(super) const MOST_REPORTED: u32 = 64 << 20;

/// The length that stands for "there is none".
const NONE: u32 = u32::MAX;

/// The first message: hands the listening socket and the stream of the reports over. It never waits, because the buffer of
/// the socket is empty.
pub(super) fn send_sockets(stream: &UnixStream, listener: impl AsFd, reports: impl AsFd) -> io::Result<()> {
    let descriptors = [listener.as_fd(), reports.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(ErrorKind::OutOfMemory.into());
    }
    sendmsg(stream, &[IoSlice::new(&[VERSION])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the listening socket and the stream of the reports.
pub(super) fn receive_sockets(stream: &UnixStream) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut version = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(&mut version)];
    let received = recvmsg(stream, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if version[0] != VERSION {
        return Err(io::Error::other("the supervisor is of another version of the program: restart it"));
    }
    let sockets = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next().zip(descriptors.next()),
        _ => None,
    });
    sockets.ok_or_else(|| io::Error::other("there is no listening socket in it"))
}

/// A report: its length, and its text. An error when that is too long.
pub(super) fn report_message(text: &str) -> io::Result<Vec<u8>> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    check_report(length)?;
    Ok([&length.to_be_bytes(), text.as_bytes()].concat())
}

/// Refuses the length of a report that is too long, or that is none.
pub(super) fn check_report(length: u32) -> io::Result<()> {
    if length > MOST_REPORTED {
        let why = format!("a report of {length} bytes; at most {MOST_REPORTED} are taken");
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    Ok(())
}

/// The second message: the text of the configuration file. The third one: what else is handed over. They go through the
/// socket alone, where no other process can read them: there may be a private key in them.
pub(super) fn message(contents: Option<&[u8]>) -> Vec<u8> {
    let length = contents.map_or(NONE, |contents| u32::try_from(contents.len()).unwrap_or(NONE));
    let contents = contents.filter(|_| length != NONE).unwrap_or_default();
    [&length.to_be_bytes(), contents].concat()
}

/// Reads what [`message`] has made.
pub(super) fn receive(mut stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length == NONE {
        return Ok(None);
    }
    let mut contents = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut contents)?;
    if contents.len() as u64 == u64::from(length) {
        Ok(Some(contents))
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

/// Sends a byte to the supervisor. It never waits: a supervisor that is paused must not stop the worker. What does not
/// fit into the buffer is dropped; the bytes before it say the same.
pub(super) fn tell(stream: &UnixStream, byte: u8) {
    let _ = send(stream, &[byte], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// The stream of this worker: what it has as standard input. That is `/dev/null` afterwards, as for every server.
pub(super) fn take_standard_input() -> io::Result<UnixStream> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails when it is something else, such as a terminal.
    stream.peer_addr()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_listener_and_all_messages_arrive() {
        for text in [None, Some(&b""[..]), Some(b"server: {port: 1}\n")] {
            let (mut supervisor, worker) = UnixStream::pair().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (_, reports) = UnixStream::pair().unwrap();
            send_sockets(&supervisor, &listener, &reports).unwrap();
            supervisor.write_all(&message(text)).unwrap();
            supervisor.write_all(&message(Some(b"\xff"))).unwrap();
            drop(listener);
            let received = TcpListener::from(receive_sockets(&worker).unwrap().0);
            assert_eq!(receive(&worker).unwrap().as_deref(), text);
            assert_eq!(receive(&worker).unwrap().as_deref(), Some(&b"\xff"[..]));
            TcpStream::connect(address).unwrap();
            received.accept().unwrap();
        }
    }

    #[test]
    fn a_supervisor_of_another_version_is_named_and_one_that_ends_is_an_error() {
        let (mut supervisor, worker) = UnixStream::pair().unwrap();
        supervisor.write_all(&[VERSION + 1]).unwrap();
        let error = receive_sockets(&worker).unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
        supervisor.write_all(&message(Some(b"half"))[..5]).unwrap();
        drop(supervisor);
        assert_eq!(receive(&worker).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_supervisor_that_reads_nothing_does_not_stop_a_worker() {
        let (_supervisor, worker) = UnixStream::pair().unwrap();
        (0..1_000_000).for_each(|_| tell(&worker, BEAT));
    }
}
