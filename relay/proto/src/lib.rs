//! What a DERP relay and its client decide: sessions, outboxes, presence, logins; no sockets, no clock.
