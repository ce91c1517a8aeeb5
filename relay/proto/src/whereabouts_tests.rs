//! Tests of the ways to a key.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[derive(Debug)]
struct Flags {
    id: u64,
    active: AtomicBool,
}

impl Flags {
    fn new(id: u64) -> Arc<Self> {
        Arc::new(Self { id, active: AtomicBool::new(false) })
    }

    fn is_active(&self) -> bool {
        self.active.load(Relaxed)
    }
}

impl Connection for Flags {
    fn id(&self) -> u64 {
        self.id
    }
    fn set_active(&self, active: bool) {
        self.active.store(active, Relaxed);
    }
    fn set_shared(&self, _: bool) {}
}

impl Forwarder for Flags {
    fn link(&self) -> u64 {
        self.id
    }
    fn set_active(&self, active: bool) {
        self.active.store(active, Relaxed);
    }
}

fn way(whereabouts: &Whereabouts<Flags, Flags>) -> Option<(&'static str, u64)> {
    whereabouts.way().map(|way| match way {
        Way::Here(connection) => ("here", connection.id),
        Way::By(forwarder) => ("by", forwarder.id),
    })
}

#[test]
fn the_first_forwarder_is_used_until_it_goes() {
    let [a, b, c] = [1, 2, 3].map(Flags::new);
    let mut whereabouts = Whereabouts::elsewhere(a.clone());
    assert_eq!(whereabouts.add_forwarder(a.clone()), Change::Nothing);
    assert_eq!(whereabouts.add_forwarder(b.clone()), Change::Second);
    assert_eq!(whereabouts.add_forwarder(c.clone()), Change::More);
    assert_eq!((way(&whereabouts), b.is_active()), (Some(("by", 1)), false));
    assert_eq!(whereabouts.remove_forwarder(9), Change::Nothing);
    assert_eq!(whereabouts.remove_forwarder(2), Change::More);
    assert_eq!(way(&whereabouts), Some(("by", 1)));
    assert_eq!(whereabouts.remove_forwarder(1), Change::Second);
    assert_eq!((way(&whereabouts), a.is_active(), c.is_active()), (Some(("by", 3)), false, true));
    assert_eq!(whereabouts.remove_forwarder(3), Change::OnlyOne);
    assert!(whereabouts.is_gone() && !c.is_active());
}

#[test]
fn a_connection_here_comes_before_any_relay() {
    let [here, there] = [1, 2].map(Flags::new);
    let mut whereabouts = Whereabouts::elsewhere(there.clone());
    whereabouts.join(here.clone());
    assert_eq!((way(&whereabouts), there.is_active()), (Some(("here", 1)), false));
    assert_eq!(whereabouts.leave(1), Departure::KeyGone);
    assert_eq!((way(&whereabouts), there.is_active()), (Some(("by", 2)), true));
    assert!(!whereabouts.is_gone());
    assert_eq!(whereabouts.leave(1), Departure::Unknown);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(u64),
    Leave(u64),
    Add(u64),
    Remove(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u64..4, 0u64..4).prop_map(|(what, id)| match what {
        0 => Step::Join(id),
        1 => Step::Leave(id),
        2 => Step::Add(id),
        _ => Step::Remove(id),
    });
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// Against a model of two lists: exactly the way that is used says that it is active, and the key is gone exactly
    /// when both lists are empty.
    #[test]
    fn the_way_is_that_of_the_model_and_alone_is_active(steps in steps()) {
        let connections: [_; 4] = std::array::from_fn(|id| Flags::new(id as u64));
        let forwarders: [_; 4] = std::array::from_fn(|id| Flags::new(id as u64));
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let mut whereabouts: Option<Whereabouts<Flags, Flags>> = None;
        for step in steps {
            match step {
                Step::Join(id) if !here.contains(&id) => {
                    here.push(id);
                    let connection = connections[id as usize].clone();
                    match &mut whereabouts {
                        Some(whereabouts) => whereabouts.join(connection),
                        none => *none = Some(Whereabouts::here(connection)),
                    }
                }
                Step::Join(_) => {}
                Step::Leave(id) => {
                    here.retain(|&other| other != id);
                    if let Some(whereabouts) = &mut whereabouts {
                        whereabouts.leave(id);
                    }
                }
                Step::Add(id) => {
                    let forwarder = forwarders[id as usize].clone();
                    let change = match &mut whereabouts {
                        Some(whereabouts) => whereabouts.add_forwarder(forwarder),
                        none => {
                            *none = Some(Whereabouts::elsewhere(forwarder));
                            Change::OnlyOne
                        }
                    };
                    prop_assert_eq!(change == Change::Nothing, there.contains(&id));
                    if !there.contains(&id) {
                        there.push(id);
                    }
                }
                Step::Remove(id) => {
                    let was_there = there.contains(&id);
                    there.retain(|&other| other != id);
                    if let Some(whereabouts) = &mut whereabouts {
                        prop_assert_eq!(whereabouts.remove_forwarder(id) != Change::Nothing, was_there);
                    }
                }
            }
            if whereabouts.as_ref().is_some_and(Whereabouts::is_gone) {
                whereabouts = None;
            }
            prop_assert_eq!(whereabouts.is_none(), here.is_empty() && there.is_empty());
            let way = whereabouts.as_ref().and_then(way);
            prop_assert_eq!(way.is_some_and(|(what, _)| what == "here"), !here.is_empty());
            if here.is_empty() {
                prop_assert_eq!(way.map(|(_, id)| id), there.first().copied());
            }
            for flags in &connections {
                prop_assert_eq!(flags.is_active(), way == Some(("here", flags.id)));
            }
            for flags in &forwarders {
                prop_assert_eq!(flags.is_active(), way == Some(("by", flags.id)));
            }
        }
    }
}
