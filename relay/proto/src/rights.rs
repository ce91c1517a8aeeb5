//! What a connection may ask for beyond sending packets: what its login proves.
//!
//! derper has one secret for everything. Here a prober has a secret of its own, which only lets it watch. The relays
//! may have two secrets at a time, so that the secret can be replaced on one relay after the other.

use towpath_wire::derp::mesh::MeshKey;
use towpath_wire::labels;

/// What a connection may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rights {
    /// Send packets, as any client may.
    #[default]
    Client,
    /// Send packets, and watch which clients connect.
    Watch,
    /// Watch, forward packets of other clients and close their connections: another relay of the region.
    Mesh,
}

impl Rights {
    /// Whether WatchConns is allowed.
    #[must_use]
    pub const fn may_watch(self) -> bool {
        matches!(self, Self::Watch | Self::Mesh)
    }

    /// Whether ForwardPacket and ClosePeer are allowed.
    #[must_use]
    pub const fn is_mesh(self) -> bool {
        matches!(self, Self::Mesh)
    }
}

/// The secrets that give rights; by default none, so that no client has more than the right to send.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The key of the mesh.
    pub mesh: Option<MeshKey>,
    /// A second key that is accepted as the mesh's: the next or the last one, while it is being replaced.
    pub second: Option<MeshKey>,
    /// The key of probers.
    pub prober: Option<MeshKey>,
}

labels! {
    /// What became of a claim.
    pub enum Claim {
        /// The key is the mesh's, or its second one.
        Mesh = "mesh",
        /// The key is the probers'.
        Prober = "prober",
        /// The key is the mesh's, but the address of the client is not in `mesh.sources`.
        WrongSource = "wrong_source",
        /// The key is none of the configured ones. Such a client is an ordinary one, as in derper.
        WrongKey = "wrong_key",
    }
}

impl Claim {
    /// What the claim gives.
    #[must_use]
    pub const fn rights(self) -> Rights {
        match self {
            Self::Mesh => Rights::Mesh,
            Self::Prober => Rights::Watch,
            Self::WrongSource | Self::WrongKey => Rights::Client,
        }
    }
}

impl Secrets {
    /// Whether any of them gives the right to watch.
    #[must_use]
    pub const fn give_watching(&self) -> bool {
        self.mesh.is_some() || self.prober.is_some()
    }

    /// Judges the key that a client sent. `from_relay`: its address is one that relays have.
    #[must_use]
    pub fn judge(&self, claimed: &MeshKey, from_relay: bool) -> Claim {
        // Every key is compared, whatever the others matched, so that the time reveals nothing.
        let is = |key: &Option<MeshKey>| key.as_ref().is_some_and(|key| key.admits(claimed));
        let (mesh, second, prober) = (is(&self.mesh), is(&self.second), is(&self.prober));
        match (mesh | second, prober) {
            (true, _) if from_relay => Claim::Mesh,
            (true, _) => Claim::WrongSource,
            (false, true) => Claim::Prober,
            (false, false) => Claim::WrongKey,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MeshKey {
        MeshKey::from_bytes([byte; 32])
    }

    #[test]
    fn each_key_gives_its_rights_and_no_others() {
        let secrets = Secrets { mesh: Some(key(1)), second: Some(key(2)), prober: Some(key(3)) };
        for (claimed, from_relay, claim, rights) in [
            (1, true, Claim::Mesh, Rights::Mesh),
            (2, true, Claim::Mesh, Rights::Mesh),
            (1, false, Claim::WrongSource, Rights::Client),
            (2, false, Claim::WrongSource, Rights::Client),
            (3, true, Claim::Prober, Rights::Watch),
            (3, false, Claim::Prober, Rights::Watch),
            (4, true, Claim::WrongKey, Rights::Client),
            (0, true, Claim::WrongKey, Rights::Client),
        ] {
            let judged = secrets.judge(&key(claimed), from_relay);
            assert_eq!((judged, judged.rights()), (claim, rights), "key {claimed}, {from_relay}");
        }
        assert!(Rights::Watch.may_watch() && !Rights::Watch.is_mesh() && !Rights::Client.may_watch());
    }

    #[test]
    fn without_secrets_no_client_has_rights() {
        for claimed in [0, 1] {
            assert_eq!(Secrets::default().judge(&key(claimed), true), Claim::WrongKey);
        }
        let zero = Secrets { mesh: Some(key(0)), second: Some(key(0)), prober: Some(key(0)) };
        assert_eq!(zero.judge(&key(0), true), Claim::WrongKey, "a zero key is no key");
    }
}
