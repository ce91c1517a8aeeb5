//! Tests of the routes to a key.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use super::*;

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

impl Member for Flags {
    fn id(&self) -> u64 {
        self.id
    }
    fn set_active(&self, active: bool) {
        self.active.store(active, Relaxed);
    }
    fn set_shared(&self, _: bool) {}
}

impl Forwards for Flags {
    fn link(&self) -> u64 {
        self.id
    }
    fn set_active(&self, active: bool) {
        self.active.store(active, Relaxed);
    }
}

fn route(key_routes: &KeyRoutes<Flags, Flags>) -> Option<(&'static str, u64)> {
    key_routes.route().map(|route| match route {
        Route::Local(connection) => ("local", connection.id),
        Route::Via(forwarder) => ("via", forwarder.id),
    })
}

#[test]
fn the_first_forwarder_is_used_until_it_goes() {
    let [a, b, c] = [1, 2, 3].map(Flags::new);
    let mut key_routes = KeyRoutes::remote(a.clone());
    assert_eq!(key_routes.add_forwarder(a.clone()), ForwarderChange::Nothing);
    assert_eq!(key_routes.add_forwarder(b.clone()), ForwarderChange::Second);
    assert_eq!(key_routes.add_forwarder(c.clone()), ForwarderChange::More);
    assert_eq!((route(&key_routes), b.is_active()), (Some(("via", 1)), false));
    assert_eq!(key_routes.remove_forwarder(9), ForwarderChange::Nothing);
    assert_eq!(key_routes.remove_forwarder(2), ForwarderChange::More);
    assert_eq!(route(&key_routes), Some(("via", 1)));
    assert_eq!(key_routes.remove_forwarder(1), ForwarderChange::Second);
    assert_eq!((route(&key_routes), a.is_active(), c.is_active()), (Some(("via", 3)), false, true));
    assert_eq!(key_routes.remove_forwarder(3), ForwarderChange::OnlyOne);
    assert!(key_routes.is_gone() && !c.is_active());
}

#[test]
fn a_connection_here_comes_before_any_relay() {
    let [here, there] = [1, 2].map(Flags::new);
    let mut key_routes = KeyRoutes::remote(there.clone());
    key_routes.join(here.clone());
    assert_eq!((route(&key_routes), there.is_active()), (Some(("local", 1)), false));
    assert_eq!(key_routes.leave(1), Departure::KeyGone);
    assert_eq!((route(&key_routes), there.is_active()), (Some(("via", 2)), true));
    assert!(!key_routes.is_gone());
    assert_eq!(key_routes.leave(1), Departure::Unknown);
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
        let mut key_routes: Option<KeyRoutes<Flags, Flags>> = None;
        for step in steps {
            match step {
                Step::Join(id) if !here.contains(&id) => {
                    here.push(id);
                    let connection = connections[id as usize].clone();
                    match &mut key_routes {
                        Some(key_routes) => key_routes.join(connection),
                        none => *none = Some(KeyRoutes::local(connection)),
                    }
                }
                Step::Join(_) => {}
                Step::Leave(id) => {
                    here.retain(|&other| other != id);
                    if let Some(key_routes) = &mut key_routes {
                        key_routes.leave(id);
                    }
                }
                Step::Add(id) => {
                    let forwarder = forwarders[id as usize].clone();
                    let change = match &mut key_routes {
                        Some(key_routes) => key_routes.add_forwarder(forwarder),
                        none => {
                            *none = Some(KeyRoutes::remote(forwarder));
                            ForwarderChange::OnlyOne
                        }
                    };
                    prop_assert_eq!(change == ForwarderChange::Nothing, there.contains(&id));
                    if !there.contains(&id) {
                        there.push(id);
                    }
                }
                Step::Remove(id) => {
                    let was_there = there.contains(&id);
                    there.retain(|&other| other != id);
                    if let Some(key_routes) = &mut key_routes {
                        prop_assert_eq!(key_routes.remove_forwarder(id) != ForwarderChange::Nothing, was_there);
                    }
                }
            }
            if key_routes.as_ref().is_some_and(KeyRoutes::is_gone) {
                key_routes = None;
            }
            prop_assert_eq!(key_routes.is_none(), here.is_empty() && there.is_empty());
            let route = key_routes.as_ref().and_then(route);
            prop_assert_eq!(route.is_some_and(|(what, _)| what == "local"), !here.is_empty());
            if here.is_empty() {
                prop_assert_eq!(route.map(|(_, id)| id), there.first().copied());
            }
            for flags in &connections {
                prop_assert_eq!(flags.is_active(), route == Some(("local", flags.id)));
            }
            for flags in &forwarders {
                prop_assert_eq!(flags.is_active(), route == Some(("via", flags.id)));
            }
        }
    }
}
