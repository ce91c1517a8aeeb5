//! Admission: what a client that has proved its key may use the relay for.
//!
//! The decision is pure. Outside sources, such as a file, a socket or a URL, are asked before, and their answers come
//! here as [`Answers`].

use std::net::SocketAddr;
use std::sync::Arc;

use towpath_wire::derp::info::Introduction;
use towpath_wire::host::Prefixes;
use towpath_wire::labels;

use crate::outbox::Limits;
use crate::rights::{Claim, Rights, Secrets};

/// The settings that every decision uses.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The secrets that give rights.
    pub secrets: Secrets,
    /// The addresses from which a mesh key is accepted; empty for everywhere.
    pub mesh_sources: Prefixes,
    /// The bounds of what waits for a client.
    pub limits: Arc<Limits>,
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

/// The answers of all policies, in their order. A relay without policies is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(pub Vec<Answer>);

labels! {
    /// An admission policy, by its name.
    #[derive(Default)]
    pub enum PolicyName {
        /// Every key is admitted.
        #[default]
        Open = "open",
        /// The key is in a file.
        AllowList = "allow_list",
        /// The client has a token.
        Tokens = "tokens",
        /// The tailscaled of this host knows the key.
        Tailscaled = "tailscaled",
        /// The backend behind a URL admits the key.
        VerifyUrl = "verify_url",
        /// Several policies together.
        Require = "require",
        /// The client has the key of the mesh, or of the probers.
        Mesh = "mesh",
    }
}

/// What a client is granted.
#[derive(Clone, Debug)]
pub struct Grant {
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
    /// The policy that admits the client.
    pub policy: PolicyName,
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
    /// Decides on the login of a client at the address `client` that has proved its key. The first policy that allows a
    /// login admits it.
    ///
    /// # Errors
    ///
    /// See [`NotAdmitted`].
    pub fn admit(
        &self,
        introduction: &Introduction,
        client: SocketAddr,
        answers: &Answers,
    ) -> Result<Grant, NotAdmitted> {
        answers.decide()?;
        let claim = introduction.info.mesh_key.as_ref().map(|claimed| {
            let from_relay = self.mesh_sources.is_empty() || self.mesh_sources.contains(client.ip());
            self.secrets.judge(claimed, from_relay)
        });
        Ok(Grant {
            claim,
            rights: claim.map_or(Rights::Client, Claim::rights),
            limits: self.limits.clone(),
            rate: None,
            tenant: Tenant::default(),
            policy: if claim == Some(Claim::Mesh) { PolicyName::Mesh } else { PolicyName::Open },
        })
    }
}

impl Answers {
    fn decide(&self) -> Result<(), NotAdmitted> {
        if self.0.is_empty() || self.0.contains(&Answer::Allow) {
            Ok(())
        } else if self.0.contains(&Answer::CannotTell) {
            Err(NotAdmitted::CannotTell)
        } else {
            Err(NotAdmitted::Refused)
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
            limits: Arc::new(limits),
        }
    }

    fn introduction(mesh_key: Option<MeshKey>) -> Introduction {
        let (client, relay) = (NodePrivate::from_random([3; 32]), NodePrivate::from_random([4; 32]));
        let info = ClientInfo { mesh_key, ..ClientInfo::default() };
        Introduction { client: client.public(), info, shared: SharedKey::new(&relay, &client.public()) }
    }

    #[test]
    fn the_first_policy_that_allows_admits_and_a_relay_without_policies_is_open() {
        use Answer::{Allow, CannotTell, Refuse};
        let client = "192.0.2.1:5".parse().expect("an address");
        for (answers, expected) in [
            (&[][..], Ok(())),
            (&[Allow], Ok(())),
            (&[Refuse, CannotTell, Allow], Ok(())),
            (&[Refuse, Refuse], Err(NotAdmitted::Refused)),
            (&[Refuse, CannotTell], Err(NotAdmitted::CannotTell)),
            (&[CannotTell], Err(NotAdmitted::CannotTell)),
        ] {
            let admitted =
                admission().admit(&introduction(None), client, &Answers(answers.to_vec())).map(|_| ());
            assert_eq!(admitted, expected, "{answers:?}");
        }
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
            let grant = admission()
                .admit(&introduction(key), client, &Answers::default())
                .expect("the relay is open");
            assert_eq!((grant.claim, grant.rights), (claim, rights), "{address}");
            assert_eq!((grant.rate, grant.tenant), (None, Tenant::default()));
        }
    }
}
