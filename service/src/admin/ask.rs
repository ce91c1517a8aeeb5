//! Questions to a running service: one HTTP request over its socket or its admin listener.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use socket2::{SockAddr, Socket, Type};

use crate::command::Failure;
use crate::visible_path;

/// How long the service may say nothing, and how long it may not take the connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running service, and where it is asked.
#[derive(Clone, Debug)]
pub struct AskedService {
    /// The word for it in messages, such as `relay`.
    noun: &'static str,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Socket(PathBuf),
    Listener(SocketAddr),
}

/// Why a service has not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("cannot connect to the {noun} at {0}; is it running, and may this user connect?", noun = .0.noun)]
    Connect(AskedService, #[source] io::Error),
    /// No answer in time, or one that breaks off.
    #[error("the {noun} at {0} does not answer", noun = .0.noun)]
    Silent(AskedService, #[source] io::Error),
    /// An answer that no service of this version gives.
    #[error("what answers at {0} is no {noun} of this version: status {1}", noun = .0.noun)]
    Stranger(AskedService, u16),
    /// The request is refused, for this reason.
    #[error("the {noun} at {0} refuses the request: {1}", noun = .0.noun)]
    Refused(AskedService, String),
    /// An answer in another form.
    #[error("the answer of the {noun} at {0} is not whole, or of another version", noun = .0.noun)]
    Broken(AskedService, #[source] serde_json::Error),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Runtime(error.into())
    }
}

/// What is wrong with a request.
#[derive(Deserialize)]
struct Mistake {
    error: String,
}

/// The status and the text of an answer.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl AskedService {
    /// The service whose admin socket is at a path. Messages call it by `noun`.
    pub const fn socket(noun: &'static str, path: PathBuf) -> Self {
        Self { noun, place: Place::Socket(path) }
    }

    /// The service whose admin listener is at an address.
    pub const fn listener(noun: &'static str, address: SocketAddr) -> Self {
        Self { noun, place: Place::Listener(address) }
    }

    /// Sends a request, and returns the answer whatever its status.
    ///
    /// # Errors
    ///
    /// [`AskError::Connect`] and [`AskError::Silent`].
    pub fn request(&self, method: &str, target: &str) -> Result<HttpAnswer, AskError> {
        let mut stream = self.connect(PATIENCE)?;
        let mut exchange = || {
            // HTTP/1.0, so that the answer ends with the connection. The name is one that every admin listener answers to.
            write!(stream, "{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            parse(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
        };
        exchange().map_err(|error| AskError::Silent(self.clone(), error))
    }

    /// Sends a request whose answer is JSON.
    ///
    /// # Errors
    ///
    /// See [`AskError`].
    pub fn ask<T: DeserializeOwned>(&self, method: &str, target: &str) -> Result<T, AskError> {
        let HttpAnswer { status, text } = self.request(method, target)?;
        if status == 200 {
            return serde_json::from_str(&text).map_err(|error| AskError::Broken(self.clone(), error));
        }
        Err(match serde_json::from_str::<Mistake>(&text) {
            Ok(mistake) => AskError::Refused(self.clone(), mistake.error),
            Err(_) => AskError::Stranger(self.clone(), status),
        })
    }

    fn connect(&self, patience: Duration) -> Result<Socket, AskError> {
        self.try_connect(patience).map_err(|error| match Errno::from_io_error(&error) {
            // So the kernel says that the time is over: the backlog of a relay that is stuck is full.
            Some(Errno::AGAIN | Errno::INPROGRESS) => {
                AskError::Silent(self.clone(), io::ErrorKind::TimedOut.into())
            }
            _ => AskError::Connect(self.clone(), error),
        })
    }

    fn try_connect(&self, patience: Duration) -> io::Result<Socket> {
        let address = match &self.place {
            Place::Socket(path) => SockAddr::unix(path)?,
            Place::Listener(address) => (*address).into(),
        };
        let stream = Socket::new(address.domain(), Type::STREAM, None)?;
        stream.set_read_timeout(Some(patience))?;
        // It bounds the time of connecting, too (socket(7)).
        stream.set_write_timeout(Some(patience))?;
        stream.connect(&address)?;
        Ok(stream)
    }
}

fn parse(answer: &str) -> Option<HttpAnswer> {
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpAnswer { status, text: text.into() })
}

impl fmt::Display for AskedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Socket(path) => f.write_str(&visible_path(path)),
            Place::Listener(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener that accepts nothing and has room for few connections.
    fn stuck(address: &SockAddr) -> Socket {
        let listener = Socket::new(address.domain(), Type::STREAM, None).expect("a socket");
        listener.bind(address).expect("it is free");
        listener.listen(0).expect("a listener");
        listener
    }

    #[test]
    fn a_relay_that_is_stuck_is_given_up_in_time_also_once_its_backlog_is_full() {
        let brief = Duration::from_millis(50);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let _on_socket = stuck(&SockAddr::unix(&path).expect("a path"));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let on_network = stuck(&any.into());
        let address = on_network.local_addr().expect("an address").as_socket().expect("of IPv4");
        for relay in [AskedService::socket("relay", path), AskedService::listener("relay", address)] {
            let mut open = Vec::new();
            let error = (0..16).find_map(|_| relay.connect(brief).map(|stream| open.push(stream)).err());
            assert!(matches!(error, Some(AskError::Silent(..))), "{error:?}");
        }
    }
}
