//! Operations: what a service answers on its socket for administration besides the pages that every service has.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Method, StatusCode};
use tokio::sync::mpsc;

/// A request for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path, as in `/clients`.
    pub path: String,
    /// What stands behind `?`; empty if nothing does.
    pub query: String,
}

/// The answer to a [`Call`], in JSON.
#[derive(Debug)]
pub struct OperationAnswer {
    /// The status.
    pub status: StatusCode,
    /// The JSON.
    pub parts: Parts,
    /// The methods that there are, where the one that was asked by is none of them.
    pub allow: Option<&'static str>,
}

/// The text of an answer.
#[derive(Debug)]
pub enum Parts {
    /// All of it.
    Whole(String),
    /// Piece by piece, until the sender is dropped. An error breaks the answer off, so that its reader sees that it is not whole.
    Stream(mpsc::Receiver<io::Result<String>>),
}

/// The operations of a service.
pub trait Operations: fmt::Debug + Send + Sync + 'static {
    /// Answers a request; `None` where there is no such path. It runs on the thread of administration, and must not block.
    fn answer<'a>(
        &'a self,
        call: &'a Call,
    ) -> Pin<Box<dyn Future<Output = Option<OperationAnswer>> + Send + 'a>>;
}

/// The body of a response.
pub(super) enum PageBody {
    Whole(Full<Bytes>),
    Stream(mpsc::Receiver<io::Result<String>>),
}

impl From<Parts> for PageBody {
    fn from(parts: Parts) -> Self {
        match parts {
            Parts::Whole(text) => Self::Whole(Full::new(text.into())),
            Parts::Stream(pieces) => Self::Stream(pieces),
        }
    }
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                let frame = Pin::new(body).poll_frame(context);
                frame.map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Stream(pieces) => {
                let piece = pieces.poll_recv(context);
                piece.map(|piece| piece.map(|piece| piece.map(|text| Frame::data(text.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
