//! TLS: who may connect to this node, and how it connects to others.
//!
//! A DAG has one authority. Each node shows a certificate of it, to those who connect and to those
//! it connects to, and takes nobody else's: [`files`] reads and checks them. Which *node* speaks is
//! still told by the identity at the head of each stream (see [`crate::peers`]); TLS is below that,
//! keeps strangers out, and keeps what is said private.
//!
//! ```text
//!   listener ─► door (handshake) ─► gRPC services        Tls::current ◄── refresh: SIGHUP, or the
//!   peers, admin, create-mailbox ─► dial ─► other nodes        ▲           files are different
//!                                     └────────────────────────┘
//! ```
//! The files may be exchanged while the node runs. Whatever connects from then on uses the new
//! ones; connections that exist go on with what they were opened with.

pub mod dial;
pub mod door;
pub mod files;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::settings::Settings;
use files::{Files, Guests, Places, Warning};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// How long shaking hands may take, on either side.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What this node shows and whom it trusts, as of now.
pub struct Tls {
    places: Places,
    front_ends: Guests,
    current: RwLock<Arc<Current>>,
    /// Why the files that lie there now are not the ones in use.
    trouble: Mutex<Option<String>>,
}

/// One reading of the files, in the forms in which it is used.
struct Current {
    files: Files,
    /// What the door of nodes and operators shows and asks for.
    members: Arc<ServerConfig>,
    /// What that of front ends does.
    clients: Arc<ServerConfig>,
    outward: ClientTlsConfig,
    /// Rises with each reading that is different.
    generation: u64,
}

impl Current {
    fn new(files: Files, front_ends: Guests, generation: u64) -> Result<Self, String> {
        let identity = Identity::from_pem(&files.texts.certificate, &files.texts.key);
        let outward = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&files.texts.authority))
            .identity(identity)
            .timeout(HANDSHAKE);
        let (members, clients) = (files.server(Guests::Members)?, files.server(front_ends)?);
        Ok(Self { files, members, clients, outward, generation })
    }
}

impl Tls {
    /// Reads the files that the settings name; `None` where they name none. The error has everything
    /// that is wrong.
    pub fn open(settings: &Settings) -> Result<Option<Arc<Self>>, Vec<String>> {
        let Some(wanted) = &settings.tls else { return Ok(None) };
        let listen = &settings.listen;
        let shown: [(&'static str, SocketAddr); 3] =
            [("peers", listen.peers), ("clients", listen.clients), ("admin", listen.admin)];
        let places = Places::new(wanted, &settings.root, &shown)?;
        let front_ends = match wanted.clients_anonymous {
            true => Guests::Anyone,
            false => Guests::Clients,
        };
        let current = Current::new(places.read()?, front_ends, 1);
        let current = current.map_err(|problem| vec![problem])?;
        Ok(Some(Arc::new(Self {
            places,
            front_ends,
            current: RwLock::new(Arc::new(current)),
            trouble: Mutex::default(),
        })))
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().expect(UNPOISONED).clone()
    }

    /// Reads the files again. What cannot be used is said, and what is in use stays.
    pub fn refresh(&self) {
        let old = self.current();
        let read = self.places.read().map_err(|problems| problems.join("; "));
        let trouble = match read {
            Ok(files) if files.texts == old.files.texts && files.warnings == old.files.warnings => {
                None
            }
            Ok(files) => self.replace(&old, files).err(),
            Err(problems) => Some(problems),
        };
        let mut known = self.trouble.lock().expect(UNPOISONED);
        if let Some(trouble) = trouble.as_ref().filter(|trouble| known.as_ref() != Some(*trouble)) {
            tracing::error!(%trouble, "the files of TLS cannot be used; those read before stay");
        }
        *known = trouble;
    }

    fn replace(&self, old: &Current, files: Files) -> Result<(), String> {
        let renewed = files.texts != old.files.texts;
        let new = Current::new(files, self.front_ends, old.generation + u64::from(renewed))?;
        if renewed {
            tracing::info!("the files of TLS were read again; new connections use them");
        }
        for warning in new.files.warnings.iter().filter(|w| !old.files.warnings.contains(w)) {
            tracing::warn!(code = warning.code, "{}", warning.text);
        }
        *self.current.write().expect(UNPOISONED) = Arc::new(new);
        Ok(())
    }

    /// What an operator should do something about.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.current().files.warnings.clone();
        if let Some(trouble) = &*self.trouble.lock().expect(UNPOISONED) {
            let text = format!("the files of TLS were changed and cannot be used: {trouble}");
            warnings.push(Warning { code: "TLS_FILES_UNUSABLE", text });
        }
        warnings
    }
}

/// Reads the files again when asked to by SIGHUP, and by itself from time to time, because whoever
/// renews certificates does not always tell. Without TLS, SIGHUP changes nothing.
pub async fn keep_fresh(tls: Option<Arc<Tls>>, mut hangup: Signal, stopping: CancellationToken) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = hangup.recv() => {}
            _ = look.tick() => {}
        }
        if let Some(tls) = tls.clone() {
            // Files are read on a thread that may wait for a disk.
            let read = tokio::task::spawn_blocking(move || tls.refresh());
            if let Err(error) = read.await {
                tracing::error!(%error, "reading the files of TLS again failed");
            }
        }
    }
}

const UNPOISONED: &str = "no holder of this lock panics";
