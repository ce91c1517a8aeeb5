//! Acknowledgements, which receiving processes send to sending processes over Unix sockets, past the relay.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// The bytes of an acknowledgement: the flow, and 1 more than the highest packet number that arrived.
const LEN: usize = 12;
/// The bytes that a sender reads at once.
const MAX_DATAGRAM: usize = 1024 * LEN;

/// The socket on which a sending process receives acknowledgements.
#[derive(Debug)]
pub(crate) struct AckReceiver(UnixDatagram);

impl AckReceiver {
    /// Binds the socket to `path` and registers it for reading.
    pub(crate) fn bind(path: &Path, registry: &Registry, token: Token) -> Result<Self> {
        let socket = UnixDatagram::bind(path).with_context(|| format!("binding {}", path.display()))?;
        socket.set_nonblocking(true)?;
        SourceFd(&socket.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        Ok(Self(socket))
    }

    /// Reads all acknowledgements that have arrived, and calls `on_ack` with each flow and the next number it expects.
    pub(crate) fn drain(&self, mut on_ack: impl FnMut(u32, u64)) -> Result<()> {
        let mut datagram = [0; MAX_DATAGRAM];
        loop {
            let len = match self.0.recv(&mut datagram) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for &[a, b, c, d, ref next @ ..] in datagram[..len].as_chunks::<LEN>().0 {
                on_ack(u32::from_be_bytes([a, b, c, d]), u64::from_be_bytes(*next));
            }
        }
    }
}

/// The acknowledgements of a receiving process on their way to the sending processes.
#[derive(Debug)]
pub(crate) struct AckSender {
    socket: UnixDatagram,
    /// The socket of each sending process: flow `f` belongs to the one at `f` modulo their number.
    paths: Vec<PathBuf>,
    datagrams: HashMap<usize, Vec<u8>>,
}

impl AckSender {
    pub(crate) fn new(paths: Vec<PathBuf>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, paths, datagrams: HashMap::new() })
    }

    /// Adds an acknowledgement: `flow` expects the packet `next`.
    pub(crate) fn push(&mut self, flow: u32, next: u64) {
        let index = flow as usize % self.paths.len();
        let datagram = self.datagrams.entry(index).or_default();
        if datagram.len() == MAX_DATAGRAM {
            let _ = self.socket.send_to(datagram, &self.paths[index]);
            datagram.clear();
        }
        datagram.extend_from_slice(&flow.to_be_bytes());
        datagram.extend_from_slice(&next.to_be_bytes());
    }

    /// Sends what was added.
    pub(crate) fn flush(&mut self) {
        for (index, datagram) in &mut self.datagrams {
            if !datagram.is_empty() {
                // A datagram that finds the socket full is lost. The next one acknowledges more, and after the last one
                // the sender's timeout resets the window.
                let _ = self.socket.send_to(datagram, &self.paths[*index]);
                datagram.clear();
            }
        }
    }
}
