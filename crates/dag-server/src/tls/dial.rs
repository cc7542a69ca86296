//! How this node connects to others: with TLS and its own certificate, or plainly.

use std::sync::Arc;

use tonic::transport::Endpoint;

use super::Tls;

/// Makes endpoints of other nodes' addresses.
#[derive(Clone, Default)]
pub struct Dial {
    tls: Option<Arc<Tls>>,
}

impl Dial {
    /// With TLS where there is TLS.
    pub fn new(tls: Option<Arc<Tls>>) -> Self {
        Self { tls }
    }

    /// An address with the scheme that it is reached by.
    pub fn url(&self, address: &str) -> String {
        format!("{}{address}", self.scheme())
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https://" } else { "http://" }
    }

    /// Where the certificates are of another generation, channels have to be made anew.
    pub fn generation(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.current().generation)
    }

    /// What connects to a URL. A node with TLS never falls back to none because somebody named a
    /// URL without it.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint, String> {
        if !url.starts_with(self.scheme()) {
            return Err(format!(
                "{url} does not begin with {}: all nodes of a DAG have TLS, or none",
                self.scheme()
            ));
        }
        let endpoint = Endpoint::from_shared(url.to_owned());
        let endpoint = endpoint.map_err(|error| format!("{url} is no endpoint: {error}"))?;
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let with_tls = endpoint.tls_config(tls.current().outward.clone());
        with_tls.map_err(|error| format!("use TLS for {url}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_the_other_scheme_is_refused() {
        let plain = Dial::default();
        assert_eq!(plain.url("127.0.0.1:1"), "http://127.0.0.1:1");
        assert!(plain.endpoint("http://127.0.0.1:1").is_ok());
        let refused = plain.endpoint("https://127.0.0.1:1").unwrap_err();
        assert!(refused.contains("does not begin with http://"), "{refused}");
    }
}
