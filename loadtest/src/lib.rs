//! Load on a DERP relay, measured honestly.
