//! The STUN server as a library: batched UDP, one thread.
//!
//! A client that asks by the rules of `stun_proto` is told its public address; everything else is dropped in
//! silence and counted by reason. [`Server::bind`] makes a taken port an error that names the address, since
//! a relay that runs on without STUN costs its clients their direct paths. [`Server::spawn`] starts the one
//! thread that serves all sockets; it shares nothing with the rest of the process but its counters.
//!
//! ```
//! let server = towpath_stun::Server::bind(&["127.0.0.1:0".parse().unwrap()])?;
//! println!("STUN on {:?}", server.local_addrs());
//! let running = server.spawn()?;
//! assert_eq!(running.counters().snapshot().success, 0);
//! running.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod counters;
mod listener;
mod server;

pub use counters::{Counters, Snapshot};
pub use server::{BindError, Running, Server};
pub use stun_proto::NotStun;
