//! With TLS: who is let in, who is not, and what those are told.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dag_api::admin::v1 as admin;
use dag_api::mailbox::v1 as mail;
use dag_client::tls::Trouble;
use dag_client::{Client, Options, Tls};
use testkit::authority::{Authority, TlsFiles};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::cluster::Nodes;

const LIMIT: Duration = Duration::from_secs(60);

async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !check().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn identity(files: &TlsFiles) -> Tls {
    Tls::read(&files.authority, Some((&files.certificate, &files.key))).unwrap()
}

/// What a client is told, which does not succeed. The last of its attempts may be cut short by the
/// end of its patience, so it is asked until it says the expected.
async fn until_told(client: &Client, trouble: Trouble) -> dag_client::Error {
    let end = Instant::now() + LIMIT;
    loop {
        let error = client.create_mailbox("bob@example.org").await.unwrap_err();
        if error.to_string().contains(&trouble.to_string()) {
            return error;
        }
        assert!(Instant::now() < end, "{trouble:?} was never said: {error}");
    }
}

/// A front end of this node.
fn front_end(nodes: &Nodes, scheme: &str, tls: Option<Tls>) -> Client {
    let patience = Duration::from_secs(3);
    let options = Options { patience, attempt: patience, tls, ..Options::default() };
    let address = nodes.cluster.node("n1").unwrap().clients;
    Client::connect([format!("{scheme}://{address}")], options).unwrap()
}

#[tokio::test]
async fn a_dag_under_tls_forms_delivers_and_fails_over() {
    let (mut nodes, _) = Nodes::with_tls("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    for number in 0..5 {
        nodes.deliver(&mailbox, &format!("before-{number}"), b"before").await;
    }
    let active = nodes.until_mounted("DB1").await;
    nodes.cluster.kill(&active).unwrap();
    for number in 0..5 {
        nodes.deliver(&mailbox, &format!("after-{number}"), b"after").await;
    }
    assert_eq!(nodes.inbox(&mailbox).await.len(), 10);
    nodes.start(&[active.clone()]).await;
    let reachable = async || nodes.status("n1").await.nodes.iter().all(|node| node.reachable);
    until("all nodes hear each other", reachable).await;
    let verified = nodes.verify("DB1").await;
    assert!(verified.equal, "{verified:?}");
    let status = nodes.status("n1").await;
    assert!(status.warnings.iter().all(|found| !found.code.contains("TLS")), "{status:?}");
    assert!(status.databases[0].active_endpoint.starts_with("https://127."), "{status:?}");
    let node = nodes.get_node("n1").await;
    assert!(node.listeners.iter().all(|listener| listener.tls) && !node.insecure, "{node:?}");
}

#[tokio::test]
async fn a_mailbox_is_made_on_another_node_through_tls() {
    let (nodes, _) = Nodes::with_tls("three-node", &[]).await;
    let directory = nodes.until_mounted("directory").await;
    let mut elsewhere = None;
    for number in 2..10 {
        let name = format!("DB{number}");
        let database = nodes.create_database(&name).await.database_id;
        if nodes.until_mounted(&name).await != directory {
            elsewhere = Some(database);
            break;
        }
    }
    let database_id = elsewhere.expect("a database that is active beside the directory");
    let request = mail::CreateMailboxRequest {
        address: "ann@example.org".into(),
        database_id,
        request_id: "create".into(),
        ..mail::CreateMailboxRequest::default()
    };
    let made = nodes.anywhere(|mut service| {
        let request = request.clone();
        async move { service.create_mailbox(request).await }
    });
    assert_eq!(made.await.unwrap().mailbox.unwrap().database_id, database_id);
}

#[tokio::test]
async fn a_front_end_finds_its_way_with_a_certificate_and_none_without() {
    let (nodes, _) = Nodes::with_tls("three-node", &[]).await;
    let files = nodes.cluster.operator().unwrap();
    let trusted = front_end(&nodes, "https", Some(identity(&files)));
    trusted.create_mailbox("ann@example.org").await.unwrap();
    let nameless = Tls::read(&files.authority, None).unwrap();
    let refused = front_end(&nodes, "https", Some(nameless));
    let error = until_told(&refused, Trouble::CertificateWanted).await;
    assert!(matches!(error, dag_client::Error::TimedOut { .. }), "{error}");
    let foreign = Authority::new("theirs").unwrap();
    let issued = foreign.issue("stranger", &[]).unwrap();
    let authority = std::fs::read(&files.authority).unwrap();
    let stranger = Tls::new(authority).identity(&issued.certificate, &issued.key);
    let refused = front_end(&nodes, "https", Some(stranger));
    until_told(&refused, Trouble::CertificateRefused).await;
    let elsewhere = front_end(&nodes, "https", Some(Tls::new(foreign.pem())));
    until_told(&elsewhere, Trouble::NodeOfAnotherAuthority).await;
}

#[tokio::test]
async fn whoever_speaks_plainly_to_tls_is_told_so() {
    let (nodes, _) = Nodes::with_tls("single-node", &[]).await;
    let address = nodes.cluster.nodes()[0].clients;
    let options = Options { patience: Duration::from_secs(3), ..Options::default() };
    let client = Client::connect([format!("http://{address}")], options).unwrap();
    until_told(&client, Trouble::NodeSpeaksTls).await;
    // Those who do not know Holdfast see the reason in the answer.
    let plain = Endpoint::from_shared(format!("http://{}", nodes.cluster.nodes()[0].admin));
    let mut service = crate::cluster::Admin::new(plain.unwrap().connect_lazy());
    let refused = service.get_node(admin::GetNodeRequest {}).await.unwrap_err();
    assert!(format!("{refused:?}").contains("speaks TLS: connect with https"), "{refused:?}");
}

#[tokio::test]
async fn whoever_speaks_tls_to_a_plain_node_is_told_so() {
    let nodes = Nodes::formed("single-node", &[]).await;
    let authority = Authority::new("ours").unwrap();
    let options = Options {
        patience: Duration::from_secs(2),
        tls: Some(Tls::new(authority.pem())),
        ..Options::default()
    };
    let address = nodes.cluster.nodes()[0].clients;
    let client = Client::connect([format!("https://{address}")], options).unwrap();
    until_told(&client, Trouble::NodeSpeaksPlainly).await;
}

#[tokio::test]
async fn front_ends_without_a_certificate_come_in_where_that_is_allowed_and_operators_do_not() {
    let (nodes, _) = Nodes::with_tls("single-node", &["tls.clients_anonymous=true"]).await;
    let files = nodes.cluster.operator().unwrap();
    let options = Options {
        patience: Duration::from_secs(10),
        tls: Some(Tls::read(&files.authority, None).unwrap()),
        ..Options::default()
    };
    let node = nodes.cluster.nodes()[0].clone();
    let client = Client::connect([format!("https://{}", node.clients)], options).unwrap();
    client.create_mailbox("ann@example.org").await.unwrap();
    let authority = Certificate::from_pem(std::fs::read(&files.authority).unwrap());
    let endpoint = Endpoint::from_shared(format!("https://{}", node.admin)).unwrap();
    let endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(authority)).unwrap();
    let mut operator = crate::cluster::Admin::new(endpoint.connect_lazy());
    let refused = operator.get_node(admin::GetNodeRequest {}).await.unwrap_err();
    assert_eq!(Trouble::of(&refused), Some(Trouble::CertificateWanted), "{refused:?}");
}

#[tokio::test]
async fn a_front_ends_certificate_opens_the_front_ends_listener_alone() {
    let folder = tempfile::tempdir().unwrap();
    let front = Authority::new("front ends").unwrap();
    let file = folder.path().join("front.pem");
    std::fs::write(&file, front.pem()).unwrap();
    let setting = format!("tls.clients_authority={}", file.display());
    let (nodes, _) = Nodes::with_tls("single-node", &[&setting]).await;
    let authority = std::fs::read(nodes.cluster.operator().unwrap().authority).unwrap();
    let issued = front.issue("webmail", &[]).unwrap();
    let options = Options {
        patience: Duration::from_secs(10),
        tls: Some(Tls::new(&authority).identity(&issued.certificate, &issued.key)),
        ..Options::default()
    };
    let node = nodes.cluster.nodes()[0].clone();
    let client = Client::connect([format!("https://{}", node.clients)], options).unwrap();
    client.create_mailbox("ann@example.org").await.unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&authority))
        .identity(Identity::from_pem(&issued.certificate, &issued.key));
    for address in [node.admin, node.peers] {
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        let endpoint = endpoint.tls_config(tls.clone()).unwrap();
        let mut operator = crate::cluster::Admin::new(endpoint.connect_lazy());
        let refused = operator.get_node(admin::GetNodeRequest {}).await.unwrap_err();
        assert_eq!(Trouble::of(&refused), Some(Trouble::CertificateRefused), "{refused:?}");
    }
}

/// A process that ends with the test.
struct Stray(Child);

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_node_of_another_authority_is_no_peer() {
    let (mut nodes, _) = Nodes::with_tls("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    nodes.cluster.kill("n3").unwrap();
    let node = nodes.cluster.node("n3").unwrap().clone();
    // The same disk and the same settings; only its certificates are those of somebody else.
    let folder = tempfile::tempdir().unwrap();
    let foreign = Authority::new("theirs").unwrap();
    let issued = foreign.issue("n3", &[node.admin.ip()]).unwrap();
    issued.write(folder.path(), "n3").unwrap();
    // It trusts the others, so that it is they who refuse.
    let known = std::fs::read_to_string(nodes.cluster.operator().unwrap().authority).unwrap();
    let both = format!("{known}{}", foreign.pem());
    std::fs::write(folder.path().join("authority.pem"), both).unwrap();
    let ours = nodes.cluster.folder().join("tls").to_string_lossy().into_owned();
    let theirs = folder.path().to_string_lossy().into_owned();
    let settings = std::fs::read_to_string(&node.settings).unwrap();
    let file = folder.path().join("n3.toml");
    std::fs::write(&file, settings.replace(&ours, &theirs)).unwrap();
    let mut command = Command::new(crate::cluster::bins().join("holdfastd"));
    command.arg("--settings").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let _stray = Stray(command.spawn().unwrap());
    // It runs: its own operators, who trust its authority, hear from it.
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(foreign.pem()))
        .identity(Identity::from_pem(&issued.certificate, &issued.key));
    let endpoint = Endpoint::from_shared(format!("https://{}", node.admin)).unwrap();
    let mut stray = crate::cluster::Admin::new(endpoint.tls_config(tls).unwrap().connect_lazy());
    let end = Instant::now() + LIMIT;
    while stray.get_node(admin::GetNodeRequest {}).await.is_err() {
        assert!(Instant::now() < end, "the node with other certificates does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The others go on without it, and it neither hears nor is heard.
    for number in 0..20 {
        nodes.deliver(&mailbox, &format!("without-{number}"), b"two of three").await;
    }
    let heard = async || {
        let status = nodes.status("n1").await;
        let heard = status.nodes.iter().filter(|n| n.reachable);
        heard.map(|n| n.node.as_ref().unwrap().node_id).collect::<BTreeSet<u64>>()
    };
    // What n3 said before it was killed is believed for a moment longer.
    let others = BTreeSet::from([1, 2]);
    until("the others hear each other alone", async || heard().await == others).await;
    let alone = stray.get_status(admin::GetStatusRequest {}).await.unwrap().into_inner();
    let hears: Vec<u64> = alone
        .nodes
        .iter()
        .filter(|n| n.reachable)
        .map(|n| n.node.as_ref().unwrap().node_id)
        .collect();
    assert_eq!(hears, [3]);
    let log = |name: &str| std::fs::read_to_string(&nodes.cluster.node(name).unwrap().log).unwrap();
    let log = log("n1") + &log("n2");
    assert!(log.contains("turned away by TLS") && log.contains("UnknownIssuer"), "{log}");
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart() {
    let (nodes, _) = Nodes::with_tls("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let boots = async || {
        let mut boots = Vec::new();
        for name in nodes.names() {
            boots.push(nodes.get_node(&name).await.node.unwrap().boot_counter);
        }
        boots
    };
    let before = boots().await;
    // A second authority: first everybody trusts both, then each node shows one of the new.
    let folder = nodes.cluster.folder().join("tls");
    let second = Authority::new("the next").unwrap();
    let first = std::fs::read_to_string(folder.join("authority.pem")).unwrap();
    std::fs::write(folder.join("authority.pem"), format!("{first}{}", second.pem())).unwrap();
    for node in nodes.cluster.nodes() {
        let address: IpAddr = node.admin.ip();
        second.issue(&node.name, &[address]).unwrap().write(&folder, &node.name).unwrap();
        let pid = rustix::process::Pid::from_raw(node.process.as_ref().unwrap().pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }
    // Whoever trusts the second authority alone is answered now.
    let operator = nodes.cluster.operator().unwrap();
    let identity = Identity::from_pem(
        std::fs::read(&operator.certificate).unwrap(),
        std::fs::read(&operator.key).unwrap(),
    );
    let trust = Certificate::from_pem(second.pem());
    let tls = ClientTlsConfig::new().ca_certificate(trust).identity(identity);
    for node in nodes.cluster.nodes() {
        let answers = async || {
            let endpoint = Endpoint::from_shared(format!("https://{}", node.admin)).unwrap();
            let endpoint = endpoint.tls_config(tls.clone()).unwrap();
            let mut service = crate::cluster::Admin::new(endpoint.connect_lazy());
            service.get_node(admin::GetNodeRequest {}).await.is_ok()
        };
        until("the node shows its new certificate", answers).await;
    }
    nodes.deliver(&mailbox, "renewed", b"renewed").await;
    let reachable = async || nodes.status("n1").await.nodes.iter().all(|node| node.reachable);
    until("all nodes hear each other", reachable).await;
    assert_eq!(boots().await, before, "nobody was started again");
}
