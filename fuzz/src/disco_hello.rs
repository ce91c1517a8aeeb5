//! Hellos: whatever a peer seals in one.

use std::sync::LazyLock;

use towpath_disco::hello::{Challenge, Hello};
use towpath_wire::disco::MAGIC;
use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::key::NodePrivate;
use towpath_wire::sealed::{Nonce, SharedKey};

/// Bytes before the addresses, and of each address.
const FIXED_LEN: usize = 45;
const ADDRESS_LEN: usize = 18;
/// Addresses that are read.
const MOST_ADDRESSES: usize = 8;

const NONCE: Nonce = [9; 24];
const DISCO: DiscoPublic = DiscoPublic::from_bytes([8; 32]);
static SHARED: LazyLock<SharedKey> = LazyLock::new(|| {
    let [mine, theirs] = [1, 2].map(|seed| NodePrivate::from_random([seed; 32]));
    SharedKey::new(&mine, &theirs.public())
});

/// A text in a box is a hello by its type, its version and its length alone, has the fields of the documented layout and no more
/// addresses than there may be, and is read again as it was written.
pub(crate) fn read(text: &[u8]) {
    let packet = [&MAGIC[..], DISCO.as_bytes(), &NONCE, &SHARED.seal(&NONCE, text)].concat();
    let read = Hello::open(&packet, &SHARED);
    assert_eq!(read.is_some(), text.len() >= FIXED_LEN && text.starts_with(&[0x68, 0]));
    let Some((disco, hello)) = read else { return };
    assert_eq!(disco, DISCO);
    assert_eq!(hello.epoch.to_be_bytes(), text[2..10]);
    assert_eq!(hello.counter.to_be_bytes(), text[10..14]);
    assert_eq!(hello.challenge, text[14..26]);
    assert_eq!(hello.echo.unwrap_or(Challenge::default()), text[26..38]);
    assert_eq!(hello.region.map_or(0, |region| region.0).to_be_bytes(), text[38..40]);
    assert_eq!(hello.standby.map_or(0, |region| region.0).to_be_bytes(), text[40..42]);
    assert_eq!(hello.wants_echo, text[44] >= 0x80);
    let whole = (text.len() - FIXED_LEN) / ADDRESS_LEN;
    assert_eq!(hello.addresses.len(), whole.min(MOST_ADDRESSES));
    let mut again = Vec::new();
    hello.seal(&DISCO, &SHARED, &NONCE, &mut again);
    assert!(again.len() <= packet.len());
    assert_eq!(Hello::open(&again, &SHARED), Some((DISCO, hello)));
}
