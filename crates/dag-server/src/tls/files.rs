//! The three files of TLS: read, and checked as the others will check them.
//!
//! A certificate that does not hold is found at the start of the node that has it, with its reason,
//! and not later on another node. So the node tries its own: as a client (the others' listeners ask
//! for one) and as a server under each address on which it listens.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};

/// The settings `[tls]`. A relative path starts at the node's `root`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// The node's certificate, and what stands between it and the authority; PEM.
    pub certificate: PathBuf,
    /// The certificate's private key; PEM.
    pub key: PathBuf,
    /// Whose certificates are taken from others; PEM, one or several.
    pub authority: PathBuf,
    /// Whose certificates open the front ends' listener too, and no other: what a front end shows
    /// is then of no use among nodes and operators. PEM, one or several.
    pub clients_authority: Option<PathBuf>,
    /// Lets front ends in that show no certificate. Nodes and operators always show one.
    pub clients_anonymous: bool,
}

/// A certificate that ends within this time is warned of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Something to do about the files that does not keep them from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Its stable name in a status.
    pub code: &'static str,
    /// What, and what to do.
    pub text: String,
}

/// Where the files are, and the addresses that the certificate has to name.
#[derive(Debug, Clone)]
pub struct Places {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    clients: Option<PathBuf>,
    shown: Vec<(&'static str, SocketAddr)>,
}

/// The files as they are on disk.
#[derive(Clone, PartialEq, Eq)]
pub struct Texts {
    /// Of the certificate.
    pub certificate: Vec<u8>,
    /// Of the key.
    pub key: Vec<u8>,
    /// Of the authority.
    pub authority: Vec<u8>,
    /// Of the front ends' authority; empty where there is none.
    pub clients: Vec<u8>,
}

/// A key is among them.
impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Texts")
    }
}

/// The files, fit for use.
#[derive(Debug)]
pub struct Files {
    /// As they were read.
    pub texts: Texts,
    /// What should be done about them.
    pub warnings: Vec<Warning>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    /// Those of the front ends too.
    client_roots: Arc<RootCertStore>,
}

impl Places {
    /// All three or none: the settings that are missing are named.
    pub fn new(
        settings: &TlsSettings,
        root: &Path,
        shown: &[(&'static str, SocketAddr)],
    ) -> Result<Self, Vec<String>> {
        let all = [
            ("certificate", &settings.certificate),
            ("key", &settings.key),
            ("authority", &settings.authority),
        ];
        let missing = all.iter().filter(|(_, path)| path.as_os_str().is_empty());
        let missing = missing.map(|(name, _)| {
            format!("tls.{name}: not given; certificate, key and authority belong together")
        });
        let missing: Vec<String> = missing.collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        // Who listens everywhere is reached by addresses that are not known here.
        let shown = shown.iter().filter(|(_, address)| !address.ip().is_unspecified());
        Ok(Self {
            certificate: root.join(&settings.certificate),
            key: root.join(&settings.key),
            authority: root.join(&settings.authority),
            clients: settings.clients_authority.as_ref().map(|path| root.join(path)),
            shown: shown.copied().collect(),
        })
    }

    /// Reads and checks everything; the error has all that is wrong.
    pub fn read(&self) -> Result<Files, Vec<String>> {
        let certificate = load("certificate", &self.certificate, chain);
        let key = load("key", &self.key, key);
        let authority = load("authority", &self.authority, roots);
        let clients = self.clients.as_ref().map(|path| load("clients_authority", path, roots));
        let clients = clients.unwrap_or_else(|| Ok((Vec::new(), RootCertStore::empty())));
        let files = match (certificate, key, authority, clients) {
            (Ok(certificate), Ok(key), Ok(authority), Ok(clients)) => {
                Files::new(certificate, key, authority, clients)
            }
            (certificate, key, authority, clients) => {
                let problems = [certificate.err(), key.err(), authority.err(), clients.err()];
                return Err(problems.into_iter().flatten().collect());
            }
        };
        let problems = self.problems(&files);
        if !problems.is_empty() {
            return Err(problems);
        }
        let warnings = self.warnings(&files);
        Ok(Files { warnings, ..files })
    }

    /// What the others would find wrong, and what TLS itself would.
    fn problems(&self, files: &Files) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) =
            CertifiedKey::from_der(files.chain.clone(), files.key.clone_key(), &provider())
        {
            let why = match error {
                Error::InconsistentKeys(_) => "is not the key of tls.certificate".to_owned(),
                error => format!("cannot be used: {error}"),
            };
            problems.push(format!("tls.key: {} {why}", self.key.display()));
        }
        let place = format!("tls.certificate: {}", self.certificate.display());
        let now = UnixTime::now();
        if let Err(error) = files.check_as_client(now) {
            problems.push(format!("{place} {}", words(&error, "clientAuth")));
            return problems;
        }
        for (name, address) in &self.shown {
            let Err(error) = files.check_as_server(*address, now) else { continue };
            problems.push(match &error {
                Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                ) => format!(
                    "{place} does not name {ip}, the address of listen.{name}, so nobody would \
                     accept it there; issue it with the subject alternative name IP:{ip}",
                    ip = address.ip()
                ),
                error => format!("{place} {}", words(error, "serverAuth")),
            });
        }
        problems
    }

    fn warnings(&self, files: &Files) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mode = std::fs::metadata(&self.key).map_or(0, |found| found.permissions().mode());
        if mode & 0o077 != 0 {
            let text = format!(
                "the private key {key} may be read by others than its owner (mode {mode:03o}); do: \
                 chmod 600 {key}",
                key = self.key.display(),
                mode = mode & 0o777,
            );
            warnings.push(Warning { code: "TLS_KEY_EXPOSED", text });
        }
        let now = UnixTime::now();
        let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
        if files.check_as_client(now).is_ok() && files.check_as_client(soon).is_err() {
            let text = format!(
                "the certificate {} ends within {} days; put a new one in its place, it is read \
                 without a restart",
                self.certificate.display(),
                SOON.as_secs() / 86_400
            );
            warnings.push(Warning { code: "TLS_CERTIFICATE_ENDS", text });
        }
        warnings
    }
}

/// A file, and what is in it.
type Loaded<T> = (Vec<u8>, T);

/// Who may come in through a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// Who shows a certificate of the authority.
    Members,
    /// Or one of the front ends' authority.
    Clients,
    /// Whoever reaches it.
    Anyone,
}

impl Files {
    fn new(
        (certificate, chain): Loaded<Vec<CertificateDer<'static>>>,
        (key, private): Loaded<PrivateKeyDer<'static>>,
        (authority, roots): Loaded<RootCertStore>,
        (clients, mut client_roots): Loaded<RootCertStore>,
    ) -> Self {
        client_roots.extend(roots.roots.iter().cloned());
        Self {
            texts: Texts { certificate, key, authority, clients },
            warnings: Vec::new(),
            chain,
            key: private,
            roots: Arc::new(roots),
            client_roots: Arc::new(client_roots),
        }
    }

    fn verifier(roots: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, String> {
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| error.to_string())
    }

    /// As another node's listener checks who connects.
    fn check_as_client(&self, at: UnixTime) -> Result<(), Error> {
        let verifier = Self::verifier(&self.roots).map_err(Error::General)?;
        verifier.verify_client_cert(&self.chain[0], &self.chain[1..], at).map(|_| ())
    }

    /// As whoever connects checks this node.
    fn check_as_server(&self, address: SocketAddr, at: UnixTime) -> Result<(), Error> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let name = ServerName::IpAddress(address.ip().into());
        let (end, between) = (&self.chain[0], &self.chain[1..]);
        verifier.verify_server_cert(end, between, &name, &[], at).map(|_| ())
    }

    /// What a listener shows, and whom it lets in. All clients are young enough for TLS 1.3, so nothing older is spoken.
    pub fn server(&self, guests: Guests) -> Result<Arc<ServerConfig>, String> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?;
        let builder = match guests {
            Guests::Members => builder.with_client_cert_verifier(Self::verifier(&self.roots)?),
            Guests::Clients => {
                builder.with_client_cert_verifier(Self::verifier(&self.client_roots)?)
            }
            Guests::Anyone => builder.with_no_client_auth(),
        };
        let mut server = builder
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| error.to_string())?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(server))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads a file and what is in it; the error names the setting.
fn load<T>(
    name: &str,
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Loaded<T>, String> {
    let text = std::fs::read(path)
        .map_err(|error| format!("tls.{name}: read {}: {error}", path.display()))?;
    let parsed =
        parse(&text).map_err(|problem| format!("tls.{name}: {} {problem}", path.display()))?;
    Ok((text, parsed))
}

fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".into()),
        Err(error) => Err(format!("is damaged: {error}")),
    }
}

fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| {
        "holds no private key in PEM (-----BEGIN PRIVATE KEY-----, without a passphrase)".into()
    })
}

fn roots(text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(text)? {
        roots.add(certificate).map_err(|error| format!("holds no usable authority: {error}"))?;
    }
    Ok(roots)
}

/// Why a certificate does not hold.
fn words(error: &Error, usage: &str) -> String {
    match error {
        Error::InvalidCertificate(reason) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "has expired; issue a new one".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "is not valid yet; compare its dates with this machine's clock".into()
            }
            CertificateError::UnknownIssuer => {
                "is not of tls.authority; every certificate of a DAG is of one authority".into()
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                format!(
                    "lacks the extended key usage {usage}; a node needs serverAuth and clientAuth"
                )
            }
            reason => format!("cannot be used: {reason}"),
        },
        error => format!("cannot be used: {error}"),
    }
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
