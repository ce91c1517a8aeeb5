//! Keys in text, and the look of disco.

use towpath_relay_proto::session::PacketKind;
use towpath_wire::key::{NodePrivate, NodePublic};

/// A key reads back as it is written, whatever is no key is refused without repeating it, and a packet is disco by
/// nothing but its first bytes and its length.
pub(crate) fn read(input: &[u8]) {
    let disco = input.len() >= 62 && input[..6] == *b"TS\xf0\x9f\x92\xac";
    assert_eq!(PacketKind::of(input) == PacketKind::Disco, disco);

    let Ok(text) = std::str::from_utf8(input) else { return };
    let digits = |prefix| text.strip_prefix(prefix).filter(|digits| is_key(digits));
    match text.parse::<NodePublic>() {
        Ok(key) => {
            let digits = digits("nodekey:").expect("a public key");
            assert_eq!(key.to_string(), format!("nodekey:{}", digits.to_ascii_lowercase()));
            assert_eq!(NodePublic::from_hex(digits), Some(key));
            assert_eq!(NodePublic::from_hex(&key.to_hex()), Some(key));
            if key.is_contributory() {
                assert!(key.as_bytes()[31] < 0x80 && key.as_bytes() != &[0; 32]);
            }
        }
        Err(error) => assert_eq!(
            (digits("nodekey:"), error.to_string()),
            (None, refusal("node public key", "nodekey:"))
        ),
    }
    match text.parse::<NodePrivate>() {
        Ok(key) => {
            let digits = digits("privkey:").expect("a private key");
            assert_eq!(key.to_text(), format!("privkey:{}", digits.to_ascii_lowercase()));
        }
        Err(error) => assert_eq!(
            (digits("privkey:"), error.to_string()),
            (None, refusal("node private key", "privkey:"))
        ),
    }
}

fn is_key(digits: &str) -> bool {
    digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Returns the message that refuses a text, whatever the text is.
fn refusal(kind: &str, prefix: &str) -> String {
    format!("not a {kind}: expected `{prefix}` and 64 hexadecimal digits")
}
