//! Keys, sealed boxes, DERP frames, DERP maps and time: what every Towpath program agrees on.
