//! The Binding request.

use std::num::NonZeroU16;

use towpath_wire::labels;

use crate::attribute::{
    Attribute, Attributes, CHANGE_REQUEST, FINGERPRINT, HEADER_LEN as ATTRIBUTE_HEADER_LEN,
    MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, MalformedAttribute, RESPONSE_PORT, SOFTWARE,
    asks_for_nothing, is_comprehension_required,
};
use crate::discovery::{ChangeRequest, read_port};
use crate::header::{BINDING_REQUEST, HEADER_LEN, ID_LEN, MAGIC_COOKIE, TransactionId, split_header};
use crate::message::{FINGERPRINT_LEN, MessageWriter, fingerprint};

/// Length in bytes of the request that [`write_request`] writes and every stock client sends.
pub const REQUEST_LEN: usize = FINGERPRINT_AT + FINGERPRINT_LEN;

/// Length in bytes of the longest datagram that [`Request::parse`] looks into.
///
/// It bounds the work that a stranger's datagram can cause. The value is the smallest MTU of an IPv6 link:
/// nothing longer can be a request that took every path (RFC 8489 section 6.1).
pub const REQUEST_MAX_LEN: usize = 1280;

/// What marks a request as one of Tailscale's dialect.
const SOFTWARE_VALUE: &[u8; 8] = b"tailnode";

/// Where FINGERPRINT starts in the request that we write: behind the header and SOFTWARE.
const FINGERPRINT_AT: usize = HEADER_LEN + ATTRIBUTE_HEADER_LEN + SOFTWARE_VALUE.len();

/// How a client speaks STUN, and so what it expects for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Tailscale's clients: SOFTWARE `tailnode`, and a FINGERPRINT at the end.
    Tailscale,
    /// RFC 8489, and RFC 5389 before it.
    Standard,
    /// RFC 3489, "classic STUN": no magic cookie.
    Classic,
}

/// A Binding request that deserves an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    dialect: Dialect,
    /// Cookie and transaction id, to be repeated in the answer.
    pub(crate) id: [u8; ID_LEN],
    /// Length of the datagram.
    pub(crate) len: usize,
    /// The attributes that count: none behind MESSAGE-INTEGRITY, which protects those in front of it.
    attributes: &'a [u8],
    pub(crate) fingerprint: bool,
    /// Whether an attribute asks for something that not every Binding server does.
    has_foreign: bool,
    pub(crate) change: ChangeRequest,
    pub(crate) response_port: Option<NonZeroU16>,
}

/// What a walk over the attributes of a request finds.
#[derive(Default)]
struct FoundAttributes<'a> {
    tailnode: bool,
    last: Option<Attribute<'a>>,
    misplaced_fingerprint: bool,
    /// Length of the attributes up to the first integrity attribute, which included.
    protected: Option<usize>,
    has_foreign: bool,
    change: Option<Option<ChangeRequest>>,
    response_port: Option<Option<NonZeroU16>>,
}

impl<'a> FoundAttributes<'a> {
    fn in_attributes(attributes: &'a [u8]) -> Result<Self, MalformedAttribute> {
        let mut found = Self::default();
        let mut walk = Attributes(attributes);
        while let Some(attribute) = walk.next() {
            let attribute = attribute?;
            found.note(attribute);
            if found.protected.is_none() && is_integrity(attribute.kind) {
                found.protected = Some(attributes.len() - walk.0.len());
            }
        }
        Ok(found)
    }

    fn note(&mut self, attribute: Attribute<'a>) {
        let Attribute { kind, value } = attribute;
        self.misplaced_fingerprint |= self.last.is_some_and(|last| last.kind == FINGERPRINT);
        self.last = Some(attribute);
        self.tailnode |= kind == SOFTWARE && value == SOFTWARE_VALUE;
        if self.protected.is_some() {
            return;
        }
        self.has_foreign |= is_foreign(attribute);
        match kind {
            CHANGE_REQUEST => _ = self.change.get_or_insert_with(|| ChangeRequest::read(attribute)),
            RESPONSE_PORT => _ = self.response_port.get_or_insert_with(|| read_port(attribute)),
            _ => {}
        }
    }
}

/// Whether an attribute asks for something that not every Binding server does. Clients of RFC 3489 and stuntman's send a
/// CHANGE-REQUEST without a flag, which asks for nothing.
fn is_foreign(attribute: Attribute<'_>) -> bool {
    let asks = match attribute.kind {
        CHANGE_REQUEST => ChangeRequest::read(attribute) != Some(ChangeRequest::NONE),
        kind => !asks_for_nothing(kind),
    };
    asks && is_comprehension_required(attribute.kind)
}

const fn is_integrity(kind: u16) -> bool {
    matches!(kind, MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256)
}

impl<'a> Request<'a> {
    /// Parses a datagram, whatever the dialect.
    ///
    /// A request is Tailscale's under the rules of Tailscale's server: attributes that end exactly where the datagram
    /// ends, with a SOFTWARE of `tailnode` among them and a correct FINGERPRINT last. The length field is not consulted,
    /// except that FINGERPRINT covers it, and no other attribute matters.
    ///
    /// Any other request must be well-formed under RFC 8489: the length field is right, and a FINGERPRINT, which it need
    /// not have, is correct and last. One without the magic cookie is taken for RFC 3489's if it is a Binding request of
    /// the right length.
    ///
    /// # Errors
    /// The first rule that the datagram breaks. The right answer to any of them is silence.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, NotStun> {
        let ((kind, length, id), attributes) = split_header(datagram).ok_or(NotStun::TooShort)?;
        if datagram.len() > REQUEST_MAX_LEN {
            return Err(NotStun::TooLong);
        }
        let has_cookie = id.starts_with(&MAGIC_COOKIE);
        let fits = length == attributes.len();
        if kind[0] & 0b1100_0000 != 0 || !(has_cookie || fits && kind == BINDING_REQUEST) {
            return Err(NotStun::BadHeader);
        }
        if kind != BINDING_REQUEST {
            return Err(NotStun::NotBindingRequest);
        }

        let found = FoundAttributes::in_attributes(attributes)
            .map_err(|MalformedAttribute| NotStun::MalformedAttributes)?;
        let fingerprint = match found.last {
            Some(Attribute { kind: FINGERPRINT, value }) => {
                let covered = datagram.len().saturating_sub(FINGERPRINT_LEN);
                if *value != fingerprint(&datagram[..covered]) {
                    return Err(NotStun::WrongFingerprint);
                }
                true
            }
            _ => false,
        };
        let mut request = Self {
            dialect: Dialect::Tailscale,
            id,
            len: datagram.len(),
            attributes: &attributes[..found.protected.unwrap_or(attributes.len())],
            fingerprint,
            has_foreign: found.has_foreign,
            change: ChangeRequest::NONE,
            response_port: None,
        };
        if has_cookie && found.tailnode && fingerprint {
            return Ok(request);
        }
        if !fits || found.change == Some(None) || found.response_port == Some(None) {
            return Err(NotStun::MalformedAttributes);
        }
        if found.misplaced_fingerprint {
            return Err(NotStun::MisplacedFingerprint);
        }
        request.dialect = if has_cookie { Dialect::Standard } else { Dialect::Classic };
        request.change = found.change.flatten().unwrap_or_default();
        request.response_port = found.response_port.flatten();
        Ok(request)
    }

    /// How the client speaks.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The transaction id; the last 96 bits of it if the dialect is [`Dialect::Classic`], which has 128.
    pub fn transaction(&self) -> TransactionId {
        let (_, transaction) = self.id.split_last_chunk().expect("an id is longer than its last 96 bits");
        TransactionId(*transaction)
    }

    /// The attributes that must be understood and are not, by a server that does discovery or not. RFC 3489 has no
    /// RESPONSE-PORT.
    pub(crate) fn unknown(&self, discovery: bool) -> impl Iterator<Item = u16> + Clone + use<'a> {
        let attributes = if self.has_foreign { self.attributes } else { &[] };
        let known: &[u16] = match self.dialect {
            _ if !discovery => &[],
            Dialect::Classic => &[CHANGE_REQUEST],
            Dialect::Standard | Dialect::Tailscale => &[CHANGE_REQUEST, RESPONSE_PORT],
        };
        Attributes(attributes)
            .map_while(Result::ok)
            .filter(|attribute| is_foreign(*attribute) && !known.contains(&attribute.kind))
            .map(|attribute| attribute.kind)
    }
}

/// Writes the Binding request that stock clients send: SOFTWARE first, FINGERPRINT last.
///
/// Servers that answer in the network driver look at the first attribute only, so the order matters.
pub fn write_request(out: &mut [u8; REQUEST_LEN], transaction: TransactionId) {
    let mut message = MessageWriter::begin(out, BINDING_REQUEST, &transaction.with_cookie());
    message.attribute(SOFTWARE, SOFTWARE_VALUE.len()).copy_from_slice(SOFTWARE_VALUE);
    message.finish(true);
}

/// What a client of RFC 5780 says of itself. It makes the request long enough for an answer with all attributes, which must not
/// amplify it.
const DISCOVERY_SOFTWARE: &[u8; 40] = b"towpath netcheck: NAT behaviour, RFC5780";

/// Length in bytes of the request that [`write_discovery_request`] writes.
pub const DISCOVERY_REQUEST_LEN: usize =
    HEADER_LEN + 2 * ATTRIBUTE_HEADER_LEN + CHANGE_REQUEST_LEN + DISCOVERY_SOFTWARE.len();

/// Length of the value of CHANGE-REQUEST.
const CHANGE_REQUEST_LEN: usize = 4;

/// Writes a Binding request of NAT behaviour discovery (RFC 5780 section 4): the server is to answer from the origin that `change`
/// asks for, and to name its other address.
pub fn write_discovery_request(
    out: &mut [u8; DISCOVERY_REQUEST_LEN],
    transaction: TransactionId,
    change: ChangeRequest,
) {
    let mut message = MessageWriter::begin(out, BINDING_REQUEST, &transaction.with_cookie());
    let flags = u32::from(change.address) << 2 | u32::from(change.port) << 1;
    message.attribute(CHANGE_REQUEST, CHANGE_REQUEST_LEN).copy_from_slice(&flags.to_be_bytes());
    message.attribute(SOFTWARE, DISCOVERY_SOFTWARE.len()).copy_from_slice(DISCOVERY_SOFTWARE);
    message.finish(false);
}

labels! {
    /// Why a datagram is not a Binding request.
    #[derive(thiserror::Error)]
    pub enum NotStun {
        /// Shorter than a STUN header.
        #[error("shorter than a STUN header")]
        TooShort = "too_short",
        /// Longer than [`REQUEST_MAX_LEN`], 1,280 bytes.
        #[error("longer than any Binding request")]
        TooLong = "too_long",
        /// The two leading zero bits are missing, or the magic cookie, and it is no request of RFC 3489 either.
        #[error("no STUN header")]
        BadHeader = "bad_header",
        /// STUN, but of another method or class.
        #[error("not a Binding request")]
        NotBindingRequest = "not_binding_request",
        /// The attributes do not end where the datagram ends or the length field says, or one has an impossible length.
        #[error("malformed attributes")]
        MalformedAttributes = "malformed_attributes",
        /// FINGERPRINT is not the last attribute.
        #[error("FINGERPRINT is not the last attribute")]
        MisplacedFingerprint = "misplaced_fingerprint",
        /// FINGERPRINT does not match the bytes in front of it.
        #[error("wrong FINGERPRINT")]
        WrongFingerprint = "wrong_fingerprint",
    }
}
