//! The two halves of TLS on a connection that was dialled.

use towpath_tls::{Client, Reader, Writer};

pub(crate) type TlsReader = Reader<Client>;
pub(crate) type TlsWriter = Writer<Client>;
