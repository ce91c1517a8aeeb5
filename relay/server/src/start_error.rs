//! Why a relay cannot be started.

use towpath_service::admin::SocketError;

use crate::bind_error::BindError;
use crate::identity::IdentityError;

/// The reason why a relay cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no socket for administration.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A second address for STUN is none.
    #[error(transparent)]
    Stun(towpath_stun::BindError),
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<towpath_stun::BindError> for StartError {
    fn from(error: towpath_stun::BindError) -> Self {
        match error {
            towpath_stun::BindError::Socket { address, source } => {
                Self::Bind(BindError::stun(address, source))
            }
            other @ towpath_stun::BindError::Alternate { .. } => Self::Stun(other),
        }
    }
}
