//! Tests of the real binaries against foreign programs.
