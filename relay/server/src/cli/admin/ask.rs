//! Questions to a running relay: one HTTP request over its socket or its admin listener.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use serde::de::DeserializeOwned;
use socket2::{SockAddr, Socket, Type};
use towpath_relay::administration::schema::Mistake;
use towpath_service::visible_path;

/// How long the relay may say nothing, and how long it may not take the connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a running relay is asked.
#[derive(Clone, Debug)]
pub(super) enum AskedRelay {
    Socket(PathBuf),
    Listener(SocketAddr),
}

/// Why a relay has not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot connect to the relay at {0}; is it running, and may this user connect?")]
    Connect(AskedRelay, #[source] io::Error),
    #[error("the relay at {0} does not answer")]
    Silent(AskedRelay, #[source] io::Error),
    #[error("what answers at {0} is no relay of this version: status {1}")]
    Stranger(AskedRelay, u16),
    #[error("the relay at {0} refuses the request: {1}")]
    Refused(AskedRelay, String),
    #[error("the answer of the relay at {0} is not whole, or of another version")]
    Broken(AskedRelay, #[source] serde_json::Error),
}

/// The status and the text of an answer.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl AskedRelay {
    /// Sends a request, and returns the answer whatever its status.
    pub(super) fn request(&self, method: &str, target: &str) -> Result<HttpAnswer, AskError> {
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
    pub(super) fn ask<T: DeserializeOwned>(&self, method: &str, target: &str) -> Result<T, AskError> {
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
        let address = match self {
            Self::Socket(path) => SockAddr::unix(path)?,
            Self::Listener(address) => (*address).into(),
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

impl fmt::Display for AskedRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => f.write_str(&visible_path(path)),
            Self::Listener(address) => address.fmt(f),
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
        for relay in [AskedRelay::Socket(path), AskedRelay::Listener(address)] {
            let mut open = Vec::new();
            let error = (0..16).find_map(|_| relay.connect(brief).map(|stream| open.push(stream)).err());
            assert!(matches!(error, Some(AskError::Silent(..))), "{error:?}");
        }
    }
}
