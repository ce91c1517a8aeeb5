//! STUN Binding: a parser and a writer without allocation, for Tailscale's clients and all others.
//!
//! A client asks "which address do you see me at?" with a Binding request (RFC 8489 section 3). [`Request::parse`]
//! tells three dialects apart, and [`Request::answer`] answers each in its own: Tailscale's, whose requests have a
//! fixed shape and whose answers are the shortest; RFC 8489; and RFC 3489, which has no magic cookie. A server with two
//! addresses answers the questions of RFC 5780 as well, by which a client finds out what its NAT does ([`Origins`]).
//! Whatever the question, the answer is hardly longer on the wire ([`Amplifies`]), so that it is of no use to an
//! attacker that forges questions in the name of others.
//!
//! A client's half is [`write_request`] and [`Response::parse`]. Nothing here allocates, and no input panics.

mod answer;
mod attribute;
mod discovery;
mod header;
mod message;
mod request;
mod response;

pub use answer::{ANSWER_MAX_LEN, Amplifies, Answer, AnswerKind};
pub use discovery::{AskedOrigin, ChangeRequest, Origins};
pub use header::TransactionId;
pub use request::{
    DISCOVERY_REQUEST_LEN, Dialect, NotStun, REQUEST_LEN, REQUEST_MAX_LEN, Request, write_discovery_request,
    write_request,
};
pub use response::{RESPONSE_MAX_LEN, Response, ResponseError, write_response};
