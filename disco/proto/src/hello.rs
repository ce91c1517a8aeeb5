//! The hello: the offer by which two nodes become direct without a control plane.
//!
//! It goes over a relay, in a packet with the layout of disco: the magic, the disco key of the sender, a nonce and a box. The
//! box is sealed with the *node* keys of both, so that a relay can neither read nor make one. A stock client does not know
//! the disco key and drops it; a relay takes it for disco, and answers for an unknown peer.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | type, 0x68 |
//! | 1 | version, 0 |
//! | 8 | epoch of the sender, random at its start |
//! | 4 | counter in the epoch |
//! | 12 | challenge |
//! | 12 | echo of the last challenge of the receiver; zeros for none |
//! | 2 | home region; 0 for none |
//! | 2 | region in which the sender can be reached as well; 0 for none |
//! | 2 | round trip to the relay in milliseconds; 0 for not known |
//! | 1 | the class of the sender's NAT, and 0x80 if an echo is wanted |
//! | 18 each | addresses as in a CallMeMaybe, 8 at most |
//!
//! Integers are in network byte order. What follows is ignored, and so is a hello of another version. No clocks of two hosts
//! are compared: that a hello is no recording says its echo.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::disco::message::{ADDRESS_LEN, read_address, write_address};
use towpath_wire::disco::{MAGIC, MIN_LEN};
use towpath_wire::sealed::{Nonce, SharedKey};

use crate::MappingClass;
use crate::candidates::MOST_OFFERED;
use crate::datagram::Region;

const TYPE: u8 = 0x68;
const VERSION: u8 = 0;
const WANTS_ECHO: u8 = 0x80;
/// Bytes before the addresses.
const FIXED_LEN: usize = 45;

/// A number that only the receiver of a hello can repeat.
pub type Challenge = [u8; 12];

/// What a hello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Random at the start of the sender.
    pub epoch: u64,
    /// Grows with each hello of an epoch.
    pub counter: u32,
    /// What the answer repeats.
    pub challenge: Challenge,
    /// The challenge of the receiver that this answers.
    pub echo: Option<Challenge>,
    /// The region in which the sender can be reached.
    pub region: Option<Region>,
    /// The region in which the sender can be reached if that one cannot.
    pub standby: Option<Region>,
    /// The round trip between the sender and its relay, to a millisecond.
    pub relay_rtt: Option<Duration>,
    /// The class of the sender's NAT.
    pub mapping: MappingClass,
    /// Whether the sender has yet to learn that what it knows of the receiver is no recording.
    pub wants_echo: bool,
    /// Where the sender may be reached, 8 at most.
    pub addresses: Vec<SocketAddr>,
}

impl Hello {
    /// Appends the packet that carries this hello. `shared` is the agreement of both node keys; `nonce` is random.
    pub fn seal(&self, disco: &DiscoPublic, shared: &SharedKey, nonce: &Nonce, out: &mut Vec<u8>) {
        let mut text = vec![TYPE, VERSION];
        text.extend_from_slice(&self.epoch.to_be_bytes());
        text.extend_from_slice(&self.counter.to_be_bytes());
        text.extend_from_slice(&self.challenge);
        text.extend_from_slice(&self.echo.unwrap_or_default());
        for region in [self.region, self.standby] {
            text.extend_from_slice(&region.map_or(0, |region| region.0).to_be_bytes());
        }
        let millis =
            self.relay_rtt.map_or(0, |rtt| u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX).max(1));
        text.extend_from_slice(&millis.to_be_bytes());
        text.push(self.mapping.index() as u8 | if self.wants_echo { WANTS_ECHO } else { 0 });
        self.addresses.iter().take(MOST_OFFERED).for_each(|address| write_address(*address, &mut text));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(disco.as_bytes());
        out.extend_from_slice(nonce);
        out.extend_from_slice(&shared.seal(nonce, &text));
    }

    /// Reads a packet that came over a relay. Returns `None` if it is no hello of the peer with which `shared` was agreed on.
    #[must_use]
    pub fn open(packet: &[u8], shared: &SharedKey) -> Option<(DiscoPublic, Self)> {
        let (head, sealed) = packet.split_at_checked(MIN_LEN)?;
        let (key, nonce) = head.strip_prefix(&MAGIC)?.split_first_chunk()?;
        let text = shared.open(nonce.first_chunk()?, sealed).ok()?;
        Some((DiscoPublic::from_bytes(*key), Self::read(&text)?))
    }

    fn read(text: &[u8]) -> Option<Self> {
        let (fixed, addresses) = text.split_first_chunk::<FIXED_LEN>()?;
        let [TYPE, VERSION, rest @ ..] = fixed else { return None };
        let (epoch, rest) = rest.split_first_chunk()?;
        let (counter, rest) = rest.split_first_chunk()?;
        let (challenge, rest) = rest.split_first_chunk()?;
        let (echo, rest) = rest.split_first_chunk()?;
        let (region, rest) = rest.split_first_chunk()?;
        let (standby, rest) = rest.split_first_chunk()?;
        let (millis, rest) = rest.split_first_chunk()?;
        let [class] = rest else { return None };
        let (addresses, _) = addresses.as_chunks::<ADDRESS_LEN>();
        Some(Self {
            epoch: u64::from_be_bytes(*epoch),
            counter: u32::from_be_bytes(*counter),
            challenge: *challenge,
            echo: Some(*echo).filter(|echo| *echo != Challenge::default()),
            region: read_region(*region),
            standby: read_region(*standby),
            relay_rtt: Some(u16::from_be_bytes(*millis))
                .filter(|millis| *millis != 0)
                .map(|millis| Duration::from_millis(millis.into())),
            mapping: MappingClass::ALL
                .get(usize::from(class & !WANTS_ECHO))
                .copied()
                .unwrap_or(MappingClass::Unknown),
            wants_echo: class & WANTS_ECHO != 0,
            addresses: addresses.iter().take(MOST_OFFERED).map(read_address).collect(),
        })
    }
}

fn read_region(number: [u8; 2]) -> Option<Region> {
    Some(u16::from_be_bytes(number)).filter(|number| *number != 0).map(Region)
}

#[cfg(test)]
mod tests {
    use towpath_wire::disco::looks_like_disco;
    use towpath_wire::key::NodePrivate;

    use super::*;

    fn hello() -> Hello {
        Hello {
            epoch: 0x0102_0304_0506_0708,
            counter: 9,
            challenge: [3; 12],
            echo: None,
            region: Some(Region(900)),
            standby: Some(Region(901)),
            relay_rtt: Some(Duration::from_millis(80)),
            mapping: MappingClass::Independent,
            wants_echo: true,
            addresses: ["192.0.2.1:5", "[2001:db8::1]:65535"]
                .map(|text| text.parse().expect("an address"))
                .into(),
        }
    }

    #[test]
    fn a_hello_is_read_as_it_was_sealed_and_by_its_receiver_alone() {
        let [mine, theirs, other] = [1, 2, 3].map(|seed| NodePrivate::from_random([seed; 32]));
        let disco = DiscoPublic::from_bytes([8; 32]);
        let least = Hello {
            echo: Some([1; 12]),
            region: None,
            standby: None,
            relay_rtt: None,
            addresses: vec![],
            ..hello()
        };
        for hello in [hello(), least] {
            let mut packet = Vec::new();
            hello.seal(&disco, &SharedKey::new(&mine, &theirs.public()), &[7; 24], &mut packet);
            assert!(looks_like_disco(&packet), "relays answer for peers that are not there");
            let shared = SharedKey::new(&theirs, &mine.public());
            assert_eq!(Hello::open(&packet, &shared), Some((disco, hello)));
            assert_eq!(Hello::open(&packet, &SharedKey::new(&theirs, &other.public())), None);
            for cut in 0..packet.len() {
                assert_eq!(Hello::open(&packet[..cut], &shared), None, "{cut} bytes");
            }
        }
    }

    #[test]
    fn what_is_longer_or_of_another_version_is_read_as_far_as_it_can_be() {
        let (mine, theirs) = (NodePrivate::from_random([1; 32]), NodePrivate::from_random([2; 32]));
        let shared = SharedKey::new(&mine, &theirs.public());
        let read = |text: &[u8]| {
            let mut packet = [&MAGIC[..], &[8; 32], &[7; 24]].concat();
            packet.extend_from_slice(&shared.seal(&[7; 24], text));
            Hello::open(&packet, &shared).map(|(_, hello)| hello)
        };
        let mut text = vec![0; FIXED_LEN];
        text[0] = TYPE;
        assert!(read(&text).is_some_and(|hello| hello.addresses.is_empty() && !hello.wants_echo));
        assert!(
            read(&[text.clone(), vec![0; ADDRESS_LEN * 20 + 3]].concat())
                .is_some_and(|hello| hello.addresses.len() == MOST_OFFERED)
        );
        text[44] = 0x7f;
        assert!(read(&text).is_some_and(|hello| hello.mapping == MappingClass::Unknown));
        assert_eq!(read(&text[..44]), None);
        text[1] = 1;
        assert_eq!(read(&text), None);
    }
}
