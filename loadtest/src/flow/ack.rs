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
const MAX_LETTER: usize = 1024 * LEN;

/// Where the acknowledgements of a sending process come.
#[derive(Debug)]
pub(crate) struct Mailbox(UnixDatagram);

impl Mailbox {
    pub(crate) fn open(path: &Path, registry: &Registry, token: Token) -> Result<Self> {
        let mailbox = UnixDatagram::bind(path).with_context(|| format!("binding {}", path.display()))?;
        mailbox.set_nonblocking(true)?;
        SourceFd(&mailbox.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        Ok(Self(mailbox))
    }

    /// Takes all that has come: flow by flow, one more than the highest number.
    pub(crate) fn take(&self, mut tell: impl FnMut(u32, u64)) -> Result<()> {
        let mut letter = [0; MAX_LETTER];
        loop {
            let len = match self.0.recv(&mut letter) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for &[a, b, c, d, ref next @ ..] in letter[..len].as_chunks::<LEN>().0 {
                tell(u32::from_be_bytes([a, b, c, d]), u64::from_be_bytes(*next));
            }
        }
    }
}

/// Acknowledgements on their way to the mailboxes.
#[derive(Debug)]
pub(crate) struct Post {
    socket: UnixDatagram,
    /// That of flow `f` is at place `f` modulo their number.
    mailboxes: Vec<PathBuf>,
    letters: HashMap<usize, Vec<u8>>,
}

impl Post {
    pub(crate) fn new(mailboxes: Vec<PathBuf>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, mailboxes, letters: HashMap::new() })
    }

    pub(crate) fn note(&mut self, flow: u32, next: u64) {
        let place = flow as usize % self.mailboxes.len();
        let letter = self.letters.entry(place).or_default();
        if letter.len() == MAX_LETTER {
            let _ = self.socket.send_to(letter, &self.mailboxes[place]);
            letter.clear();
        }
        letter.extend_from_slice(&flow.to_be_bytes());
        letter.extend_from_slice(&next.to_be_bytes());
    }

    pub(crate) fn send(&mut self) {
        for (mailbox, letter) in &mut self.letters {
            if !letter.is_empty() {
                // A letter that finds a mailbox full is made good by the next; one that is the last, by the sender.
                let _ = self.socket.send_to(letter, &self.mailboxes[*mailbox]);
                letter.clear();
            }
        }
    }
}
