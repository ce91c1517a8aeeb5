//! STUN without a relay: no TLS, no key, and the same admin listener.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};

use prometheus::Registry;
use tokio::sync::oneshot;
use towpath_service::admin::{Admin, AdminListeners, Readiness};

use crate::administration;
use crate::config::StunOnly;
use crate::metrics::StunScrape;
use crate::server::RunError;
use crate::start_error::StartError;

/// A STUN server and its admin listener with their sockets bound and nothing running.
#[derive(Debug)]
pub struct StunServer {
    stun: towpath_stun::BoundServer,
    admin: AdminListeners,
}

impl StunServer {
    /// Binds every socket that the configuration names.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Each error names the listener and the address.
    pub fn bind(config: &StunOnly) -> Result<Self, StartError> {
        let stun = towpath_stun::BoundServer::bind(&config.stun)?;
        Ok(Self { stun, admin: administration::bind(&config.admin)? })
    }

    /// Returns the addresses on which STUN is answered.
    #[must_use]
    pub fn stun_addresses(&self) -> Vec<SocketAddr> {
        self.stun.local_addrs()
    }

    /// Returns the address of metrics and health; `None` when they are off.
    ///
    /// # Errors
    ///
    /// The error of the kernel, if it does not report the address.
    pub fn admin_address(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.tcp.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Runs until `shutdown` completes.
    ///
    /// # Errors
    ///
    /// See [`RunError`].
    pub fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { stun, admin } = self;
        let (ended, thread_ended) = oneshot::channel::<()>();
        // Dropping the sender completes the receiver, so the thread need not send anything.
        let stun = stun.spawn_with(move || drop(ended))?;
        let registry = Registry::new();
        registry.register(Box::new(StunScrape::new(stun.counters())?))?;
        towpath_service::metrics::register_process(&registry, "towpath-relay", env!("CARGO_PKG_VERSION"))?;
        let readiness = Readiness::new();
        let admin = Admin::start(admin, registry, readiness.clone(), None)?;
        readiness.ready();
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            tokio::select! {
                () = shutdown => {}
                _ = thread_ended => {}
            }
        });
        readiness.draining();
        let outcome = stun.stop().map_err(RunError::Stun);
        drop(admin);
        outcome
    }
}
