//! Nodes that speak the real protocol over loopback and keep mailboxes in memory, with faults that
//! a test plants: hints, lost and late answers, broken streams, moved mailboxes, other lineages.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use dag_api::mailbox::v1::mailbox_service_server::{MailboxService, MailboxServiceServer};
use dag_api::{Problem, Reason, Token, limits};
use dag_client::v1::*;
use dag_types::{ActivationId, DatabaseId, Generation, Lineage, MailboxId, NodeId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

pub const DIRECTORY: u64 = 1;
pub const DB_A: u64 = 16;
pub const DB_B: u64 = 17;
pub const INBOX: &str = "f1";

/// What goes wrong with one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Not carried out.
    Refuse(Problem),
    /// Carried out, and then this is the answer.
    CarryOutThen(Problem),
    /// Carried out, and no answer ever comes.
    DropAnswer,
    /// Carried out, and the answer comes late.
    Delay(Duration),
    /// Carried out, and the stream breaks (a call gets UNAVAILABLE without a reason).
    Break,
    /// A chunk of a fetched message has a flipped bit.
    FlipBit,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub uid: u32,
    pub id: String,
    pub content: Bytes,
    pub flags: u32,
}

#[derive(Default)]
pub struct State {
    pub endpoints: Vec<String>,
    pub active: HashMap<u64, usize>,
    pub hints: bool,
    /// The true places, and what nodes that are not asked with authority say.
    pub places: BTreeMap<String, (MailboxId, u64)>,
    pub stale: BTreeMap<String, (MailboxId, u64)>,
    pub boxes: HashMap<String, Vec<Message>>,
    pub faults: HashMap<usize, VecDeque<Fault>>,
    pub chain: Vec<LineageLink>,
    /// Nodes that know the chain only up to here.
    pub behind: HashMap<usize, usize>,
    pub calls: Vec<(usize, &'static str)>,
    pub streams: usize,
    created: HashMap<String, (MailboxId, u64)>,
    log_index: u64,
}

impl State {
    fn token(&mut self, node: usize, database: u64) -> CommitToken {
        self.log_index += 1;
        let end = self.behind.get(&node).copied().unwrap_or(self.chain.len());
        let lineage = self.chain[end - 1].lineage.as_ref().unwrap().try_into().unwrap();
        let log_index = self.log_index;
        let generation = Generation::FIRST;
        Token { database: DatabaseId(database), lineage, generation, log_index }.into()
    }

    pub fn add_mailbox(&mut self, address: &str, database: u64) -> MailboxId {
        let id = MailboxId(*uuid_bytes(address));
        self.places.insert(address.into(), (id, database));
        self.boxes.insert(id.to_string(), Vec::new());
        id
    }

    pub fn messages(&self, address: &str) -> &[Message] {
        &self.boxes[&self.places[address].0.to_string()]
    }

    pub fn count(&self, method: &str) -> usize {
        self.calls.iter().filter(|(_, name)| *name == method).count()
    }

    /// Extends the chain of lineages; nodes named stay behind.
    pub fn activate(&mut self, id: u8, behind: &[usize]) {
        let length = self.chain.len();
        self.behind.extend(behind.iter().map(|node| (*node, length)));
        self.chain.push(link(length as u64 + 1, id));
    }

    fn store(&mut self, mailbox: &str, id: &str, content: &Bytes, flags: u32) -> (u32, bool) {
        let messages = self.boxes.get_mut(mailbox).unwrap();
        if let Some(message) = messages.iter().find(|message| message.id == id) {
            return (message.uid, true);
        }
        let uid = messages.len() as u32 + 1;
        messages.push(Message { uid, id: id.into(), content: content.clone(), flags });
        (uid, false)
    }

    /// Whether this database holds the mailbox now.
    fn lives(&self, mailbox: &str, database: u64) -> Result<(), DeliverCode> {
        match self.places.values().find(|(id, _)| id.to_string() == mailbox) {
            Some((_, home)) if *home == database => Ok(()),
            Some(_) => Err(DeliverCode::MailboxMoved),
            None => Err(DeliverCode::NoMailbox),
        }
    }
}

pub fn link(epoch: u64, id: u8) -> LineageLink {
    let lineage = Lineage { epoch, activation: ActivationId([id; 16]) };
    LineageLink { lineage: Some(lineage.into()), ..LineageLink::default() }
}

fn uuid_bytes(text: &str) -> Box<[u8; 16]> {
    let mut id = [0x5a_u8; 16];
    for (at, byte) in text.bytes().enumerate() {
        id[at % 16] = id[at % 16].wrapping_mul(31).wrapping_add(byte);
    }
    Box::new(id)
}

#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
}

impl Cluster {
    /// Nodes on loopback; everything is active on the first.
    pub async fn start(nodes: usize) -> Self {
        let state = State { chain: vec![link(1, 1)], hints: true, ..State::default() };
        let cluster = Self { state: Arc::new(Mutex::new(state)) };
        for index in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            cluster.lock().endpoints.push(endpoint);
            let node = FakeNode { index, cluster: cluster.clone() };
            let server = tonic::transport::Server::builder()
                .add_service(MailboxServiceServer::new(node))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(server);
        }
        for database in [DIRECTORY, DB_A, DB_B] {
            cluster.lock().active.insert(database, 0);
        }
        cluster
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.lock().endpoints.clone()
    }

    pub fn plant(&self, node: usize, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.entry(node).or_default().extend(faults);
    }

    pub fn activate(&self, database: u64, node: usize) {
        self.lock().active.insert(database, node);
    }
}

#[derive(Clone)]
struct FakeNode {
    index: usize,
    cluster: Cluster,
}

type Answer<T> = Result<Response<T>, Status>;
type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl FakeNode {
    fn state(&self) -> MutexGuard<'_, State> {
        self.cluster.lock()
    }

    fn check_active(&self, database: u64) -> Result<(), Problem> {
        let state = self.state();
        let active = state.active.get(&database).copied();
        if active == Some(self.index) {
            return Ok(());
        }
        let problem = Problem::new(Reason::NotActiveCopy, "another node's copy is active")
            .database(DatabaseId(database));
        Err(match active {
            Some(node) if state.hints => {
                problem.active(NodeId(node as u64 + 1), &state.endpoints[node])
            }
            _ => problem,
        })
    }

    /// One call: refused where the database is not active, else carried out, with the next fault.
    async fn act<T>(
        &self,
        method: &'static str,
        database: u64,
        carry_out: impl FnOnce(&mut State, usize) -> Result<T, Problem>,
    ) -> Result<T, Status> {
        self.state().calls.push((self.index, method));
        self.check_active(database)?;
        let fault = self.state().faults.get_mut(&self.index).and_then(VecDeque::pop_front);
        if let Some(Fault::Refuse(problem)) = fault {
            return Err(problem.into());
        }
        let result = carry_out(&mut self.state(), self.index).map_err(Status::from);
        match fault {
            None | Some(Fault::Refuse(_) | Fault::FlipBit) => result,
            Some(Fault::CarryOutThen(problem)) => Err(problem.into()),
            Some(Fault::DropAnswer) => std::future::pending().await,
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                result
            }
            Some(Fault::Break) => Err(Status::unavailable("connection reset")),
        }
    }

    fn deliver_now(
        state: &mut State,
        node: usize,
        header: &DeliverHeader,
        content: &Bytes,
    ) -> Result<Delivered, Problem> {
        assert_eq!(header.size, content.len() as u64);
        if !header.blake3.is_empty() {
            assert_eq!(header.blake3, *blake3::hash(content).as_bytes().as_slice());
        }
        let mut results = Vec::new();
        for recipient in &header.recipients {
            let mailbox = &recipient.mailbox_id;
            let mut result = DeliverResult {
                mailbox_id: mailbox.clone(),
                address: recipient.address.clone(),
                folder_id: INBOX.into(),
                ..DeliverResult::default()
            };
            match state.lives(mailbox, header.database_id) {
                Err(code) => result.set_code(code),
                Ok(()) => {
                    let (uid, before) = state.store(mailbox, &header.delivery_id, content, 0);
                    result.uid = uid;
                    result.set_code(match before {
                        true => DeliverCode::Duplicate,
                        false => DeliverCode::Stored,
                    });
                }
            }
            results.push(result);
        }
        let token = Some(state.token(node, header.database_id));
        Ok(Delivered { results, token, replayed: false })
    }

    fn append_now(
        state: &mut State,
        node: usize,
        header: &AppendHeader,
        content: &Bytes,
    ) -> Result<Appended, Problem> {
        let mailbox = header.mailbox.clone().unwrap();
        state.lives(&mailbox.mailbox_id, mailbox.database_id).map_err(moved)?;
        if header.folder_id != INBOX {
            return Err(Problem::new(Reason::FolderNotFound, "no such folder"));
        }
        assert_eq!(header.blake3, *blake3::hash(content).as_bytes().as_slice());
        let flags = header.system_flags;
        let (uid, replayed) = state.store(&mailbox.mailbox_id, &header.request_id, content, flags);
        let token = Some(state.token(node, mailbox.database_id));
        Ok(Appended { uid_validity: 1, uid, replayed, token, ..Appended::default() })
    }

    /// Serves one message of a session. `Err` ends the stream.
    async fn session_message(
        &self,
        header: DeliverHeader,
        content: Bytes,
        answers: &mpsc::Sender<Result<DeliverMessagesResponse, Status>>,
    ) -> Result<(), Status> {
        use deliver_messages_response::Outcome;
        let delivery_id = header.delivery_id.clone();
        let node = self.clone();
        let answers = answers.clone();
        let work = async move {
            let result = node.act("session", header.database_id, |state, index| {
                Self::deliver_now(state, index, &header, &content)
            });
            let outcome = match result.await {
                Ok(delivered) => Outcome::Delivered(delivered),
                Err(status) => match Problem::from_status(&status) {
                    Some(problem) => Outcome::Failure(problem.to_failure()),
                    None => return answers.send(Err(status)).await,
                },
            };
            answers.send(Ok(DeliverMessagesResponse { delivery_id, outcome: Some(outcome) })).await
        };
        tokio::spawn(work);
        Ok(())
    }
}

fn moved(code: DeliverCode) -> Problem {
    match code {
        DeliverCode::MailboxMoved => Problem::new(Reason::MailboxMoved, "it moved"),
        _ => Problem::new(Reason::MailboxNotFound, "no such mailbox"),
    }
}

/// Puts the chunks of one message together, and checks what a node checks.
#[derive(Default)]
struct Upload<H> {
    header: Option<H>,
    content: Vec<u8>,
}

impl<H> Upload<H> {
    fn take(&mut self, header: Option<H>, chunk: BodyChunk, size: impl Fn(&H) -> u64) -> bool {
        assert_eq!(header.is_some(), self.header.is_none(), "frames of two messages are mixed");
        self.header = self.header.take().or(header);
        let size = size(self.header.as_ref().unwrap());
        assert_eq!(chunk.offset, self.content.len() as u64);
        assert_eq!(chunk.crc32, crc32fast::hash(&chunk.data));
        let single = size <= limits::SINGLE_FRAME_BYTES_MAX as u64;
        assert!(single || chunk.data.len() <= limits::CHUNK_BYTES_MAX);
        self.content.extend_from_slice(&chunk.data);
        self.content.len() as u64 >= size
    }

    fn finish(&mut self) -> (H, Bytes) {
        let content = std::mem::take(&mut self.content);
        (self.header.take().unwrap(), content.into())
    }
}

#[tonic::async_trait]
impl MailboxService for FakeNode {
    async fn locate_mailbox(
        &self,
        request: Request<LocateMailboxRequest>,
    ) -> Answer<LocateMailboxResponse> {
        let request = request.into_inner();
        self.state().calls.push((self.index, "locate"));
        let active = self.check_active(DIRECTORY);
        if request.authoritative {
            active.clone()?;
        }
        let mut state = self.state();
        let (true_places, stale) = (state.places.clone(), state.stale.clone());
        let find = |places: &BTreeMap<String, (MailboxId, u64)>| match &request.mailbox {
            Some(locate_mailbox_request::Mailbox::Address(address)) => places.get(address).copied(),
            Some(locate_mailbox_request::Mailbox::MailboxId(id)) => {
                places.values().find(|(mailbox, _)| mailbox.to_string() == *id).copied()
            }
            None => None,
        };
        let stale = if request.authoritative { None } else { find(&stale) };
        let Some((mailbox, database)) = stale.or_else(|| find(&true_places)) else {
            active?;
            return Err(Problem::new(Reason::MailboxNotFound, "no such mailbox").into());
        };
        let end = state.behind.get(&self.index).copied().unwrap_or(state.chain.len());
        let active = state.active.get(&database).copied().filter(|_| state.hints);
        Ok(Response::new(LocateMailboxResponse {
            mailbox: Some(MailboxRef {
                mailbox_id: mailbox.to_string(),
                database_id: database,
                actor: Vec::new(),
            }),
            database_name: format!("DB{database}"),
            active_node: active.map_or(0, |node| node as u64 + 1),
            active_endpoint: active.map_or(String::new(), |node| state.endpoints[node].clone()),
            lineage_chain: state.chain[..end].to_vec(),
            token: Some(state.token(self.index, DIRECTORY)),
        }))
    }

    async fn create_mailbox(
        &self,
        request: Request<CreateMailboxRequest>,
    ) -> Answer<CreateMailboxResponse> {
        let request = request.into_inner();
        let create = |state: &mut State, node: usize| {
            let before = state.created.get(&request.request_id).copied();
            if before.is_none() && state.places.contains_key(&request.address) {
                return Err(Problem::new(Reason::MailboxExists, "the address is taken"));
            }
            let database = if request.database_id == 0 { DB_A } else { request.database_id };
            let (id, database) =
                before.unwrap_or_else(|| (state.add_mailbox(&request.address, database), database));
            state.created.insert(request.request_id.clone(), (id, database));
            let mailbox =
                Mailbox { mailbox_id: id.to_string(), database_id: database, ..Mailbox::default() };
            Ok(CreateMailboxResponse {
                mailbox: Some(mailbox),
                token: Some(state.token(node, database)),
                replayed: before.is_some(),
                inbox: Some(Folder { folder_id: INBOX.into(), ..Folder::default() }),
                ..CreateMailboxResponse::default()
            })
        };
        self.act("create", DIRECTORY, create).await.map(Response::new)
    }

    async fn get_mailbox(&self, request: Request<GetMailboxRequest>) -> Answer<GetMailboxResponse> {
        let place = request.into_inner().mailbox.unwrap();
        let get = |state: &mut State, node: usize| {
            state.lives(&place.mailbox_id, place.database_id).map_err(moved)?;
            let messages = state.boxes[&place.mailbox_id].len() as u64;
            let mailbox = Mailbox {
                mailbox_id: place.mailbox_id.clone(),
                database_id: place.database_id,
                messages,
                ..Mailbox::default()
            };
            let token = Some(state.token(node, place.database_id));
            Ok(GetMailboxResponse { mailbox: Some(mailbox), token, staleness: None })
        };
        self.act("get", place.database_id, get).await.map(Response::new)
    }

    async fn list_folders(
        &self,
        request: Request<ListFoldersRequest>,
    ) -> Answer<ListFoldersResponse> {
        let place = request.into_inner().mailbox.unwrap();
        let list = |state: &mut State, node: usize| {
            let mut inbox = Folder { folder_id: INBOX.into(), ..Folder::default() };
            inbox.set_special_use(SpecialUse::Inbox);
            let token = Some(state.token(node, place.database_id));
            Ok(ListFoldersResponse { folders: vec![inbox], token, ..Default::default() })
        };
        self.act("folders", place.database_id, list).await.map(Response::new)
    }

    async fn create_folder(
        &self,
        _request: Request<CreateFolderRequest>,
    ) -> Answer<CreateFolderResponse> {
        Err(Status::unimplemented("the fake has one folder"))
    }

    async fn deliver_message(
        &self,
        request: Request<DeliverMessageRequest>,
    ) -> Answer<DeliverMessageResponse> {
        let request = request.into_inner();
        let header = request.header.unwrap();
        let deliver = |state: &mut State, node: usize| {
            Self::deliver_now(state, node, &header, &request.content)
        };
        let delivered = Some(self.act("deliver", header.database_id, deliver).await?);
        Ok(Response::new(DeliverMessageResponse { delivered }))
    }

    type DeliverMessagesStream = Stream_<DeliverMessagesResponse>;

    async fn deliver_messages(
        &self,
        request: Request<Streaming<DeliverMessagesRequest>>,
    ) -> Answer<Self::DeliverMessagesStream> {
        let (node, mut frames) = (self.clone(), request.into_inner());
        self.state().streams += 1;
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut upload = Upload::<DeliverHeader> { header: None, content: Vec::new() };
            while let Some(Ok(frame)) = frames.next().await {
                let (header, chunk) = (frame.header, frame.chunk.unwrap());
                if let Some(header) = &header {
                    assert_eq!(header.delivery_id, frame.delivery_id);
                }
                if upload.take(header, chunk, |header| header.size) {
                    let (header, content) = upload.finish();
                    if node.session_message(header, content, &answers).await.is_err() {
                        return;
                    }
                }
            }
        });
        // An error among the answers is the end of the stream.
        let stream = ReceiverStream::new(stream);
        let stream = futures::stream::unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            let answer = stream.next().await?;
            let rest = answer.is_ok().then_some(stream);
            Some((answer, rest))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn append_message(
        &self,
        request: Request<AppendMessageRequest>,
    ) -> Answer<AppendMessageResponse> {
        let request = request.into_inner();
        let header = request.header.unwrap();
        let database = header.mailbox.as_ref().unwrap().database_id;
        let append = |state: &mut State, node: usize| {
            Self::append_now(state, node, &header, &request.content)
        };
        let appended = Some(self.act("append", database, append).await?);
        Ok(Response::new(AppendMessageResponse { appended }))
    }

    type AppendMessagesStream = Stream_<AppendMessagesResponse>;

    async fn append_messages(
        &self,
        request: Request<Streaming<AppendMessagesRequest>>,
    ) -> Answer<Self::AppendMessagesStream> {
        use append_messages_response::Outcome;
        let mut frames = request.into_inner();
        let mut upload = Upload::<AppendHeader> { header: None, content: Vec::new() };
        while let Some(frame) = frames.next().await {
            let frame = frame?;
            if !upload.take(frame.header, frame.chunk.unwrap(), |header| header.size) {
                continue;
            }
            let (header, content) = upload.finish();
            let database = header.mailbox.as_ref().unwrap().database_id;
            let append =
                |state: &mut State, node: usize| Self::append_now(state, node, &header, &content);
            let appended = self.act("appends", database, append).await?;
            let outcome = Some(Outcome::Appended(appended));
            let answer = AppendMessagesResponse { request_id: frame.request_id, outcome };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)))));
        }
        Err(Status::cancelled("the upload was cut"))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Answer<ListMessagesResponse> {
        const PAGE: usize = 3;
        let request = request.into_inner();
        let place = request.mailbox.unwrap();
        let list = |state: &mut State, node: usize| {
            state.lives(&place.mailbox_id, place.database_id).map_err(moved)?;
            let after: u32 = request.page_token.parse().unwrap_or(0);
            let messages = &state.boxes[&place.mailbox_id];
            let mut page: Vec<_> = messages.iter().filter(|message| message.uid > after).collect();
            let more = page.len() > PAGE;
            page.truncate(PAGE);
            let next = page.last().filter(|_| more).map(|message| message.uid.to_string());
            let messages = page.into_iter().map(meta).collect();
            Ok(ListMessagesResponse {
                messages,
                next_page_token: next.unwrap_or_default(),
                token: Some(state.token(node, place.database_id)),
                ..ListMessagesResponse::default()
            })
        };
        self.act("list", place.database_id, list).await.map(Response::new)
    }

    type FetchMessageStream = Stream_<FetchMessageResponse>;

    async fn fetch_message(
        &self,
        request: Request<FetchMessageRequest>,
    ) -> Answer<Self::FetchMessageStream> {
        let request = request.into_inner();
        let place = request.mailbox.unwrap();
        let next = |state: &State| state.faults.get(&self.index)?.front().cloned();
        let flip = matches!(next(&self.state()), Some(Fault::FlipBit));
        let fetch = |state: &mut State, node: usize| {
            state.lives(&place.mailbox_id, place.database_id).map_err(moved)?;
            let messages = &state.boxes[&place.mailbox_id];
            let message = messages.iter().find(|message| message.uid == request.uid).cloned();
            let message =
                message.ok_or(Problem::new(Reason::MessageNotFound, "no such message"))?;
            Ok((message, state.token(node, place.database_id)))
        };
        let (message, token) = self.act("fetch", place.database_id, fetch).await?;
        let mut frames = Vec::new();
        for (number, data) in message.content.chunks(limits::CHUNK_BYTES_MAX).enumerate() {
            let mut data = data.to_vec();
            let crc32 = crc32fast::hash(&data);
            data[0] ^= u8::from(flip);
            let offset = (number * limits::CHUNK_BYTES_MAX) as u64;
            let chunk = Some(BodyChunk { offset, data: data.into(), crc32 });
            let meta = (number == 0).then(|| meta(&message));
            let token = Some(token.clone());
            frames.push(Ok(FetchMessageResponse {
                message: meta,
                chunk,
                token,
                ..FetchMessageResponse::default()
            }));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(frames))))
    }

    async fn store_flags(&self, request: Request<StoreFlagsRequest>) -> Answer<StoreFlagsResponse> {
        let request = request.into_inner();
        let place = request.mailbox.unwrap();
        let store = |state: &mut State, node: usize| {
            let uids = request.uids.clone().unwrap();
            let mut changed = Vec::new();
            for message in state.boxes.get_mut(&place.mailbox_id).unwrap() {
                if uids.contains(message.uid) {
                    message.flags |= request.system_flags;
                    changed.push(message.uid);
                }
            }
            let changed = Some(changed.into_iter().collect());
            let token = Some(state.token(node, place.database_id));
            Ok(StoreFlagsResponse { changed, token, ..StoreFlagsResponse::default() })
        };
        self.act("flags", place.database_id, store).await.map(Response::new)
    }

    async fn expunge_messages(
        &self,
        request: Request<ExpungeMessagesRequest>,
    ) -> Answer<ExpungeMessagesResponse> {
        let request = request.into_inner();
        let place = request.mailbox.unwrap();
        let expunge = |state: &mut State, node: usize| {
            let uids = request.uids.clone().unwrap();
            let messages = state.boxes.get_mut(&place.mailbox_id).unwrap();
            let mut vanished = HashSet::new();
            messages.retain(|message| {
                let kept = !uids.contains(message.uid);
                let _ = kept || vanished.insert(message.uid);
                kept
            });
            let token = Some(state.token(node, place.database_id));
            let vanished = Some(vanished.into_iter().collect());
            Ok(ExpungeMessagesResponse { vanished, token, ..Default::default() })
        };
        self.act("expunge", place.database_id, expunge).await.map(Response::new)
    }

    // What this fake does not know.

    type WatchMailboxesStream = Stream_<WatchMailboxesResponse>;

    async fn watch_mailboxes(
        &self,
        _: Request<WatchMailboxesRequest>,
    ) -> Answer<Self::WatchMailboxesStream> {
        Err(unknown())
    }

    async fn update_mailbox(
        &self,
        _: Request<UpdateMailboxRequest>,
    ) -> Answer<UpdateMailboxResponse> {
        Err(unknown())
    }

    async fn get_quota(&self, _: Request<GetQuotaRequest>) -> Answer<GetQuotaResponse> {
        Err(unknown())
    }

    async fn update_folder(&self, _: Request<UpdateFolderRequest>) -> Answer<UpdateFolderResponse> {
        Err(unknown())
    }

    async fn delete_folder(&self, _: Request<DeleteFolderRequest>) -> Answer<DeleteFolderResponse> {
        Err(unknown())
    }

    async fn rename_inbox(&self, _: Request<RenameInboxRequest>) -> Answer<RenameInboxResponse> {
        Err(unknown())
    }

    async fn list_subscriptions(
        &self,
        _: Request<ListSubscriptionsRequest>,
    ) -> Answer<ListSubscriptionsResponse> {
        Err(unknown())
    }

    async fn set_subscription(
        &self,
        _: Request<SetSubscriptionRequest>,
    ) -> Answer<SetSubscriptionResponse> {
        Err(unknown())
    }

    async fn get_folder_rights(
        &self,
        _: Request<GetFolderRightsRequest>,
    ) -> Answer<GetFolderRightsResponse> {
        Err(unknown())
    }

    async fn set_folder_rights(
        &self,
        _: Request<SetFolderRightsRequest>,
    ) -> Answer<SetFolderRightsResponse> {
        Err(unknown())
    }

    async fn append_batch(&self, _: Request<AppendBatchRequest>) -> Answer<AppendBatchResponse> {
        Err(unknown())
    }

    async fn search_messages(
        &self,
        _: Request<SearchMessagesRequest>,
    ) -> Answer<SearchMessagesResponse> {
        Err(unknown())
    }

    async fn copy_messages(&self, _: Request<CopyMessagesRequest>) -> Answer<CopyMessagesResponse> {
        Err(unknown())
    }

    async fn move_messages(&self, _: Request<MoveMessagesRequest>) -> Answer<MoveMessagesResponse> {
        Err(unknown())
    }

    async fn get_changes(&self, _: Request<GetChangesRequest>) -> Answer<GetChangesResponse> {
        Err(unknown())
    }

    async fn get_folder_changes(
        &self,
        _: Request<GetFolderChangesRequest>,
    ) -> Answer<GetFolderChangesResponse> {
        Err(unknown())
    }

    async fn list_recoverable_items(
        &self,
        _: Request<ListRecoverableItemsRequest>,
    ) -> Answer<ListRecoverableItemsResponse> {
        Err(unknown())
    }

    async fn restore_recoverable_items(
        &self,
        _: Request<RestoreRecoverableItemsRequest>,
    ) -> Answer<RestoreRecoverableItemsResponse> {
        Err(unknown())
    }

    async fn search_message_trace(
        &self,
        _: Request<SearchMessageTraceRequest>,
    ) -> Answer<SearchMessageTraceResponse> {
        Err(unknown())
    }

    async fn purge_recoverable_items(
        &self,
        _: Request<PurgeRecoverableItemsRequest>,
    ) -> Answer<PurgeRecoverableItemsResponse> {
        Err(unknown())
    }
}

fn unknown() -> Status {
    Status::unimplemented("the fake does not know it")
}

fn meta(message: &Message) -> MessageMeta {
    MessageMeta {
        uid: message.uid,
        size: message.content.len() as u64,
        blake3: Bytes::copy_from_slice(blake3::hash(&message.content).as_bytes()),
        system_flags: message.flags,
        ..MessageMeta::default()
    }
}
