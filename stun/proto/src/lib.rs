//! STUN Binding as Tailscale clients speak it: a parser and a writer without allocation.
