//! NATs are of their class, and the measurement can tell.

use std::time::Instant;

use towpath_lab::{Allocation, Behaviour, Class, Lab, Nat};

use crate::tools::turn;

#[test]
fn every_class_is_measured_as_itself() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(1).unwrap();
    let site = lab.add_site();
    for class in Class::ALL {
        let begun = Instant::now();
        // It fails where the NAT is not of its class.
        let nat = lab.add_nat(class, site).unwrap();
        let took = begun.elapsed();
        // Nothing of the first measurement is left that would change the second.
        let behaviour = lab.behaviour(&nat).unwrap();
        assert_eq!(behaviour, Behaviour::of(class));
        println!("{class:2} {took:4.0?} {behaviour:?}");
    }
    assert_eq!(lab.own_drops().unwrap(), 0);
}

/// Changes the rules of a NAT behind the laboratory's back.
fn change(nat: &Nat, rules: &str) {
    let status = nat.namespace().command("nft").arg(rules).status().unwrap();
    assert!(status.success(), "{rules}");
}

#[test]
fn a_nat_that_is_not_of_its_class_is_seen() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(2).unwrap();
    let site = lab.add_site();
    let mut changed = |class, rules| {
        let nat = lab.add_nat(class, site).unwrap();
        change(&nat, rules);
        lab.behaviour(&nat).unwrap()
    };
    assert_eq!(changed(Class::P, "delete table inet inp"), Behaviour::of(Class::Poisonable));
    assert_eq!(changed(Class::A, "delete table ip flt"), Behaviour::of(Class::F));
    assert_eq!(changed(Class::X, "delete table ip blocked"), Behaviour::of(Class::P));
    assert_eq!(
        changed(Class::P, "insert rule ip nat post oifname wan masquerade random"),
        Behaviour::of(Class::R)
    );
    assert_eq!(
        changed(
            Class::O,
            "table ip f { chain f { type filter hook forward priority 0; meta l4proto udp drop; }; }"
        ),
        Behaviour::Blocked
    );
    // The ports of the kernel's own hash are another NAT's than those of a sequence.
    let random = changed(
        Class::S,
        "insert rule ip nat post oifname wan meta l4proto udp masquerade to :30000-30511 random",
    );
    assert!(matches!(random, Behaviour::Passing { allocation: Allocation::Block, .. }), "{random:?}");
}
