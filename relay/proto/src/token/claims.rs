//! What a token says: the members of its JSON, with the names that PASETO registers.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use towpath_wire::key::NodePublic;

use super::TokenError;

/// What a token says. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The node key that may log in with the token (`sub`).
    pub client: NodePublic,
    /// The node key of the one relay that the token is for (`aud`); `None` for any that accepts the key of its signature.
    pub relay: Option<NodePublic>,
    /// The first second in which the token is of no use any more (`exp`).
    pub expires: i64,
    /// The first second in which the token is of use (`nbf`).
    pub not_before: Option<i64>,
    /// When the token was made (`iat`). It decides nothing.
    pub issued: Option<i64>,
}

/// The JSON. Members of other names are left to other readers of the token.
#[derive(Deserialize, Serialize)]
struct Members {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    exp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<String>,
}

impl Claims {
    /// Reads the message of a token.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let Members { sub, aud, exp, nbf, iat } = serde_json::from_slice(json).ok()?;
        let optional = |text: Option<String>| text.map_or(Some(None), |text| read_time(&text).map(Some));
        Some(Self {
            client: sub.parse().ok()?,
            relay: aud.map_or(Some(None), |text| text.parse().ok().map(Some))?,
            expires: read_time(&exp)?,
            not_before: optional(nbf)?,
            issued: optional(iat)?,
        })
    }

    /// The message of a token; `None` if a time is beyond the year 9999.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        let optional = |time: Option<i64>| time.map_or(Some(None), |time| write_time(time).map(Some));
        let members = Members {
            sub: self.client.to_string(),
            aud: self.relay.map(|relay| relay.to_string()),
            exp: write_time(self.expires)?,
            nbf: optional(self.not_before)?,
            iat: optional(self.issued)?,
        };
        serde_json::to_vec(&members).ok()
    }

    /// Whether the token is of use at `now`.
    ///
    /// # Errors
    ///
    /// [`TokenError::Expired`] or [`TokenError::NotYetValid`].
    pub fn check_time(&self, now: i64) -> Result<(), TokenError> {
        if now >= self.expires {
            return Err(TokenError::Expired);
        }
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }

    /// Whether `client` may log in at `relay` with the token.
    pub(super) fn check_keys(&self, client: &NodePublic, relay: &NodePublic) -> Result<(), TokenError> {
        if self.client != *client {
            return Err(TokenError::OtherKey);
        }
        if self.relay.is_some_and(|named| named != *relay) {
            return Err(TokenError::OtherRelay);
        }
        Ok(())
    }
}

fn read_time(text: &str) -> Option<i64> {
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp())
}

/// Writes a time as tokens have it (RFC 3339, in UTC); `None` for one beyond the year 9999, or before the year 0.
#[must_use]
pub fn write_time(seconds: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (year @ 0..=9999, month, day) = time.to_calendar_date() else { return None };
    let (hour, minute, second) = time.to_hms();
    Some(format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "nodekey:358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";

    fn read(json: &str) -> Option<Claims> {
        Claims::read(json.replace("CLIENT", CLIENT).as_bytes())
    }

    #[test]
    fn claims_are_read_as_they_are_written() {
        let relay = Some(NodePublic::from_bytes([7; 32]));
        let client = CLIENT.parse().expect("a key");
        let expires = 4_102_444_800;
        for (not_before, issued, relay) in
            [(None, None, None), (Some(0), Some(-1), relay), (None, Some(1_700_000_000), relay)]
        {
            let claims = Claims { client, relay, expires, not_before, issued };
            let json = claims.write().expect("times within the calendar");
            assert_eq!(Claims::read(&json), Some(claims));
        }
        let claims = Claims { client, relay: None, expires, not_before: None, issued: None };
        let json = String::from_utf8(claims.write().expect("JSON")).expect("text");
        assert_eq!(json, format!(r#"{{"sub":"{CLIENT}","exp":"2100-01-01T00:00:00Z"}}"#));
        assert_eq!(Claims { expires: i64::MAX, ..claims }.write(), None);
    }

    /// Other libraries write offsets and fractions, and members of their own.
    #[test]
    fn claims_of_other_issuers_are_read() {
        let json =
            r#"{"jti":"87","exp":"2100-01-01T02:00:00.9+02:00","sub":"CLIENT","iss":["x"],"aud":null}"#;
        let claims = read(json).expect("claims");
        assert_eq!((claims.expires, claims.relay, claims.not_before), (4_102_444_800, None, None));
    }

    #[test]
    fn what_are_no_claims_of_a_client_is_refused() {
        for json in [
            "",
            "null",
            "[]",
            r#"{"exp":"2100-01-01T00:00:00Z"}"#,
            r#"{"sub":"CLIENT"}"#,
            r#"{"sub":"CLIENT","exp":4102444800}"#,
            r#"{"sub":"CLIENT","exp":"2100-01-01"}"#,
            r#"{"sub":"CLIENT","exp":"2100-02-30T00:00:00Z"}"#,
            r#"{"sub":"358072d6","exp":"2100-01-01T00:00:00Z"}"#,
            r#"{"sub":"CLIENT","exp":"2100-01-01T00:00:00Z","nbf":"soon"}"#,
            r#"{"sub":"CLIENT","exp":"2100-01-01T00:00:00Z","iat":1}"#,
            // A restriction that is not understood is not passed over.
            r#"{"sub":"CLIENT","exp":"2100-01-01T00:00:00Z","aud":"relay.example.com"}"#,
            r#"{"sub":"CLIENT","exp":"2100-01-01T00:00:00Z","aud":["CLIENT"]}"#,
            r#"{"sub":"CLIENT","exp":"2100-01-01T00:00:00Z","exp":"2200-01-01T00:00:00Z"}"#,
            r#"{"sub":"CLIENT","exp":"2100-01-01T00:00:00Z""#,
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
