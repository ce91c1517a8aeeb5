//! The test for disco packets, which is all that a relay knows of disco.

/// First bytes of a disco packet: "TS" and U+1F4AC.
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

/// Magic, sender's disco key and nonce: no disco packet is shorter.
pub const MIN_LEN: usize = MAGIC.len() + 32 + 24;

/// Whether `packet` passes upstream's test for a disco packet (`disco.LooksLikeDiscoWrapper`).
#[must_use]
pub fn looks_like_disco(packet: &[u8]) -> bool {
    packet.len() >= MIN_LEN && packet.starts_with(&MAGIC)
}
