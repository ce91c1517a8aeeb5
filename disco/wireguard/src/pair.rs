//! A mesh of two: the files of wg-quick(8) for both, and the line that takes one of them to the other machine.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use towpath::NodePublic;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::hosts::is_host_name;
use crate::quick::{public_from_text, secret_from_text, to_text};

/// The version of invitations that this program makes and reads.
const VERSION: u32 = 1;
/// The longest relay map in an invitation, in bytes: a line of it can still be pasted into a terminal, which takes 4,095 bytes at once.
pub const MAP_MAX: usize = 2200;
/// The bits of a network of two, of which the first address and the second are used.
const PREFIX_LEN: u8 = 24;

/// One of the two.
#[derive(Debug)]
pub struct Member {
    /// The private key in base64.
    secret_key: Zeroizing<String>,
    key: NodePublic,
    name: String,
    address: Ipv4Addr,
}

/// What the other machine needs to become the second of the two. It holds a private key, and is as secret as that.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Invitation {
    version: u32,
    secret_key: String,
    name: String,
    #[zeroize(skip)]
    address: Ipv4Addr,
    peer_key: String,
    peer_name: String,
    #[zeroize(skip)]
    peer_address: Ipv4Addr,
    /// The DERP map.
    #[zeroize(skip)]
    map: Box<RawValue>,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Invitation(..)")
    }
}

/// Why an invitation cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum InvitationError {
    /// A name is none of a host.
    #[error("{0} is no name of a host: letters, digits and - between them")]
    Name(String),
    /// Both have one name.
    #[error("both machines would have the name {0}")]
    SameName(String),
    /// The map is too long.
    #[error(
        "the relay map has {0} bytes, and a line that can be pasted takes {MAP_MAX}: give a map with your own relays alone"
    )]
    Map(usize),
    /// The map is no JSON.
    #[error("the relay map is no JSON")]
    Json(#[source] serde_json::Error),
    /// A text is no invitation.
    #[error("this is no invitation, or not all of it: paste the whole line that `towpath pair` has printed")]
    Text,
    /// One of a later version.
    #[error(
        "this invitation is of version {0}, and this program reads version {VERSION}: take the newer one"
    )]
    Version(u32),
}

impl Member {
    /// The two, from random bytes: keys, and a network of 10.0.0.0/8.
    ///
    /// # Errors
    ///
    /// [`InvitationError::Name`], [`InvitationError::SameName`].
    pub fn two(names: [&str; 2], random: &Zeroizing<[u8; 66]>) -> Result<[Self; 2], InvitationError> {
        if let Some(wrong) = names.into_iter().find(|name| !is_host_name(name)) {
            return Err(InvitationError::Name(wrong.to_owned()));
        }
        if names[0].eq_ignore_ascii_case(names[1]) {
            return Err(InvitationError::SameName(names[0].to_owned()));
        }
        let (bytes, network) = random.split_at(64);
        let member = |place: usize| {
            let mut key = Zeroizing::new([0; 32]);
            key.copy_from_slice(&bytes[32 * place..][..32]);
            // As `wg genkey` does (RFC 7748 section 5).
            key[0] &= 248;
            key[31] = key[31] & 127 | 64;
            let secret_key = Zeroizing::new(STANDARD.encode(*key));
            let public = secret_from_text(&secret_key).expect("32 bytes").public();
            let address = Ipv4Addr::new(10, network[0], network[1], 1 + place as u8);
            Self { secret_key, key: public, name: names[place].to_owned(), address }
        };
        Ok([member(0), member(1)])
    }

    /// The file of wg-quick for this one.
    #[must_use]
    pub fn file(&self, peer: &Self) -> Zeroizing<String> {
        file(&self.secret_key, self.address, &to_text(&peer.key), &peer.name, peer.address)
    }

    /// The invitation for this one.
    ///
    /// # Errors
    ///
    /// [`InvitationError::Map`], [`InvitationError::Json`].
    pub fn invitation(&self, peer: &Self, map: &str) -> Result<Invitation, InvitationError> {
        let map = RawValue::from_string(map.to_owned()).map_err(InvitationError::Json)?;
        if map.get().len() > MAP_MAX {
            return Err(InvitationError::Map(map.get().len()));
        }
        Ok(Invitation {
            version: VERSION,
            secret_key: self.secret_key.to_string(),
            name: self.name.clone(),
            address: self.address,
            peer_key: to_text(&peer.key),
            peer_name: peer.name.clone(),
            peer_address: peer.address,
            map,
        })
    }
}

impl Invitation {
    /// The invitation as one word of letters, digits, `-` and `_`.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let json = Zeroizing::new(serde_json::to_vec(self).expect("all of it can be written as JSON"));
        Zeroizing::new(URL_SAFE_NO_PAD.encode(&*json))
    }

    /// Reads a word of [`to_text`](Self::to_text).
    ///
    /// # Errors
    ///
    /// [`InvitationError::Text`], [`InvitationError::Version`], [`InvitationError::Name`].
    pub fn from_text(text: &str) -> Result<Self, InvitationError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| InvitationError::Text)?);
        let Versioned { version } = serde_json::from_slice(&json).map_err(|_| InvitationError::Text)?;
        if version != VERSION {
            return Err(InvitationError::Version(version));
        }
        let invitation: Self = serde_json::from_slice(&json).map_err(|_| InvitationError::Text)?;
        let has_keys = secret_from_text(&invitation.secret_key).is_some()
            && public_from_text(&invitation.peer_key).is_some();
        if !has_keys {
            return Err(InvitationError::Text);
        }
        for name in [&invitation.name, &invitation.peer_name] {
            if !is_host_name(name) {
                return Err(InvitationError::Name(name.clone()));
            }
        }
        Ok(invitation)
    }

    /// The file of wg-quick for the second of the two.
    #[must_use]
    pub fn file(&self) -> Zeroizing<String> {
        file(&self.secret_key, self.address, &self.peer_key, &self.peer_name, self.peer_address)
    }

    /// The DERP map, as JSON.
    #[must_use]
    pub fn map(&self) -> &str {
        self.map.get()
    }

    /// The name of the first of the two.
    #[must_use]
    pub fn peer_name(&self) -> &str {
        &self.peer_name
    }
}

fn file(
    secret_key: &str,
    address: Ipv4Addr,
    peer_key: &str,
    peer_name: &str,
    peer_address: Ipv4Addr,
) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "# Written by towpath pair. The private key is a secret.\n\
         [Interface]\nPrivateKey = {secret_key}\nAddress = {address}/{PREFIX_LEN}\n\n\
         [Peer]\n# name = {peer_name}\nPublicKey = {peer_key}\nAllowedIPs = {peer_address}/32\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quick::QuickFile;

    const MAP: &str = r#"{"Regions":{"900":{"RegionID":900}}}"#;

    fn two() -> [Member; 2] {
        let mut random = Zeroizing::new([0; 66]);
        getrandom::fill(&mut *random).expect("random bytes");
        Member::two(["laptop", "dev"], &random).expect("they are right")
    }

    #[test]
    fn both_files_name_each_other() {
        let [laptop, dev] = two();
        let line = dev.invitation(&laptop, MAP).expect("it is short").to_text();
        let invitation = Invitation::from_text(&line).expect("it is whole");
        assert_eq!((invitation.map(), invitation.peer_name()), (MAP, "laptop"));
        let read = |text: &str| QuickFile::parse("towpath", text).expect("it is right");
        let (one, other) = (read(&laptop.file(&dev)), read(&invitation.file()));
        for (own, peer, name) in [(&one, &other, "dev"), (&other, &one, "laptop")] {
            let entry = &own.peers[0];
            assert_eq!(entry.key, peer.secret_key.as_ref().expect("a key").public());
            assert_eq!(entry.name.as_deref(), Some(name));
            let address = entry.single_addresses().next().expect("an address");
            assert_eq!(peer.addresses[0].addr(), address);
            assert!(own.addresses[0].contains(&address));
        }
    }

    #[test]
    fn what_is_no_invitation_is_said_to_be_none() {
        let [laptop, dev] = two();
        let line = dev.invitation(&laptop, MAP).expect("it is short").to_text();
        for len in 0..line.len() {
            assert!(matches!(Invitation::from_text(&line[..len]), Err(InvitationError::Text)), "{len}");
        }
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(&*line).expect("base64")).expect("JSON");
        let changed = |from: &str, to: &str| {
            Invitation::from_text(&URL_SAFE_NO_PAD.encode(json.replace(from, to))).map(|_| ())
        };
        assert!(matches!(changed("\"version\":1", "\"version\":2"), Err(InvitationError::Version(2))));
        assert!(matches!(changed("\"dev\"", "\"a\\nb\""), Err(InvitationError::Name(_))));
        assert!(matches!(changed("\"secret_key\":\"", "\"secret_key\":\"A"), Err(InvitationError::Text)));
    }

    #[test]
    fn names_and_maps_that_cannot_be_used_are_refused() {
        let random = Zeroizing::new([7; 66]);
        assert!(matches!(Member::two(["a", "A"], &random), Err(InvitationError::SameName(_))));
        assert!(matches!(Member::two(["a", "b c"], &random), Err(InvitationError::Name(_))));
        let [laptop, dev] = two();
        let long = format!("\"{}\"", "a".repeat(MAP_MAX));
        assert!(matches!(dev.invitation(&laptop, &long), Err(InvitationError::Map(_))));
        assert!(matches!(dev.invitation(&laptop, "{"), Err(InvitationError::Json(_))));
    }
}
