//! Every file of the corpus, and every truncation of it, through its target.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use towpath_fuzz::{FuzzTarget, TARGETS};

/// Git shall not carry more.
const MOST_BYTES: u64 = 200 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs a target over its part of the corpus.
fn replay(target: &FuzzTarget) {
    let folder = corpus().join(target.name);
    let names: Vec<_> = names(&folder).into_iter().collect();
    assert!(!names.is_empty(), "{} is empty", folder.display());
    for name in names {
        let input = fs::read(folder.join(&name)).unwrap();
        assert!(input.len() <= target.max_len, "{name} has {} bytes", input.len());
        for len in (0..=input.len()).rev() {
            // A panic says where, and this which input it was.
            let run = std::panic::catch_unwind(|| (target.run)(&input[..len]));
            assert!(run.is_ok(), "{}/{name}, the first {len} of {} bytes", target.name, input.len());
        }
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let target = TARGETS.iter().find(|target| target.name == stringify!($name));
                replay(target.expect("a target of this name"));
            }
        )*

        #[test]
        fn every_target_is_replayed_and_has_a_corpus_that_is_small() {
            let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            assert_eq!(targets, BTreeSet::from([$(stringify!($name).to_owned()),*]));
            assert_eq!(targets, names(&corpus()));
            let files = targets.iter().flat_map(|target| {
                let folder = corpus().join(target);
                names(&folder).into_iter().map(move |name| folder.join(name))
            });
            let bytes: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
            assert!(bytes <= MOST_BYTES, "the corpus has {bytes} bytes");
        }
    };
}

replays! {
    certificate client_frames config derp_map disco disco_hello disco_node http_response keys login login_json map_file
    proxy_header records relaying server_frames stun token websocket
    websocket_server
}
