//! YAML as Headscale's parser takes it, which is `gopkg.in/yaml.v3`: YAML 1.1 with differences of its own.
//!
//! ```text
//! bytes ── reader ──▶ characters ── scanner ──▶ tokens ── composer ──▶ tree
//! ```
//!
//! The scanner and the composer follow `scannerc.go`, `parserc.go` and `decode.go` of `yaml.v3` 3.0.1, itself a
//! translation of libyaml (Kirill Simonov, MIT licence): what it takes and refuses is taken and refused here, also where
//! the specification has it otherwise. `tests/interop` compares them over mutated maps.

mod composer;
mod cursor;
mod flow;
mod reader;
mod scalars;
mod scanner;
mod space;
mod token;
mod words;

use self::composer::{Composer, YamlDocument};
use super::error::ReadError;

pub(super) fn parse(bytes: &[u8]) -> Result<YamlDocument, ReadError> {
    Composer::new(reader::read(bytes)).document()
}
