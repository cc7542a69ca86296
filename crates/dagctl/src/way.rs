//! How `dagctl` reaches a node: plainly, or with TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dag_api::Problem;
use dag_client::tls::{Tls, Trouble};
use testkit::LocalCluster;
use testkit::record::FILE;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::exit::Exit;
use crate::failure::Failure;

/// Certificates on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Whose nodes to trust (PEM); with it, TLS is spoken
    #[arg(long, global = true, value_name = "FILE", env = "HOLDFAST_TLS_AUTHORITY")]
    pub tls_authority: Option<PathBuf>,
    /// The certificate to show to the nodes (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "HOLDFAST_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "HOLDFAST_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// What the files say; `None` where none is named.
    fn read(&self) -> Result<Option<Tls>, Failure> {
        let identity = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate.as_path(), key.as_path())),
            (None, None) => None,
            (Some(_), None) => return Err(incomplete("--tls-key")),
            (None, Some(_)) => return Err(incomplete("--tls-certificate")),
        };
        match &self.tls_authority {
            None if identity.is_some() => Err(incomplete("--tls-authority")),
            None => Ok(None),
            Some(authority) => read(authority, identity).map(Some),
        }
    }
}

fn incomplete(missing: &str) -> Failure {
    Failure::new(Exit::Usage, "Cannot use TLS with a part of its files.")
        .why(format!("{missing} is missing"))
        .next("dagctl --tls-authority FILE --tls-certificate FILE --tls-key FILE ...")
}

fn read(authority: &Path, identity: Option<(&Path, &Path)>) -> Result<Tls, Failure> {
    Tls::read(authority, identity)
        .map_err(|error| Failure::new(Exit::Usage, "Cannot read the files of TLS.").why(error))
}

/// The way to nodes.
#[derive(Debug, Clone, Default)]
pub struct Way {
    tls: Option<Tls>,
}

impl Way {
    /// As the command line says, or else as the local cluster in this folder speaks.
    pub fn find(args: &TlsArgs, folder: Option<&Path>) -> Result<Self, Failure> {
        if let Some(tls) = args.read()? {
            return Ok(Self { tls: Some(tls) });
        }
        match folder.filter(|folder| folder.join(FILE).exists()) {
            Some(folder) => Self::of(&LocalCluster::open(folder)?),
            None => Ok(Self::default()),
        }
    }

    /// To the nodes of a local cluster.
    pub fn of(cluster: &LocalCluster) -> Result<Self, Failure> {
        let Some(files) = cluster.operator() else { return Ok(Self::default()) };
        let tls = read(&files.authority, Some((&files.certificate, &files.key)))?;
        Ok(Self { tls: Some(tls) })
    }

    /// Certificates for a mail client.
    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// An address as a URL.
    pub fn url(&self, address: impl std::fmt::Display) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Connects. The error says what people can do about it.
    pub async fn connect(
        &self,
        address: SocketAddr,
        shape: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Channel, Status> {
        let endpoint = Endpoint::from_shared(self.url(address))
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let endpoint = match &self.tls {
            None => endpoint,
            Some(tls) => tls.secure(endpoint).map_err(Status::invalid_argument)?,
        };
        let connected = shape(endpoint).connect().await;
        connected.map_err(|error| {
            Status::unavailable(match Trouble::of(&error) {
                Some(trouble) => advice(trouble),
                None => "does not answer".to_owned(),
            })
        })
    }
}

/// What a call's failure says about the way to the node, in words. What the node itself says stays
/// as it is.
pub fn lost(status: Status) -> Status {
    if Problem::from_status(&status).is_some() {
        return status;
    }
    match (Trouble::of(&status), status.code()) {
        (Some(trouble), _) => Status::unavailable(advice(trouble)),
        (None, Code::Unavailable) => Status::unavailable("does not answer"),
        (None, _) => status,
    }
}

/// What is wrong, and which option helps.
fn advice(trouble: Trouble) -> String {
    let option = match trouble {
        Trouble::NodeSpeaksTls => "name the authority with --tls-authority",
        Trouble::NodeSpeaksPlainly => {
            "leave --tls-authority and HOLDFAST_TLS_AUTHORITY out, or check the port"
        }
        Trouble::CertificateWanted | Trouble::CertificateRefused => {
            "show one of the DAG's authority with --tls-certificate and --tls-key"
        }
        Trouble::NodeOfAnotherAuthority => "check --tls-authority, and whose node this is",
        Trouble::NodeOfAnotherName => "use an address that it names, or issue it anew",
        Trouble::NodeExpired => "issue it anew (docs/tls.md)",
    };
    format!("{trouble}; {option}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_files_is_refused_and_the_missing_one_named() {
        let file = || Some(PathBuf::from("x"));
        let args = |authority, certificate, key| TlsArgs {
            tls_authority: authority,
            tls_certificate: certificate,
            tls_key: key,
        };
        for (args, missing) in [
            (args(file(), file(), None), "--tls-key is missing"),
            (args(file(), None, file()), "--tls-certificate is missing"),
            (args(None, file(), file()), "--tls-authority is missing"),
        ] {
            let failure = args.read().expect_err("refused").to_string();
            assert!(failure.contains(missing), "{failure}");
        }
        assert!(args(None, None, None).read().expect("no TLS").is_none());
    }
}
