//! Questions to a running relay: one HTTP request over its socket or its admin listener.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use towpath_relay::administration::schema::Mistake;
use towpath_service::visible_path;

/// How long the relay may say nothing.
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

trait ByteStream: Read + Write {}
impl<S: Read + Write> ByteStream for S {}

impl AskedRelay {
    /// Sends a request, and returns the answer whatever its status.
    pub(super) fn request(&self, method: &str, target: &str) -> Result<HttpAnswer, AskError> {
        let mut stream = self.connect().map_err(|error| AskError::Connect(self.clone(), error))?;
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

    fn connect(&self) -> io::Result<Box<dyn ByteStream>> {
        Ok(match self {
            Self::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Self::Listener(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        })
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
