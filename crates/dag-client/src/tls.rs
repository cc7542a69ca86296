//! TLS of a client: whom it trusts, what it shows, and what to make of it when that fails.
//!
//! A node's certificate names the address that it is reached by, so a node is checked under the
//! host of its endpoint. What TLS libraries say when something does not fit helps nobody, and parts
//! of it come from the other side; [`Trouble`] says it in words.

use std::error::Error;
use std::fmt;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// Certificates for connections to a DAG that has TLS.
#[derive(Clone)]
pub struct Tls {
    config: ClientTlsConfig,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read {path}: {source}")]
pub struct Unreadable {
    path: String,
    source: std::io::Error,
}

impl Tls {
    /// Trusts nodes of this authority; PEM, one certificate or several.
    pub fn new(authority: impl AsRef<[u8]>) -> Self {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        Self { config }
    }

    /// Shows this certificate to nodes that ask for one; both PEM.
    pub fn identity(self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self { config: self.config.identity(Identity::from_pem(certificate, key)) }
    }

    /// From files: the authority's, and a certificate with its key.
    pub fn read(authority: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, Unreadable> {
        let read = |path: &Path| {
            let path_text = path.display().to_string();
            std::fs::read(path).map_err(|source| Unreadable { path: path_text, source })
        };
        let tls = Self::new(read(authority)?);
        match identity {
            None => Ok(tls),
            Some((certificate, key)) => Ok(tls.identity(read(certificate)?, read(key)?)),
        }
    }

    /// Adds it to an `https` endpoint. The error is in words.
    pub fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, String> {
        let secured = endpoint.tls_config(self.config.clone());
        secured.map_err(|error| format!("cannot use the certificates: {}", chain(&error)))
    }
}

/// Keys are in it.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// What is wrong between a client and a node, as far as it is about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The node has TLS and the client was not told to use it.
    NodeSpeaksTls,
    /// The client uses TLS and the node has none.
    NodeSpeaksPlainly,
    /// The node takes only those who show a certificate.
    CertificateWanted,
    /// The node does not take the certificate that was shown.
    CertificateRefused,
    /// The client does not trust whoever signed the node's certificate.
    NodeOfAnotherAuthority,
    /// The node's certificate does not name the address.
    NodeOfAnotherName,
    /// The node's certificate is over, or not valid yet.
    NodeExpired,
}

/// What stands in the words of an error, and what it means. Causes get lost on their way through
/// HTTP/2, so that their words are all that is left.
const SIGNS: [(&str, Trouble); 13] = [
    ("this listener of Holdfast speaks TLS", Trouble::NodeSpeaksTls),
    ("InvalidContentType", Trouble::NodeSpeaksPlainly),
    ("alert: CertificateRequired", Trouble::CertificateWanted),
    ("alert: UnknownCA", Trouble::CertificateRefused),
    ("alert: DecryptError", Trouble::CertificateRefused),
    ("alert: BadCertificate", Trouble::CertificateRefused),
    ("alert: CertificateExpired", Trouble::CertificateRefused),
    ("alert: CertificateUnknown", Trouble::CertificateRefused),
    ("alert: UnsupportedCertificate", Trouble::CertificateRefused),
    ("invalid peer certificate: UnknownIssuer", Trouble::NodeOfAnotherAuthority),
    ("invalid peer certificate: BadSignature", Trouble::NodeOfAnotherAuthority),
    ("invalid peer certificate: certificate not valid for name", Trouble::NodeOfAnotherName),
    ("invalid peer certificate: certificate expired", Trouble::NodeExpired),
];

impl Trouble {
    /// What an error has to do with TLS; `None` where nothing.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let words = chain(error);
        SIGNS.iter().find(|(sign, _)| words.contains(sign)).map(|(_, trouble)| *trouble)
    }
}

impl Trouble {
    /// Whether it ended the connection before any call was read.
    pub(crate) fn came_first(self) -> bool {
        self != Self::NodeSpeaksPlainly
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeSpeaksTls => "the node speaks TLS, and the connection was made without",
            Self::NodeSpeaksPlainly => "the node has no TLS, and the connection was made with it",
            Self::CertificateWanted => {
                "the node lets in only who shows a certificate of its authority, and none was shown"
            }
            Self::CertificateRefused => {
                "the node refuses the certificate that was shown: it is of another authority, over, \
                 or not for clients"
            }
            Self::NodeOfAnotherAuthority => {
                "the node's certificate is not of the authority that is trusted"
            }
            Self::NodeOfAnotherName => "the node's certificate does not name this address",
            Self::NodeExpired => "the node's certificate has expired",
        })
    }
}

/// An error with its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_found_in_the_words_of_any_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("transport error")]
        struct Outer(#[source] std::io::Error);
        let cause = "received fatal alert: CertificateRequired";
        let error = Outer(std::io::Error::other(cause));
        assert_eq!(Trouble::of(&error), Some(Trouble::CertificateWanted));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(Trouble::of(&Outer(refused)), None);
    }

    #[test]
    fn keys_are_not_printed() {
        let tls = Tls::new("authority").identity("certificate", "secret");
        assert_eq!(format!("{tls:?}"), "Tls");
    }
}
