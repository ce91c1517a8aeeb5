//! Admission: what a client that has proved its key may use the relay for.
//!
//! The decision is pure. The control plane asks the [policies](PolicyName) in their [order](policies), some of which need an
//! answer from outside. What has been [admitted] works on while a policy cannot tell; what has been
//! [refused] is not asked about again at once.

pub mod admitted;
pub mod policies;
pub mod refused;

use std::net::SocketAddr;
use std::sync::Arc;

use towpath_wire::derp::info::Introduction;
use towpath_wire::host::Prefixes;
use towpath_wire::labels;

use crate::outbox::{Limits, SharedLimits};
use crate::rights::{Claim, Rights, Secrets};

/// The settings that every decision uses.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The secrets that give rights.
    pub secrets: Secrets,
    /// The addresses from which a mesh key is accepted; empty for everywhere.
    pub mesh_sources: Prefixes,
    /// The bounds of what waits for a client.
    pub limits: SharedLimits,
}

labels! {
    /// The policy by which a login was admitted.
    #[derive(PartialOrd, Ord)]
    pub enum PolicyName {
        /// The relay is open to every key (`admission = "open"`).
        Open = "open",
        /// The key is in the file `allow_list.file`.
        AllowList = "allow_list",
        /// The client has shown a token that a key of `tokens.key_file` has signed.
        Tokens = "tokens",
        /// The tailscaled of this machine knows the key (`tailscaled.socket`).
        Tailscaled = "tailscaled",
        /// The backend at `verify.url` allows the key.
        VerifyUrl = "verify_url",
        /// All policies of `require` allow the key.
        Require = "require",
        /// The client has the key of the mesh, and no policy is asked.
        Mesh = "mesh",
        /// The client has the key of probers, and no policy is asked.
        Prober = "prober",
    }
}

impl PolicyName {
    /// The policy with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.label() == label)
    }
}

/// What a policy says of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The client may use the relay.
    Allow,
    /// The client may not use the relay, as far as this policy goes.
    Refuse,
    /// The policy has no answer: its backend did not give one in time.
    CannotTell,
}

/// What a client is granted.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The policy that admitted the client.
    pub policy: PolicyName,
    /// What became of the mesh key that the client sent, if it sent one.
    pub claim: Option<Claim>,
    /// What the client may ask for.
    pub rights: Rights,
    /// The bounds of what waits for the client.
    pub limits: Arc<Limits>,
    /// The rate that the client is asked to keep to; `None` for as much as it likes.
    pub rate: Option<Rate>,
    /// The network that the client belongs to.
    pub tenant: Tenant,
}

/// A rate for the packets of a client, as ServerInfo states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Bytes that may be sent at once within the rate.
    pub burst: u64,
}

/// A network whose clients use the relay. All clients belong to one today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenant(u32);

/// Why a client is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotAdmitted {
    /// At least one policy refuses the client, and none allows it.
    #[error("no policy admits this key")]
    Refused,
    /// No policy allows the client, and at least one cannot tell.
    #[error("no policy admits this key, and at least one could not answer in time")]
    CannotTell,
}

impl Admission {
    /// Judges the mesh key in the login of a client at the address `client`; `None` if it has none.
    #[must_use]
    pub fn claim(&self, introduction: &Introduction, client: SocketAddr) -> Option<Claim> {
        introduction.info.mesh_key.as_ref().map(|claimed| {
            let from_relay = self.mesh_sources.is_empty() || self.mesh_sources.contains(client.ip());
            self.secrets.judge(claimed, from_relay)
        })
    }

    /// What a client is granted that `policy` admitted.
    #[must_use]
    pub fn grant(&self, claim: Option<Claim>, policy: PolicyName) -> Grant {
        Grant {
            policy,
            claim,
            rights: claim.map_or(Rights::Client, Claim::rights),
            limits: self.limits.current(),
            rate: None,
            tenant: Tenant::default(),
        }
    }
}

impl Claim {
    /// The policy that the claim stands for: a relay of the mesh and a prober are admitted by their secret.
    #[must_use]
    pub const fn policy(self) -> Option<PolicyName> {
        match self {
            Self::Mesh => Some(PolicyName::Mesh),
            Self::Prober => Some(PolicyName::Prober),
            Self::WrongSource | Self::WrongKey => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use towpath_wire::derp::info::ClientInfo;
    use towpath_wire::derp::mesh::MeshKey;
    use towpath_wire::key::NodePrivate;
    use towpath_wire::sealed::SharedKey;

    use super::*;

    fn admission() -> Admission {
        let sources: Vec<_> = vec!["10.0.0.0/8".parse().expect("a prefix")];
        let limits =
            Limits { bytes: 1, packets: 1, disco_bytes: 1, age: Duration::from_secs(1), hold_above: 1 };
        Admission {
            secrets: Secrets { mesh: Some(MeshKey::from_bytes([1; 32])), ..Secrets::default() },
            mesh_sources: sources.into(),
            limits: SharedLimits::new(limits),
        }
    }

    fn introduction(mesh_key: Option<MeshKey>) -> Introduction {
        let (client, relay) = (NodePrivate::from_random([3; 32]), NodePrivate::from_random([4; 32]));
        let info = ClientInfo { mesh_key, ..ClientInfo::default() };
        Introduction { client: client.public(), info, shared: SharedKey::new(&relay, &client.public()) }
    }

    #[test]
    fn a_mesh_key_gives_rights_from_the_addresses_of_relays_only() {
        let (ours, other) = (MeshKey::from_bytes([1; 32]), MeshKey::from_bytes([2; 32]));
        for (key, address, claim, rights) in [
            (Some(ours.clone()), "10.1.2.3:5", Some(Claim::Mesh), Rights::Mesh),
            (Some(ours.clone()), "[::ffff:10.1.2.3]:5", Some(Claim::Mesh), Rights::Mesh),
            (Some(ours.clone()), "11.0.0.1:5", Some(Claim::WrongSource), Rights::Client),
            (Some(ours), "[2001:db8::1]:5", Some(Claim::WrongSource), Rights::Client),
            (Some(other), "10.1.2.3:5", Some(Claim::WrongKey), Rights::Client),
            (None, "10.1.2.3:5", None, Rights::Client),
        ] {
            let client = address.parse().expect("an address");
            let judged = admission().claim(&introduction(key), client);
            let grant = admission().grant(judged, PolicyName::Open);
            assert_eq!((grant.claim, grant.rights), (claim, rights), "{address}");
            assert_eq!((grant.rate, grant.tenant), (None, Tenant::default()));
            assert_eq!(judged.and_then(Claim::policy), (rights == Rights::Mesh).then_some(PolicyName::Mesh));
        }
    }
}
