//! The binding of a login to the TLS connection that it was made for.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::hex;

/// Bytes of a binding.
pub const BINDING_LEN: usize = 32;

/// Keying material of a TLS connection, stated in the login on it: both ends of the connection know it and no third party does,
/// so a login that states it is of no use on another connection.
#[derive(Clone, Copy)]
pub struct Binding([u8; BINDING_LEN]);

impl Binding {
    /// The binding to no connection. A login with it is refused by each relay that looks at bindings.
    pub const NOWHERE: Self = Self([0; BINDING_LEN]);

    /// The binding to the connection with this keying material.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; BINDING_LEN]) -> Self {
        Self(bytes)
    }

    /// Whether the login is bound to the connection with this keying material, in a time that does not depend on either.
    #[must_use]
    pub fn is_to(&self, connection: &[u8; BINDING_LEN]) -> bool {
        (self.0.ct_eq(connection) & !self.0.ct_eq(&Self::NOWHERE.0)).into()
    }

    /// The binding that a ClientInfo claims, in 64 digits of either case.
    pub(super) fn from_claim(text: &str) -> Option<Self> {
        hex::read(text).map(Self)
    }

    pub(super) fn write(&self, out: &mut String) {
        hex::write(out, &self.0).expect("writing to a String cannot fail");
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding(..)")
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Binding {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_bound_to_its_connection_and_to_no_other() {
        let binding = Binding::from_bytes([0xab; 32]);
        assert!(binding.is_to(&[0xab; 32]));
        for at in 0..BINDING_LEN {
            let mut other = [0xab; 32];
            other[at] ^= 1;
            assert!(!binding.is_to(&other), "byte {at}");
        }
        assert!(!Binding::NOWHERE.is_to(&[0; 32]), "no connection is nowhere");
        assert_eq!(format!("{binding:?}"), "Binding(..)");
    }

    #[test]
    fn digits_are_read_whole_or_not_at_all() {
        assert_eq!(Binding::from_claim(&"aB".repeat(32)), Some(Binding::from_bytes([0xab; 32])));
        for text in ["", "ab", &"ab".repeat(33), &"g".repeat(64)] {
            assert_eq!(Binding::from_claim(text), None, "{text:?}");
        }
    }
}
