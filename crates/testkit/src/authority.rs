//! An authority for the certificates of a cluster on this machine.
//!
//! Every node and every operator shows a certificate that one authority has signed, and trusts
//! nobody else's. A local cluster gets an authority of its own, whose key is never written down:
//! what it signed is all that it will ever sign.
//!
//! ```text
//! tls/authority.pem     whom everybody trusts
//! tls/NODE.pem, .key    what a node shows: it names the node's address
//! tls/operator.pem, .key  what dagctl and tests show
//! ```

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The folder below a cluster's folder.
pub const FOLDER: &str = "tls";
/// Whose files `dagctl` shows.
pub const OPERATOR: &str = "operator";

/// Signs certificates, as long as it is in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new one, with a key of its own.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = named(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its own certificate, for those who are to trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a node, an operator or a front end.
    pub fn issue(&self, name: &str, addresses: &[IpAddr]) -> anyhow::Result<Issued> {
        self.sign(named(name, addresses)?)
    }

    /// One that holds until then.
    pub fn issue_until(
        &self,
        name: &str,
        addresses: &[IpAddr],
        end: SystemTime,
    ) -> anyhow::Result<Issued> {
        let mut params = named(name, addresses)?;
        params.not_after =
            date_time_ymd(1970, 1, 1) + end.duration_since(SystemTime::UNIX_EPOCH)?;
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> anyhow::Result<Issued> {
        // A node serves, and it calls the others.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn named(name: &str, addresses: &[IpAddr]) -> anyhow::Result<CertificateParams> {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(addresses)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    Ok(params)
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`; the key is for its owner alone.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        let (certificate, key) =
            (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&certificate, &self.certificate)
            .with_context(|| format!("write {}", certificate.display()))?;
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&key).and_then(|mut file| file.write_all(self.key.as_bytes()));
        written.with_context(|| format!("write {}", key.display()))
    }
}

/// The files that a program shows and trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whom it trusts.
    pub authority: PathBuf,
    /// What it shows.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Those of a node or of the operator, in a cluster's folder.
    pub fn of(cluster: &Path, name: &str) -> Self {
        let folder = cluster.join(FOLDER);
        Self {
            authority: folder.join("authority.pem"),
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        }
    }

    /// What a gRPC client needs.
    pub fn client(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
        let identity = Identity::from_pem(read(&self.certificate)?, read(&self.key)?);
        let authority = Certificate::from_pem(read(&self.authority)?);
        Ok(ClientTlsConfig::new().ca_certificate(authority).identity(identity))
    }
}

/// Makes an authority for a cluster, and the files of each of its nodes and of the operator.
pub fn provide<'a>(
    cluster: &Path,
    nodes: impl Iterator<Item = (&'a str, Vec<IpAddr>)>,
) -> anyhow::Result<()> {
    let folder = cluster.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let authority = Authority::new("Holdfast on this machine")?;
    fs::write(folder.join("authority.pem"), authority.pem())?;
    for (name, addresses) in nodes {
        authority.issue(name, &addresses)?.write(&folder, name)?;
    }
    authority.issue(OPERATOR, &[])?.write(&folder, OPERATOR)
}
