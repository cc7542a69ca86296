//! Whether a node answers.

use std::net::SocketAddr;
use std::time::Duration;

use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::admin::v1::{GetNodeRequest, GetNodeResponse};
use tonic::transport::{ClientTlsConfig, Endpoint};

const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the node at this address answers `GetNode` now.
pub async fn answers(admin: SocketAddr, tls: Option<&ClientTlsConfig>) -> bool {
    ask(admin, tls).await.is_ok()
}

/// What the node at this address says of itself.
pub async fn get_node(admin: SocketAddr) -> anyhow::Result<GetNodeResponse> {
    ask(admin, None).await
}

async fn ask(admin: SocketAddr, tls: Option<&ClientTlsConfig>) -> anyhow::Result<GetNodeResponse> {
    let endpoint = match tls {
        None => Endpoint::from_shared(format!("http://{admin}"))?,
        Some(tls) => Endpoint::from_shared(format!("https://{admin}"))?.tls_config(tls.clone())?,
    };
    let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await?;
    let answer = DagAdminServiceClient::new(channel).get_node(GetNodeRequest {}).await?;
    Ok(answer.into_inner())
}
