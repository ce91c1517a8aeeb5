//! Acknowledgements, which tell senders past the relay what has come.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// Flow, and one more than the highest number that has come.
const LEN: usize = 12;
/// As many as a sender takes at once.
const MAX_DATAGRAM: usize = 1024 * LEN;

/// Where the acknowledgements of a sending process come.
#[derive(Debug)]
pub(crate) struct AckReceiver(UnixDatagram);

impl AckReceiver {
    pub(crate) fn open(path: &Path, registry: &Registry, token: Token) -> Result<Self> {
        let ack_socket = UnixDatagram::bind(path).with_context(|| format!("binding {}", path.display()))?;
        ack_socket.set_nonblocking(true)?;
        SourceFd(&ack_socket.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        Ok(Self(ack_socket))
    }

    /// Takes all that has come: flow by flow, one more than the highest number.
    pub(crate) fn take(&self, mut tell: impl FnMut(u32, u64)) -> Result<()> {
        let mut datagram = [0; MAX_DATAGRAM];
        loop {
            let len = match self.0.recv(&mut datagram) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for &[a, b, c, d, ref next @ ..] in datagram[..len].as_chunks::<LEN>().0 {
                tell(u32::from_be_bytes([a, b, c, d]), u64::from_be_bytes(*next));
            }
        }
    }
}

/// Acknowledgements on their way to the mailboxes.
#[derive(Debug)]
pub(crate) struct AckSender {
    socket: UnixDatagram,
    /// That of flow `f` is at place `f` modulo their number.
    ack_sockets: Vec<PathBuf>,
    datagrams: HashMap<usize, Vec<u8>>,
}

impl AckSender {
    pub(crate) fn new(ack_sockets: Vec<PathBuf>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, ack_sockets, datagrams: HashMap::new() })
    }

    pub(crate) fn note(&mut self, flow: u32, next: u64) {
        let place = flow as usize % self.ack_sockets.len();
        let datagram = self.datagrams.entry(place).or_default();
        if datagram.len() == MAX_DATAGRAM {
            let _ = self.socket.send_to(datagram, &self.ack_sockets[place]);
            datagram.clear();
        }
        datagram.extend_from_slice(&flow.to_be_bytes());
        datagram.extend_from_slice(&next.to_be_bytes());
    }

    pub(crate) fn send(&mut self) {
        for (ack_socket, datagram) in &mut self.datagrams {
            if !datagram.is_empty() {
                // A letter that finds a mailbox full is made good by the next; one that is the last, by the sender.
                let _ = self.socket.send_to(datagram, &self.ack_sockets[*ack_socket]);
                datagram.clear();
            }
        }
    }
}
