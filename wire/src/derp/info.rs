//! The two boxed JSON messages of a login.
//!
//! Go matches JSON keys in any case, ignores unknown keys, refuses a key of a wrong type, and takes `null` for an empty
//! object. So does this parser, because a relay must admit exactly those clients that upstream admits.

use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::app_name::{AppName, MAX_APP_NAME};
use super::binding::Binding;
use super::frame::{FrameType, frame};
use super::mesh::MeshKey;
use super::token::Token;
use crate::key::{NodePrivate, NodePublic};
use crate::sealed::{NONCE_LEN, Nonce, OVERHEAD, SharedKey};

/// The shortest ClientInfo payload: key and nonce. Its box is then empty and does not open.
pub const MIN_CLIENT_INFO: usize = 32 + NONCE_LEN;

/// More bytes than the JSON of a [`ClientInfo`] has besides its token. A text that grows would leave parts of the mesh key and
/// of the token behind.
const MAX_JSON: usize = 384;

/// The message with which a client introduces itself at login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The regional pre-shared key, when the client claims mesh rights.
    pub mesh_key: Option<MeshKey>,
    /// The protocol version that the client states; compared with nothing.
    pub version: i64,
    /// Whether the client answers a Ping.
    pub can_ack_pings: bool,
    /// Whether the client is a monitoring probe.
    pub is_prober: bool,
    /// The program that the client is part of, if it says.
    pub app_name: AppName,
    /// The connection that the login is for, when the client binds it to one. Upstream does not know this member.
    pub binding: Option<Binding>,
    /// The token by which the client asks to be admitted. Upstream does not know this member.
    pub token: Option<Token>,
}

/// Why a ClientInfo frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClientInfoError {
    /// Key or nonce are cut off.
    #[error("the frame is too short")]
    Short,
    /// The key cannot be agreed with, see [`NodePublic::is_contributory`].
    #[error("the key is of small order or not canonical")]
    Key,
    /// The box does not open: the client does not own the key or means another relay.
    #[error("the box does not open: the client does not own the key, or means another relay")]
    Box,
    /// The box opens and holds something else than the JSON of a ClientInfo.
    #[error("the message is not a ClientInfo")]
    Json,
    /// The name of the client's program is too long or cannot be printed. The error does not repeat it.
    #[error("the app name has more than {max} bytes, or others than printable ASCII", max = MAX_APP_NAME)]
    AppName,
}

impl ClientInfo {
    /// Opens the payload of a ClientInfo frame with the relay's key.
    ///
    /// # Errors
    ///
    /// See [`ClientInfoError`].
    pub fn open(relay: &NodePrivate, payload: &[u8]) -> Result<Introduction, ClientInfoError> {
        let (client, rest) = NodePublic::split_from(payload).ok_or(ClientInfoError::Short)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(ClientInfoError::Short)?;
        if !client.is_contributory() {
            return Err(ClientInfoError::Key);
        }
        let shared = SharedKey::new(relay, &client);
        let json = Zeroizing::new(shared.open(nonce, sealed).map_err(|_| ClientInfoError::Box)?);
        Ok(Introduction { client, info: Self::from_json(&json)?, shared })
    }

    /// Appends the ClientInfo frame of `client` for the relay with the key `relay`.
    pub fn seal(&self, client: &NodePrivate, relay: &NodePublic, nonce: &Nonce, out: &mut Vec<u8>) {
        let sealed = SharedKey::new(client, relay).seal(nonce, self.to_json().as_bytes());
        frame(out, FrameType::ClientInfo, &[client.public().as_bytes(), nonce, &sealed]);
    }

    fn to_json(&self) -> Zeroizing<String> {
        let token = self.token.as_ref().map(Token::as_str);
        let mut json = Zeroizing::new(String::with_capacity(MAX_JSON + token.map_or(0, str::len)));
        json.push('{');
        if let Some(key) = &self.mesh_key {
            json.push_str("\"meshKey\":\"");
            key.write(&mut json);
            json.push_str("\",");
        }
        let prober = if self.is_prober { ",\"IsProber\":true" } else { "" };
        write!(json, "\"version\":{},\"CanAckPings\":{}{prober}", self.version, self.can_ack_pings)
            .expect("writing to a String cannot fail");
        if !self.app_name.is_empty() {
            write!(json, ",\"AppName\":{}", Value::from(self.app_name.as_str()))
                .expect("writing to a String cannot fail");
        }
        if let Some(binding) = &self.binding {
            json.push_str(",\"towpathBinding\":\"");
            binding.write(&mut json);
            json.push('"');
        }
        if let Some(token) = token {
            // Its characters need no escape.
            json.push_str(",\"towpathToken\":\"");
            json.push_str(token);
            json.push('"');
        }
        json.push('}');
        json
    }

    /// Reads the JSON by Go's rules. The key of the mesh and the token are taken from where they stand; no other copy of them is
    /// made unless a character is escaped, which no client does.
    ///
    /// # Errors
    ///
    /// [`ClientInfoError::Json`] or [`ClientInfoError::AppName`].
    pub fn from_json(json: &[u8]) -> Result<Self, ClientInfoError> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let read = reader.deserialize_any(InfoVisitor).and_then(|info| reader.end().map(|()| info));
        read.map_err(|_| ClientInfoError::Json)?
    }
}

/// The reader of the object that is a ClientInfo.
struct InfoVisitor;

impl<'de> Visitor<'de> for InfoVisitor {
    type Value = Result<ClientInfo, ClientInfoError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Ok(ClientInfo::default()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut info = ClientInfo::default();
        // Upstream looks at the last name once it has read everything.
        let mut app_name = Some(AppName::default());
        while let Some(name) = members.next_key()? {
            match name {
                // Upstream parses this field with a parser of its own, which refuses null and the empty text too.
                InfoName::MeshKey => info.mesh_key = Some(members.next_value::<ClaimedKey>()?.0),
                InfoName::Version => {
                    info.version = members.next_value::<Option<i64>>()?.unwrap_or(info.version);
                }
                InfoName::CanAckPings => {
                    info.can_ack_pings = members.next_value::<Option<bool>>()?.unwrap_or(info.can_ack_pings);
                }
                InfoName::IsProber => {
                    info.is_prober = members.next_value::<Option<bool>>()?.unwrap_or(info.is_prober);
                }
                InfoName::AppName => {
                    app_name = members.next_value::<Option<ClaimedName>>()?.map_or(app_name, |name| name.0);
                }
                InfoName::Binding => {
                    info.binding = members
                        .next_value::<Option<ClaimedBinding>>()?
                        .map_or(info.binding, |claimed| Some(claimed.0));
                }
                InfoName::Token => {
                    info.token =
                        members.next_value::<Option<ClaimedToken>>()?.map(|claimed| claimed.0).or(info.token);
                }
                InfoName::Unknown => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        Ok(app_name.map(|app_name| ClientInfo { app_name, ..info }).ok_or(ClientInfoError::AppName))
    }
}

/// The name of a member.
enum InfoName {
    MeshKey,
    Version,
    CanAckPings,
    IsProber,
    AppName,
    Binding,
    Token,
    Unknown,
}

impl<'de> Deserialize<'de> for InfoName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(|name: &str| {
            Some(match name.to_ascii_lowercase().as_str() {
                "meshkey" => Self::MeshKey,
                "version" => Self::Version,
                "canackpings" => Self::CanAckPings,
                "isprober" => Self::IsProber,
                "appname" => Self::AppName,
                "towpathbinding" => Self::Binding,
                "towpathtoken" => Self::Token,
                _ => Self::Unknown,
            })
        }))
    }
}

/// The key of the mesh, as a client claims it.
struct ClaimedKey(MeshKey);

impl<'de> Deserialize<'de> for ClaimedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(MeshKey::from_claim)).map(Self)
    }
}

/// The app name that a client states; `None` if the text is not a name.
struct ClaimedName(Option<AppName>);

impl<'de> Deserialize<'de> for ClaimedName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(TextVisitor(|text: &str| Some(Self(AppName::from_bytes(text.as_bytes())))))
    }
}

/// The binding that a client states.
struct ClaimedBinding(Binding);

impl<'de> Deserialize<'de> for ClaimedBinding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(Binding::from_claim)).map(Self)
    }
}

/// The token that a client presents.
struct ClaimedToken(Token);

impl<'de> Deserialize<'de> for ClaimedToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(|text: &str| Some(Self(Token::from_claim(text)))))
    }
}

/// The reader of a text, which it lends to a function and does not copy.
struct TextVisitor<F>(F);

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text of its form")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("not of its form"))
    }
}

/// A client that has proven its key.
#[derive(Debug)]
pub struct Introduction {
    /// The node key of the client.
    pub client: NodePublic,
    /// The contents of its ClientInfo.
    pub info: ClientInfo,
    /// The agreement of its key with the relay's, for the answer: the agreement is what a login costs.
    pub shared: SharedKey,
}

/// The message with which a relay answers a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Bytes a second that the client shall keep to; zero = as much as it likes.
    pub rate: u64,
    /// Bytes that it may send at once within that rate.
    pub burst: u64,
}

impl ServerInfo {
    /// The box of a ServerInfo frame.
    #[must_use]
    pub fn seal(&self, shared: &SharedKey, nonce: &Nonce) -> Vec<u8> {
        let Self { rate, burst } = self;
        if *rate == 0 {
            return shared.seal(nonce, br#"{"version":2}"#);
        }
        let json =
            format!(r#"{{"version":2,"TokenBucketBytesPerSecond":{rate},"TokenBucketBytesBurst":{burst}}}"#);
        shared.seal(nonce, json.as_bytes())
    }

    /// Opens the parts of a ServerInfo frame with the client's key.
    ///
    /// # Errors
    ///
    /// [`ClientInfoError::Box`] or [`ClientInfoError::Json`], which mean the same here.
    pub fn open(
        client: &NodePrivate,
        relay: &NodePublic,
        nonce: &Nonce,
        sealed: &[u8],
    ) -> Result<Self, ClientInfoError> {
        if sealed.len() < OVERHEAD {
            return Err(ClientInfoError::Short);
        }
        let json = SharedKey::new(client, relay).open(nonce, sealed).map_err(|_| ClientInfoError::Box)?;
        let object: Map<String, Value> = serde_json::from_slice(&json).map_err(|_| ClientInfoError::Json)?;
        let number = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or(0);
        Ok(Self { rate: number("TokenBucketBytesPerSecond"), burst: number("TokenBucketBytesBurst") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derp::token::MAX_TOKEN;

    #[test]
    fn json_is_read_by_the_rules_of_go() {
        let read = |json: &str| ClientInfo::from_json(json.as_bytes());
        assert_eq!(read("{}"), Ok(ClientInfo::default()));
        assert_eq!(read("null"), Ok(ClientInfo::default()));
        let mesh_key = Some(MeshKey::from_bytes([0xab; 32]));
        let hex = "aB".repeat(32);
        for name in ["meshKey", "MESHKEY", "meshkey"] {
            assert_eq!(
                read(&format!(r#"{{"{name}":"{hex}"}}"#)),
                Ok(ClientInfo { mesh_key: mesh_key.clone(), ..Default::default() })
            );
        }
        let app_name = AppName::from_bytes(b"x y").expect("a name");
        let said = ClientInfo {
            version: 2,
            can_ack_pings: true,
            is_prober: true,
            app_name,
            ..ClientInfo::default()
        };
        assert_eq!(
            read(r#"{"VERSION":2,"canackpings":true,"IsProber":true,"APPname":"x\u0020y","new":[1]}"#),
            Ok(said)
        );
        // What ts_derp sends: a field of another name, so no mesh login at all.
        assert_eq!(
            read(r#"{"can_ack_pings":false,"is_prober":false,"mesh_key":"none","version":2}"#)
                .map(|i| i.mesh_key),
            Ok(None)
        );
        assert_eq!(read(r#"{"version":null}"#), Ok(ClientInfo::default()));
    }

    #[test]
    fn an_app_name_is_short_and_printable_or_the_login_is_refused() {
        let read = |name: &str| {
            ClientInfo::from_json(format!(r#"{{"version":2,"AppName":{name}}}"#).as_bytes())
                .map(|info| info.app_name.as_str().to_owned())
        };
        let longest = "x".repeat(32);
        for (json, name) in [("null", ""), ("\"\"", ""), (r#""a\"b""#, "a\"b")] {
            assert_eq!(read(json).as_deref(), Ok(name), "{json}");
        }
        assert_eq!(read(&format!("\"{longest}\"")), Ok(longest.clone()));
        for json in
            [format!("\"{longest}x\"").as_str(), r#""a\nb""#, r#""a\u0000b""#, r#""\u007f""#, r#""é""#]
        {
            assert_eq!(read(json), Err(ClientInfoError::AppName), "{json}");
        }
    }

    /// Each member in its turn, as Go does it.
    #[test]
    fn members_that_come_twice_are_both_read() {
        let read = |json: &str| ClientInfo::from_json(json.as_bytes());
        assert_eq!(read(r#"{"VERSION":1,"version":2}"#).map(|info| info.version), Ok(2));
        assert_eq!(read(r#"{"version":2,"VERSION":1}"#).map(|info| info.version), Ok(1));
        assert_eq!(read(r#"{"version":2,"VERSION":null}"#).map(|info| info.version), Ok(2));
        assert_eq!(read(r#"{"version":"2","version":2}"#), Err(ClientInfoError::Json));
        assert_eq!(read(r#"{} {}"#), Err(ClientInfoError::Json));
        let name = |json| read(json).map(|info| info.app_name.as_str().to_owned());
        assert_eq!(name(r#"{"AppName":"\n","appname":"x"}"#).as_deref(), Ok("x"));
        assert_eq!(name(r#"{"AppName":"x","appname":null}"#).as_deref(), Ok("x"));
        assert_eq!(name(r#"{"AppName":"x","appname":"\n"}"#), Err(ClientInfoError::AppName));
    }

    #[test]
    fn json_of_wrong_types_is_refused() {
        let short = "ab".repeat(31);
        for json in [
            "",
            "[]",
            "2",
            "{",
            r#"{"version":"2"}"#,
            r#"{"version":2.5}"#,
            r#"{"CanAckPings":1}"#,
            r#"{"IsProber":"yes"}"#,
            r#"{"AppName":1}"#,
            r#"{"meshKey":""}"#,
            r#"{"meshKey":null}"#,
            &format!(r#"{{"meshKey":"{short}"}}"#),
            &format!(r#"{{"meshKey":"{short}abab"}}"#),
        ] {
            assert_eq!(ClientInfo::from_json(json.as_bytes()), Err(ClientInfoError::Json), "{json}");
        }
    }

    #[test]
    fn own_json_has_upstreams_order() {
        let mesh_key = Some(MeshKey::from_bytes([1; 32]));
        let app_name = AppName::from_bytes(b"\"some\" app").expect("a name");
        let info = ClientInfo { mesh_key, version: 2, is_prober: true, app_name, ..ClientInfo::default() };
        let key = "01".repeat(32);
        let json = r#""version":2,"CanAckPings":false,"IsProber":true,"AppName":"\"some\" app"}"#;
        assert_eq!(*info.to_json(), format!(r#"{{"meshKey":"{key}",{json}"#));
        assert_eq!(ClientInfo::from_json(info.to_json().as_bytes()), Ok(info.clone()));
        let app_name = AppName::from_bytes(&[b'"'; MAX_APP_NAME]).expect("a name");
        let (binding, token) = (Some(Binding::from_bytes([0xab; 32])), "x".repeat(MAX_TOKEN).parse().ok());
        let longest = ClientInfo { version: i64::MIN, app_name, binding, token, ..info }.to_json();
        let most = MAX_JSON + MAX_TOKEN;
        assert!(longest.len() <= most && longest.capacity() == most, "it has not grown");
    }

    #[test]
    fn binding_and_token_are_members_of_names_that_upstream_does_not_know() {
        let read = |json: &str| ClientInfo::from_json(json.as_bytes());
        let (binding, token) = (Some(Binding::from_bytes([0xab; 32])), "v4.public.x".parse().ok());
        let info = ClientInfo { version: 2, binding, token, ..ClientInfo::default() };
        let members = format!(r#""towpathBinding":"{}","towpathToken":"v4.public.x""#, "ab".repeat(32));
        assert_eq!(*info.to_json(), format!(r#"{{"version":2,"CanAckPings":false,{members}}}"#));
        assert_eq!(read(&info.to_json()), Ok(info.clone()));
        assert_eq!(
            read(&format!(
                r#"{{"version":2,{}}}"#,
                members.to_uppercase().replace("V4.PUBLIC.X", "v4.public.x")
            )),
            Ok(info.clone())
        );
        // As if they were not there, also behind others.
        let nulls = r#""towpathBinding":null,"towpathToken":null"#;
        assert_eq!(read(&format!(r#"{{"version":2,{members},{nulls}}}"#)), Ok(info));
        assert_eq!(read(&format!("{{{nulls}}}")), Ok(ClientInfo::default()));
        for json in [
            r#"{"towpathBinding":"ab"}"#,
            r#"{"towpathBinding":1}"#,
            r#"{"towpathToken":1}"#,
            r#"{"towpathToken":{}}"#,
        ] {
            assert_eq!(read(json), Err(ClientInfoError::Json), "{json}");
        }
        // A text that is no token is kept as one that is malformed.
        for text in ["", "a b", r#"\""#, &"x".repeat(MAX_TOKEN + 1)] {
            let token = read(&format!(r#"{{"towpathToken":"{text}"}}"#)).expect("a login").token;
            assert_eq!(token.expect("a token").as_str(), "", "{text}");
        }
    }
}
