//! A cluster of real nodes, and the calls that tests make.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dag_api::admin::v1 as admin;
use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::mailbox::v1 as mail;
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::{Problem, Reason};
use tempfile::TempDir;
use testkit::cluster::{LocalCluster, UpOptions};
use testkit::process::Lifetime;
use testkit::shape::{DagFile, Timeouts};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub type Admin = DagAdminServiceClient<Channel>;
pub type Mail = MailboxServiceClient<Channel>;

/// Ends a test that would never end.
const LIMIT: Duration = Duration::from_secs(60);

/// Running nodes; dropping it kills them and removes the folder.
pub struct Nodes {
    pub cluster: LocalCluster,
    folder: Option<TempDir>,
}

/// The folder of the program under test.
pub fn bins() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_holdfastd")).parent().expect("a folder").to_path_buf()
}

pub fn shape(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster-configs").join(name)
}

impl Nodes {
    /// Nodes that belong to nothing yet.
    pub async fn up(name: &str, settings: &[&str]) -> Self {
        Self::start_new(name, settings, false, Timeouts::Fast).await
    }

    /// [`Self::with_database`] with timeouts that a busy machine keeps: nothing changes its leader
    /// only because others had the processor.
    pub async fn unhurried(name: &str) -> (Self, u64) {
        let nodes = Self::start_new(name, &[], false, Timeouts::Default).await;
        let database = nodes.form().await.first_database().await;
        (nodes, database)
    }

    /// A DAG whose nodes speak TLS, with one mounted database; gives its number.
    pub async fn with_tls(name: &str, settings: &[&str]) -> (Self, u64) {
        let nodes = Self::start_new(name, settings, true, Timeouts::Fast).await;
        let database = nodes.form().await.first_database().await;
        (nodes, database)
    }

    async fn start_new(name: &str, settings: &[&str], tls: bool, timeouts: Timeouts) -> Self {
        let folder = tempfile::Builder::new().prefix("holdfast-it-").tempdir().unwrap();
        let cluster = LocalCluster::up(UpOptions {
            shape: shape(name),
            folder: folder.path().to_path_buf(),
            bins: bins(),
            lifetime: Lifetime::WithParent,
            settings: settings.iter().map(|text| text.parse().unwrap()).collect(),
            timeouts: Some(timeouts),
            tls,
        });
        Self { cluster: cluster.await.unwrap(), folder: Some(folder) }
    }

    /// A DAG whose directory is mounted.
    pub async fn formed(name: &str, settings: &[&str]) -> Self {
        let nodes = Self::up(name, settings).await;
        nodes.form().await;
        nodes
    }

    async fn form(&self) -> &Self {
        self.create_dag().await;
        self.until_mounted("directory").await;
        self
    }

    async fn first_database(&self) -> u64 {
        let database = self.create_database("DB1").await.database_id;
        self.until_mounted("DB1").await;
        database
    }

    /// A DAG with one mounted database; gives its number.
    pub async fn with_database(name: &str, settings: &[&str]) -> (Self, u64) {
        let nodes = Self::formed(name, settings).await;
        let database = nodes.first_database().await;
        (nodes, database)
    }

    pub fn names(&self) -> Vec<String> {
        self.cluster.names()
    }

    pub async fn start(&mut self, names: &[String]) {
        self.cluster.start_all(names, Lifetime::WithParent).await.unwrap();
    }

    pub fn definition(&self) -> admin::DagDefinition {
        let dag = DagFile::read(&self.cluster.dag_file()).unwrap();
        definition(&dag)
    }

    pub async fn admin(&self, node: &str) -> Admin {
        Admin::new(self.connect(self.cluster.node(node).unwrap().admin))
    }

    pub async fn mail(&self, node: &str) -> Mail {
        Mail::new(self.connect(self.cluster.node(node).unwrap().clients))
    }

    fn connect(&self, address: SocketAddr) -> Channel {
        let endpoint = match self.cluster.operator() {
            None => Endpoint::from_shared(format!("http://{address}")).unwrap(),
            Some(files) => {
                let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
                endpoint.tls_config(files.client().unwrap()).unwrap()
            }
        };
        endpoint.timeout(Duration::from_secs(30)).connect_lazy()
    }

    pub async fn get_node(&self, node: &str) -> admin::GetNodeResponse {
        let asked = self.admin(node).await.get_node(admin::GetNodeRequest {}).await;
        asked.unwrap().into_inner()
    }

    /// Both rounds at every node, as `dagctl dag create` makes them.
    pub async fn create_dag(&self) {
        let dag_id = [7_u8; 16];
        let mut members = Vec::new();
        for name in self.names() {
            let request = prepare(&dag_id, &self.definition());
            let prepared = self.admin(&name).await.prepare_dag(request).await.unwrap();
            members.push(founder(prepared.into_inner().node.unwrap()));
        }
        for name in self.names() {
            let request = form(&dag_id, &self.definition(), &members);
            self.admin(&name).await.form_dag(request).await.unwrap();
        }
    }

    /// Asks every node in turn until one carries it out.
    pub async fn create_database(&self, name: &str) -> admin::Database {
        let request = admin::CreateDatabaseRequest {
            name: name.into(),
            request_id: format!("create-{name}"),
            ..admin::CreateDatabaseRequest::default()
        };
        let end = Instant::now() + LIMIT;
        loop {
            for node in self.names() {
                let made = self.admin(&node).await.create_database(request.clone()).await;
                match made.map_err(problem) {
                    Ok(made) => return made.into_inner().database.unwrap(),
                    Err(problem) => assert!(problem.is_retryable(), "{problem}"),
                }
            }
            assert!(Instant::now() < end, "no node made the database");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn status(&self, node: &str) -> admin::GetStatusResponse {
        let asked = self.admin(node).await.get_status(admin::GetStatusRequest {}).await;
        asked.unwrap().into_inner()
    }

    /// Waits until a node's status is as wanted; shows the last one when it never is.
    pub async fn until_status(
        &self,
        node: &str,
        wanted: impl Fn(&admin::GetStatusResponse) -> bool,
    ) -> admin::GetStatusResponse {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.status(node).await;
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{node} never says so: {status:#?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The running node that says itself that it has the database mounted.
    pub async fn active(&self, database: &str) -> Option<String> {
        for name in self.names() {
            if !self.cluster.is_running(&name).unwrap() {
                continue;
            }
            let id = self.cluster.node(&name).unwrap().id;
            let mounted = |copy: &admin::DatabaseCopy| {
                copy.node_id == id
                    && copy.database_name == database
                    && copy.status() == admin::CopyStatus::Mounted
            };
            if self.status(&name).await.copies.iter().any(mounted) {
                return Some(name);
            }
        }
        None
    }

    pub async fn until_mounted(&self, database: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(node) = self.active(database).await {
                return node;
            }
            assert!(Instant::now() < end, "{database} is mounted nowhere");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Repeats a call at every running node until one carries it out, as a client does.
    pub async fn anywhere<T, F>(&self, call: impl Fn(Mail) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let end = Instant::now() + LIMIT;
        loop {
            for name in self.names() {
                if !self.cluster.is_running(&name).unwrap() {
                    continue;
                }
                match call(self.mail(&name).await).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => match Problem::from_status(&status) {
                        Some(problem) if !problem.is_retryable() => return Err(problem),
                        _ => {}
                    },
                }
            }
            assert!(Instant::now() < end, "no node carried it out");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn create_mailbox(&self, address: &str) -> mail::CreateMailboxResponse {
        self.create_mailbox_in(address, 0).await
    }

    /// A mailbox in this database; 0 leaves the choice to the DAG.
    pub async fn create_mailbox_in(
        &self,
        address: &str,
        database: u64,
    ) -> mail::CreateMailboxResponse {
        let request = creation(address, database);
        let made = self.anywhere(|mut mail| {
            let request = request.clone();
            async move { mail.create_mailbox(request).await }
        });
        made.await.unwrap()
    }

    pub async fn deliver(&self, mailbox: &mail::Mailbox, id: &str, body: &[u8]) -> mail::Delivered {
        let request = delivery(mailbox, id, body);
        let delivered = self.anywhere(|mut mail| {
            let request = request.clone();
            async move { mail.deliver_message(request).await }
        });
        delivered.await.unwrap().delivered.unwrap()
    }

    /// Every message of the INBOX, by UID.
    pub async fn inbox(&self, mailbox: &mail::Mailbox) -> Vec<mail::MessageMeta> {
        let mut messages = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = mail::ListMessagesRequest {
                mailbox: Some(reference(mailbox)),
                folder_id: INBOX.into(),
                page_size: 1000,
                page_token,
                ..mail::ListMessagesRequest::default()
            };
            let page = self.anywhere(|mut mail| {
                let request = request.clone();
                async move { mail.list_messages(request).await }
            });
            let page = page.await.unwrap();
            messages.extend(page.messages);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return messages;
            }
        }
    }

    /// A message's content.
    pub async fn fetch(&self, mailbox: &mail::Mailbox, uid: u32) -> Vec<u8> {
        let request = fetch(mailbox, uid);
        let stream = self.anywhere(|mut mail| {
            let request = request.clone();
            async move { mail.fetch_message(request).await }
        });
        let mut stream = stream.await.unwrap();
        let mut content = Vec::new();
        while let Some(frame) = stream.message().await.unwrap() {
            let chunk = frame.chunk.unwrap_or_default();
            assert_eq!(chunk.offset, content.len() as u64);
            content.extend_from_slice(&chunk.data);
        }
        content
    }

    /// Whether all copies of a database hold the same at one mark.
    pub async fn verify(&self, database: &str) -> admin::VerifyDatabaseResponse {
        let request = admin::VerifyDatabaseRequest {
            database_name: database.into(),
            wait_ms: 20_000,
            request_id: "verify".into(),
            deep: false,
        };
        let end = Instant::now() + LIMIT;
        loop {
            let active = self.until_mounted(database).await;
            match self.admin(&active).await.verify_database(request.clone()).await {
                Ok(answer) => return answer.into_inner(),
                // On a busy machine a leader may not have heard from the others for a moment.
                Err(status) => match Problem::from_status(&status) {
                    Some(problem) if problem.is_retryable() && Instant::now() < end => {}
                    _ => panic!("{status}"),
                },
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.cluster.names() {
                eprintln!("--- {name}:\n{}", self.cluster.log_tail(&name).unwrap_or_default());
            }
            if std::env::var_os("HOLDFAST_KEEP").is_some()
                && let Some(folder) = self.folder.take()
            {
                eprintln!("--- the folder stays at {}", folder.keep().display());
            }
        }
        self.cluster.destroy().expect("kill the nodes");
    }
}

pub const INBOX: &str = "f1";

/// What a typed error says.
pub fn problem(status: Status) -> Problem {
    Problem::from_status(&status).unwrap_or_else(|| panic!("not a typed error: {status:?}"))
}

pub fn reason<T>(result: Result<T, Status>) -> Reason {
    match result {
        Ok(_) => panic!("carried out"),
        Err(status) => problem(status).reason,
    }
}

pub fn prepare(dag_id: &[u8], definition: &admin::DagDefinition) -> admin::PrepareDagRequest {
    admin::PrepareDagRequest {
        dag_id: dag_id.to_vec().into(),
        definition_digest: definition.digest().to_vec().into(),
        definition: Some(definition.clone()),
    }
}

pub fn form(
    dag_id: &[u8],
    definition: &admin::DagDefinition,
    members: &[admin::FoundingMember],
) -> admin::FormDagRequest {
    admin::FormDagRequest {
        dag_id: dag_id.to_vec().into(),
        definition_digest: definition.digest().to_vec().into(),
        members: members.to_vec(),
        first_activation_id: dag_id.to_vec().into(),
    }
}

pub fn founder(node: admin::NodeIdentity) -> admin::FoundingMember {
    admin::FoundingMember { node_id: node.node_id, store_id: node.store_id }
}

fn definition(dag: &DagFile) -> admin::DagDefinition {
    let node = |(node, witness): (&testkit::shape::NodeEntry, bool)| admin::NodeDefinition {
        node_id: node.id,
        name: node.name.clone(),
        site: node.site.clone(),
        api_address: node.clients.to_string(),
        peer_address: node.peers.to_string(),
        admin_address: node.admin.to_string(),
        witness,
    };
    let name = dag.timeouts.name().into();
    let shape = admin::TimeoutShape { name, ..admin::TimeoutShape::default() };
    admin::DagDefinition {
        name: dag.name.clone(),
        sites: dag.sites.iter().map(|s| admin::SiteDefinition { name: s.name.clone() }).collect(),
        nodes: dag.members().map(node).collect(),
        control_voters: Vec::new(),
        database_timeouts: Some(shape.clone()),
        control_timeouts: Some(shape),
    }
}

pub fn reference(mailbox: &mail::Mailbox) -> mail::MailboxRef {
    let (mailbox_id, database_id) = (mailbox.mailbox_id.clone(), mailbox.database_id);
    mail::MailboxRef { mailbox_id, database_id, actor: Vec::new() }
}

pub fn creation(address: &str, database_id: u64) -> mail::CreateMailboxRequest {
    mail::CreateMailboxRequest {
        address: address.into(),
        request_id: format!("create-{address}"),
        database_id,
        ..mail::CreateMailboxRequest::default()
    }
}

pub fn delivery(mailbox: &mail::Mailbox, id: &str, body: &[u8]) -> mail::DeliverMessageRequest {
    let recipient = mail::Recipient {
        mailbox_id: mailbox.mailbox_id.clone(),
        address: mailbox.addresses.first().cloned().unwrap_or_default(),
    };
    let header = mail::DeliverHeader {
        delivery_id: id.into(),
        database_id: mailbox.database_id,
        recipients: vec![recipient],
        size: body.len() as u64,
        ..mail::DeliverHeader::default()
    };
    mail::DeliverMessageRequest { header: Some(header), content: body.to_vec().into() }
}

pub fn fetch(mailbox: &mail::Mailbox, uid: u32) -> mail::FetchMessageRequest {
    mail::FetchMessageRequest {
        mailbox: Some(reference(mailbox)),
        folder_id: INBOX.into(),
        uid,
        content: true,
        ..mail::FetchMessageRequest::default()
    }
}
