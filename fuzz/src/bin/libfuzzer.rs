//! One target under libFuzzer. Which one, the variable `TOWPATH_FUZZ_TARGET` says; `fuzz/run` sets it.

#![no_main]

use std::sync::LazyLock;

use towpath_fuzz::{FuzzTarget, TARGETS};

static TARGET: LazyLock<FuzzTarget> = LazyLock::new(|| {
    let name = std::env::var("TOWPATH_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    let found = TARGETS.iter().find(|target| target.name == name);
    *found.unwrap_or_else(|| panic!("TOWPATH_FUZZ_TARGET is {name:?}, and not one of {}", names.join(", ")))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
