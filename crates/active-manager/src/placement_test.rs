//! Tables for [`super`]. A shape is written `A1 A2 B3 C4w`: site, number, `w` for a witness.

use std::format;
use std::string::ToString;
use std::vec;

use super::*;

fn dag(shape: &str) -> Dag {
    let node = |word: &str| Node {
        id: NodeId(word[1..].trim_end_matches('w').parse().unwrap()),
        site: word[..1].to_string(),
        witness: word.ends_with('w'),
        preferred: 0,
        copies: 0,
    };
    Dag { primary_site: "A".into(), nodes: shape.split_whitespace().map(node).collect() }
}

/// `1 2 3 | 4`: voters, then learners, in the order of preference.
fn show(placement: &Placement) -> String {
    let names = |voter: bool| -> Vec<String> {
        let of_kind = placement.copies.iter().filter(|copy| copy.voter == voter);
        of_kind.map(|copy| copy.node.to_string()).collect()
    };
    let (voters, learners) = (names(true), names(false));
    match learners.is_empty() {
        true => voters.join(" "),
        false => format!("{} | {}", voters.join(" "), learners.join(" ")),
    }
}

fn placed(shape: &str, wish: &Wish) -> String {
    show(&place(&dag(shape), wish).unwrap())
}

fn everywhere() -> Wish {
    Wish { everywhere: true, ..Wish::default() }
}

#[test]
fn voters_stand_where_the_database_is_active() {
    for (shape, expected) in [
        ("A1", "1"),
        ("A1 A2", "1 2"),
        ("A1 A2 A3", "1 2 3"),
        ("A1 A2 A3 A4 A5", "1 2 3"),
        ("A1 B2", "1 | 2"),
        ("A1 A2 B3", "1 2 3"),
        ("A1 B2 B3", "1 | 2 3"),
        ("A1 A2 B3 B4", "1 2 3 | 4"),
        ("A1 A2 B3 B4 C5w", "1 2 3 | 4"),
        ("A1 A2 A3 B4 B5 B6", "1 2 4 | 5"),
        ("A1 B2 C3", "1 2 3"),
        ("A1 A2 B3 B4 C5 C6", "1 3 5"),
    ] {
        assert_eq!(placed(shape, &Wish::default()), expected, "{shape}");
    }
}

#[test]
fn a_copy_everywhere_keeps_the_voters_odd_and_few() {
    for (shape, expected) in [
        ("A1 A2 A3 A4", "1 2 3 | 4"),
        ("A1 A2 A3 A4 A5 A6", "1 2 3 4 5 | 6"),
        ("A1 A2 B3 B4 C5w", "1 2 3 | 4"),
        ("A1 A2 A3 B4 B5 B6", "1 2 3 4 5 | 6"),
        ("A1 A2 A3 B4", "1 2 3 | 4"),
        ("A1 A2 B3 C4", "1 3 4 | 2"),
    ] {
        assert_eq!(placed(shape, &everywhere()), expected, "{shape}");
    }
}

/// Every shape of two sites: odd voters, the strict majority in the active site.
#[test]
fn the_active_site_always_has_the_strict_majority_of_odd_voters() {
    for here in 1..=6 {
        for there in 1..=6 {
            let (mine, theirs) = two_site_voters(here, there);
            assert!(mine <= here && theirs <= there, "{here}+{there}");
            assert!((mine + theirs) % 2 == 1, "{here}+{there}: {mine}+{theirs} is even");
            assert!(mine > (mine + theirs) / 2, "{here}+{there}: {mine}+{theirs}");
            assert!(mine + theirs <= VOTERS_MAX, "{here}+{there}");
        }
    }
}

#[test]
fn a_wished_site_gets_the_majority() {
    let wish = Wish { site: Some("B".into()), ..Wish::default() };
    let placement = place(&dag("A1 A2 B3 B4"), &wish).unwrap();
    assert_eq!(show(&placement), "3 4 1 | 2");
    assert_eq!(placement.active_site.as_deref(), Some("B"));
}

#[test]
fn named_nodes_are_taken_in_their_order() {
    let wish = Wish { nodes: vec![NodeId(2), NodeId(3), NodeId(1)], ..Wish::default() };
    assert_eq!(placed("A1 A2 A3 A4", &wish), "2 3 1");
    assert_eq!(placed("A1 A2 B3 B4", &wish), "2 1 3");
}

#[test]
fn the_least_loaded_nodes_come_first() {
    let mut dag = dag("A1 A2 A3 A4");
    for (node, preferred) in dag.nodes.iter_mut().zip([2, 1, 0, 1]) {
        node.preferred = preferred;
    }
    assert_eq!(show(&place(&dag, &Wish::default()).unwrap()), "3 2 4");
}

#[test]
fn a_wish_that_cannot_be_granted_names_every_reason() {
    let wish = Wish {
        site: Some("D".into()),
        nodes: vec![NodeId(1), NodeId(1), NodeId(5), NodeId(9)],
        everywhere: false,
    };
    assert_eq!(
        place(&dag("A1 A2 B3 B4 C5w"), &wish),
        Err(vec![
            Reason::NoSuchSite("D".into()),
            Reason::Twice(NodeId(1)),
            Reason::Witness(NodeId(5)),
            Reason::NoSuchNode(NodeId(9)),
            Reason::SiteWithoutCopy("D".into()),
        ])
    );
    assert_eq!(place(&dag("C5w"), &Wish::default()), Err(vec![Reason::NoDataNode]));
}

#[test]
fn control_voters_follow_the_sites() {
    for (shape, expected) in [
        ("A1", "1"),
        ("A1 A2", "1"),
        ("A1 A2 A3w", "1 2 3"),
        ("A1 A2 A3", "1 2 3"),
        ("A1 A2 A3 A4", "1 2 3"),
        ("A1 A2 A3 A4 A5 A6 A7", "1 2 3 4 5"),
        ("A1 B2", "1"),
        ("A1 B2 C3w", "1 2 3"),
        ("A1 A2 B3 B4", "1 2 3"),
        ("A1 B2 B3", "1 2 3"),
        ("A1 A2 B3", "1 2 3"),
        ("A1 A2 B3 B4 C5w", "1 2 3 4 5"),
        ("A1 A2 A3 B4 C5w", "1 4 5"),
        ("A1 A2 B3 B4 A5w", "1 2 3 4 5"),
        ("A1 A2 B3 B4 C5 C6", "1 3 5"),
        ("A1 B2 C3 D4", "1 2 3"),
        ("A1 B2 C3 D4 E5 F6", "1 2 3 4 5"),
    ] {
        let voters = control_voters(&dag(shape)).voters;
        let shown: Vec<String> = voters.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(" "), expected, "{shape}");
    }
}

#[test]
fn it_is_said_whose_loss_stops_the_control_group() {
    let findings = |shape: &str| control_voters(&dag(shape)).findings.join("\n");
    let third = findings("A1 A2 B3 B4 C5w");
    assert!(third.contains("losing A leaves 3 of 5 control voters: a majority"), "{third}");
    assert!(!third.contains("no witness"), "{third}");
    let none = findings("A1 A2 B3 B4");
    assert!(none.contains("losing A leaves 1 of 3 control voters: no majority"), "{none}");
    assert!(none.contains("losing B leaves 2 of 3 control voters: a majority"), "{none}");
    assert!(none.contains("no witness in a third place"), "{none}");
    let primary = findings("A1 A2 B3 B4 A5w");
    assert!(primary.contains("losing A leaves 2 of 5 control voters: no majority"), "{primary}");
    assert!(primary.contains("losing B leaves 3 of 5 control voters: a majority"), "{primary}");
    assert_eq!(findings("A1 A2 A3"), "");
    assert!(findings("A1").contains("the loss of one node stops the control group"));
}
