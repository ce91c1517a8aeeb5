//! Frames: type, length, payload.
//!
//! | type | name | direction | payload |
//! |---|---|---|---|
//! | 0x01 | ServerKey | to client | magic\[8\], key\[32\], bytes to ignore |
//! | 0x02 | ClientInfo | to server | key\[32\], nonce\[24\], box |
//! | 0x03 | ServerInfo | to client | nonce\[24\], box |
//! | 0x04 | SendPacket | to server | destination\[32\], packet |
//! | 0x05 | RecvPacket | to client | source\[32\], packet |
//! | 0x06 | KeepAlive | to client | empty |
//! | 0x07 | NotePreferred | to server | one byte, zero or not |
//! | 0x08 | PeerGone | to client | key\[32\], reason u8 |
//! | 0x09 | PeerPresent | to watcher | key\[32\], IP\[16\], port u16, flags u8, length u8, app name |
//! | 0x0a | ForwardPacket | to server, mesh | source\[32\], destination\[32\], packet |
//! | 0x10 | WatchConns | to server, mesh | empty |
//! | 0x11 | ClosePeer | to server, mesh | key\[32\] |
//! | 0x12 | Ping | either | 8 bytes |
//! | 0x13 | Pong | either | the 8 bytes of the ping |
//! | 0x14 | Health | to client | UTF-8 text, empty = healthy |
//! | 0x15 | Restarting | to client | reconnect in ms u32, try for ms u32 |
//!
//! Integers are big endian. Any other type is skipped by both sides, up to a length that each side bounds.

mod client;
mod kind;
mod server;

pub use self::client::{ClientFrame, MAX_PING, MAX_UNKNOWN};
pub use self::kind::{FrameType, Header, Malformed, PayloadBounds, PingData, frame};
pub use self::server::{GoneReason, ServerFrame};
