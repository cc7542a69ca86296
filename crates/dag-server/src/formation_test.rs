//! The two rounds of creation, step by step.

use super::*;
use storage::disk::RealDisk;

const OWN_STORE: StoreId = StoreId([2; 16]);

fn own() -> Own {
    Own { node: NodeId(2), store: OWN_STORE, peer_address: "127.0.0.2:1".into() }
}

fn wanted() -> api::DagDefinition {
    let node = |number: u64| api::NodeDefinition {
        node_id: number,
        name: format!("n{number}"),
        site: "A".into(),
        api_address: format!("127.0.0.{number}:2"),
        peer_address: format!("127.0.0.{number}:1"),
        admin_address: format!("127.0.0.{number}:3"),
        witness: false,
    };
    api::DagDefinition {
        name: "test".into(),
        sites: vec![api::SiteDefinition { name: "A".into() }],
        nodes: (1..=3).map(node).collect(),
        ..api::DagDefinition::default()
    }
}

fn prepare_request() -> api::PrepareDagRequest {
    api::PrepareDagRequest {
        dag_id: vec![7; 16].into(),
        definition_digest: wanted().digest().to_vec().into(),
        definition: Some(wanted()),
    }
}

fn form_request() -> api::FormDagRequest {
    let member = |number: u8| api::FoundingMember {
        node_id: u64::from(number),
        store_id: vec![number; 16].into(),
    };
    api::FormDagRequest {
        dag_id: vec![7; 16].into(),
        definition_digest: wanted().digest().to_vec().into(),
        members: (1..=3).map(member).collect(),
        first_activation_id: vec![7; 16].into(),
    }
}

fn prepared() -> Stage {
    Stage::Unprovisioned.prepare(&own(), &prepare_request()).unwrap()
}

fn member() -> Stage {
    prepared().form(&own(), &form_request()).unwrap()
}

#[test]
fn each_round_may_be_repeated_at_any_time() {
    assert!(matches!(prepared(), Stage::Prepared(_)));
    assert_eq!(prepared().prepare(&own(), &prepare_request()), Ok(prepared()));
    assert_eq!(member().prepare(&own(), &prepare_request()), Ok(member()));
    assert_eq!(member().form(&own(), &form_request()), Ok(member()));
}

#[test]
fn a_member_knows_the_first_link_and_every_store() {
    let Stage::Member(formation) = member() else { panic!("not a member") };
    assert_eq!(formation.dag(), DagId([7; 16]));
    assert_eq!(formation.lineage().epoch, 1);
    assert_eq!(formation.store_of(NodeId(3)), Some(StoreId([3; 16])));
    assert_eq!(formation.first_voter(), Some(NodeId(1)));
}

#[test]
fn a_node_of_one_dag_refuses_another() {
    let other = api::PrepareDagRequest { dag_id: vec![8; 16].into(), ..prepare_request() };
    let dag = DagId([7; 16]);
    assert_eq!(prepared().prepare(&own(), &other), Err(Refusal::PreparedElsewhere { dag }));
    assert_eq!(member().prepare(&own(), &other), Err(Refusal::BelongsElsewhere { dag }));
    let other = api::FormDagRequest { dag_id: vec![8; 16].into(), ..form_request() };
    assert_eq!(member().form(&own(), &other), Err(Refusal::BelongsElsewhere { dag }));
}

#[test]
fn an_empty_store_is_never_formed_without_the_first_round() {
    assert_eq!(Stage::Unprovisioned.form(&own(), &form_request()), Err(Refusal::NotPrepared));
}

#[test]
fn a_definition_that_does_not_fit_is_refused() {
    let ask = |change: &dyn Fn(&mut api::DagDefinition)| {
        let mut definition = wanted();
        change(&mut definition);
        let digest = definition.digest().to_vec().into();
        let request = api::PrepareDagRequest {
            definition: Some(definition),
            definition_digest: digest,
            ..prepare_request()
        };
        Stage::Unprovisioned.prepare(&own(), &request).unwrap_err()
    };
    let unnamed = ask(&|definition| {
        definition.nodes.remove(1);
    });
    assert!(matches!(unnamed, Refusal::NotThisNode(_)), "{unnamed}");
    let elsewhere = ask(&|definition| definition.nodes[1].peer_address = "127.0.0.9:1".into());
    assert!(matches!(elsewhere, Refusal::NotThisNode(_)), "{elsewhere}");
    let shapeless = ask(&|definition| {
        definition.control_timeouts =
            Some(api::TimeoutShape { name: "slow".into(), ..api::TimeoutShape::default() });
    });
    assert!(matches!(shapeless, Refusal::Definition(_)), "{shapeless}");
    let damaged =
        api::PrepareDagRequest { definition_digest: vec![0; 32].into(), ..prepare_request() };
    assert_eq!(Stage::Unprovisioned.prepare(&own(), &damaged), Err(Refusal::Digest));
}

#[test]
fn a_store_that_was_wiped_between_the_rounds_is_not_formed() {
    let mut request = form_request();
    request.members[1].store_id = vec![9; 16].into();
    let refusal = prepared().form(&own(), &request).unwrap_err();
    assert!(refusal.to_string().contains("wiped or exchanged"), "{refusal}");
    let mut request = form_request();
    request.members.pop();
    assert!(matches!(prepared().form(&own(), &request), Err(Refusal::Members(_))));
}

#[test]
fn a_member_is_not_formed_again_with_other_stores() {
    let mut request = form_request();
    request.members[0].store_id = vec![9; 16].into();
    assert!(matches!(member().form(&own(), &request), Err(Refusal::Members(_))));
}

#[test]
fn what_was_agreed_survives_a_restart_and_damage_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::default();
    assert_eq!(Stage::load(&disk, folder.path()).unwrap(), Stage::Unprovisioned);
    for stage in [prepared(), member()] {
        stage.save(&disk, folder.path()).unwrap();
        assert_eq!(Stage::load(&disk, folder.path()).unwrap(), stage);
    }
    let path = folder.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(Stage::load(&disk, folder.path()).is_err());
}

fn join_request() -> api::JoinDagRequest {
    let form = form_request();
    api::JoinDagRequest {
        dag_id: form.dag_id,
        definition: Some(wanted()),
        members: form.members,
        first_activation_id: form.first_activation_id,
        control_replica: 37,
    }
}

#[test]
fn a_node_that_joins_knows_its_own_copy_and_makes_nothing() {
    let joined = Stage::Unprovisioned.join(&own(), &join_request()).unwrap();
    let Stage::Member(formation) = &joined else { panic!("not a member") };
    assert!(formation.joined());
    let copies = formation.control_replicas();
    let copies: Vec<_> =
        copies.iter().map(|copy| (copy.node.0, copy.replica.0, copy.voter)).collect();
    assert_eq!((copies, formation.first_voter()), (vec![(2, 37, false)], None));
    assert_eq!(joined.join(&own(), &join_request()), Ok(joined.clone()), "as often as one likes");
    // The others may be other ones by then.
    let mut later = join_request();
    later.members.pop();
    later.definition.as_mut().unwrap().nodes.pop();
    assert_eq!(joined.join(&own(), &later), Ok(joined.clone()));
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::default();
    joined.save(&disk, folder.path()).unwrap();
    assert_eq!(Stage::load(&disk, folder.path()).unwrap(), joined);
}

#[test]
fn only_an_empty_store_joins_and_only_as_itself() {
    let dag = DagId([7; 16]);
    assert_eq!(member().join(&own(), &join_request()), Err(Refusal::BelongsElsewhere { dag }));
    assert_eq!(prepared().join(&own(), &join_request()), Err(Refusal::PreparedElsewhere { dag }));
    let joined = Stage::Unprovisioned.join(&own(), &join_request()).unwrap();
    let other = api::JoinDagRequest { control_replica: 38, ..join_request() };
    assert_eq!(joined.join(&own(), &other), Err(Refusal::BelongsElsewhere { dag }));
    let refused = |change: &dyn Fn(&mut api::JoinDagRequest)| {
        let mut request = join_request();
        change(&mut request);
        Stage::Unprovisioned.join(&own(), &request).unwrap_err()
    };
    let wiped = refused(&|request| request.members[1].store_id = vec![9; 16].into());
    assert!(wiped.to_string().contains("wiped or exchanged"), "{wiped}");
    let nameless = refused(&|request| request.control_replica = 0);
    assert!(matches!(nameless, Refusal::Members(_)), "{nameless}");
    let elsewhere = refused(&|request| {
        request.definition.as_mut().unwrap().nodes[1].peer_address = "127.0.0.9:1".into();
    });
    assert!(matches!(elsewhere, Refusal::NotThisNode(_)), "{elsewhere}");
}
