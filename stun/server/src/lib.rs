//! The STUN server as a library: batched UDP, one thread.
//!
//! A client that asks by the rules of `stun_proto` is told its public address; everything else is dropped in silence
//! and counted by reason. So is what a source asks beyond its rate ([`Policy`]), since an attacker that forges sources
//! could otherwise aim the server at them. A server with a second address helps clients to find out what their NAT does
//! (RFC 5780).
//!
//! [`BoundServer::bind`] makes a taken port an error that names the address, since a relay that runs on without STUN
//! costs its clients their direct paths. [`BoundServer::spawn`] starts the one thread that serves all sockets; it
//! shares nothing with the rest of the process but its counters.
//!
//! ```
//! use towpath_stun::{BoundServer, Policy, StunSettings};
//!
//! let listen = vec!["127.0.0.1:0".parse().unwrap()];
//! let server = BoundServer::bind(&StunSettings { listen, alternates: vec![], policy: Policy::default() })?;
//! println!("STUN on {:?}", server.local_addrs());
//! let running = server.spawn()?;
//! assert_eq!(running.counters().snapshot().success, 0);
//! running.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod counters;
mod listener;
mod server;
mod settings;

pub use counters::{Snapshot, StunCounters, Withheld};
pub use server::{BindError, BoundServer, RunningServer};
pub use settings::{ClientFilter, Policy, StunSettings};
pub use towpath_stun_proto::{AnswerKind, NotStun};
