//! DERP version 2: length-prefixed frames over a byte stream.
//!
//! [`frame`] has the frames and their exact layouts, [`info`] the two boxed JSON messages of a login, with the [`token`] and the
//! [`binding`] that it may have, [`mesh`] what the relays of a region share, [`buffer`] cuts a byte stream into frames without
//! copying those that arrive whole.

pub mod app_name;
pub mod binding;
pub mod buffer;
pub mod frame;
pub mod info;
pub mod mesh;
pub mod token;

/// First bytes of a ServerKey frame: "DERP" and U+1F511.
pub const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];
/// The protocol version that both sides state and neither compares.
pub const PROTOCOL_VERSION: u32 = 2;
/// Bytes of a frame before its payload: type u8, payload length u32 big endian.
pub const HEADER_LEN: usize = 5;
/// The longest packet that is relayed, keys and header not counted.
pub const MAX_PACKET: usize = 65_536;
/// How the common name of a meta certificate begins; the relay's node key follows as 64 hexadecimal digits.
///
/// A relay shows a meta certificate behind its own, so that a client learns the key within the TLS handshake.
pub const META_NAME_PREFIX: &str = "derpkey";
/// The longest payload that a Go client takes in one frame.
pub const MAX_CLIENT_FRAME: usize = 1 << 20;
