//! TLS on a connection that is dialled: whole until the login is done, then in two halves.

use tokio::net::TcpStream;
use towpath_tls::{Client, Reader, Stream, Writer};

pub(crate) type TlsStream = Stream<TcpStream, Client>;
pub(crate) type TlsReader = Reader<Client>;
pub(crate) type TlsWriter = Writer<Client>;
