//! Connections to a backend that are kept, and HTTP/1.1 over them.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use towpath_wire::sync::lock;

use super::connect::Connector;
use super::failure::{AskError, Step};

/// How long an unused connection is kept: longer than the interval of rechecks, and no longer than servers keep theirs.
const IDLE: Duration = Duration::from_secs(75);
/// The longest head of an answer, and the most fields in it.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;

/// A question as HTTP has it.
pub(super) type HttpQuestion = Request<Full<Bytes>>;

/// The answer to a question.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `None` if the body was longer than it may be.
    pub(super) body: Option<Bytes>,
}

/// The connections to a backend that are not in use.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    /// The one that was used last is at the end.
    idle: Mutex<Vec<(Instant, Connection)>>,
}

/// A connection, and the task that reads and writes it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closes the socket even if an answer is on its way.
        self.driver.abort();
    }
}

/// The error of one exchange, and whether another connection may be tried: the answer had not begun.
struct Failed {
    error: AskError,
    is_stale: bool,
}

impl Pool {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, idle: Mutex::default() }
    }

    /// Asks over a connection that is kept or a new one, and reads a body of `max_body` bytes at most.
    ///
    /// A server may close a connection while a question is on its way, so a question that gets no answer over a connection
    /// that was kept is asked once more, over a new one.
    pub(super) async fn ask(
        &self,
        question: &HttpQuestion,
        max_body: usize,
        deadline: Instant,
        step: &mut Step,
    ) -> Result<HttpAnswer, AskError> {
        *step = Step::Answer;
        if let Some(kept) = self.take() {
            match self.ask_over(kept, question, max_body).await {
                // Those that were kept with it are not better.
                Err(Failed { is_stale: true, .. }) => lock(&self.idle).clear(),
                answered => return answered.map_err(|failed| failed.error),
            }
        }
        let connection = self.open(deadline, step).await?;
        *step = Step::Answer;
        self.ask_over(connection, question, max_body).await.map_err(|failed| failed.error)
    }

    async fn ask_over(
        &self,
        mut connection: Connection,
        question: &HttpQuestion,
        max_body: usize,
    ) -> Result<HttpAnswer, Failed> {
        let unanswered = |error: hyper::Error| {
            let error = AskError::of_http(error);
            let is_stale = matches!(error, AskError::Broken(_));
            Failed { error, is_stale }
        };
        connection.sender.ready().await.map_err(unanswered)?;
        let answer = connection.sender.send_request(question.clone()).await.map_err(unanswered)?;
        let (head, body) = answer.into_parts();
        let body = match Limited::new(body, max_body).collect().await {
            Ok(body) => Some(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => None,
            Err(error) => {
                let error = error.downcast::<hyper::Error>().expect("hyper reads the body");
                return Err(Failed { error: AskError::Broken(*error), is_stale: false });
            }
        };
        if body.is_some() {
            self.keep(connection);
        }
        Ok(HttpAnswer { status: head.status, headers: head.headers, body })
    }

    async fn open(&self, deadline: Instant, step: &mut Step) -> Result<Connection, AskError> {
        let stream = self.connector.connect(deadline, step).await?;
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(AskError::of_http)?;
        // Its errors reach the question that is asked over it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, driver })
    }

    /// The connection that was used last, of those that are still open.
    fn take(&self) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        forget_old(&mut idle);
        while let Some((_, connection)) = idle.pop() {
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        forget_old(&mut idle);
        idle.push((Instant::now(), connection));
    }
}

/// Closes the connections that have not been used for long.
fn forget_old(idle: &mut Vec<(Instant, Connection)>) {
    idle.retain(|(since, _)| since.elapsed() < IDLE);
}
