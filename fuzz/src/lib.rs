//! Fuzz targets: plain functions that take any bytes and panic where the program under test breaks a promise.
//!
//! "Does not panic" is the least of the promises. A decoder gives the same result however its input is cut, agrees with
//! a second reading that is written for clarity instead of speed, and reads back what its encoder writes. The record
//! layer hands on what was sealed and nothing else. A relay delivers or counts each packet, once and in order. A node of disco
//! sends where it may, and so much and no more.
//!
//! The functions run in two ways. `fuzz/tests/corpus.rs` gives them every file of the corpus and every truncation
//! of it, as an ordinary test. `make fuzz` gives them to libFuzzer, which makes up more.

mod bytes;
mod certificate;
mod config;
mod derp_map;
mod disco;
mod disco_hello;
mod disco_node;
mod frames;
mod http;
mod keys;
mod login;
mod map_file;
mod proxy_header;
mod records;
mod relaying;
mod stun;
mod token;
mod websocket;

/// A function to be fuzzed, and what it is called on the command line and in the corpus.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// The name of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// The most bytes of an input that are of use. Longer ones repeat what shorter ones reach.
    pub max_len: usize,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[FuzzTarget] = &[
    FuzzTarget { name: "certificate", max_len: 1024, run: certificate::relay_key_of },
    FuzzTarget { name: "client_frames", max_len: 2048, run: frames::from_client },
    FuzzTarget { name: "config", max_len: 1024, run: config::read },
    FuzzTarget { name: "derp_map", max_len: 2048, run: derp_map::read },
    FuzzTarget { name: "disco", max_len: 512, run: disco::read },
    FuzzTarget { name: "disco_hello", max_len: 256, run: disco_hello::read },
    FuzzTarget { name: "disco_node", max_len: 768, run: disco_node::operations },
    FuzzTarget { name: "http_response", max_len: 1024, run: http::response },
    FuzzTarget { name: "keys", max_len: 128, run: keys::read },
    FuzzTarget { name: "login", max_len: 512, run: login::stream },
    FuzzTarget { name: "login_json", max_len: 512, run: login::json },
    FuzzTarget { name: "map_file", max_len: 2048, run: map_file::report },
    FuzzTarget { name: "proxy_header", max_len: 256, run: proxy_header::read },
    FuzzTarget { name: "records", max_len: 512, run: records::both_ways },
    FuzzTarget { name: "relaying", max_len: 1024, run: relaying::operations },
    FuzzTarget { name: "server_frames", max_len: 2048, run: frames::from_server },
    FuzzTarget { name: "stun", max_len: 256, run: stun::messages },
    FuzzTarget { name: "token", max_len: 512, run: token::check },
    FuzzTarget { name: "websocket", max_len: 512, run: websocket::from_client },
    FuzzTarget { name: "websocket_server", max_len: 512, run: websocket::from_server },
];
