//! A listener with TLS: who comes in has shaken hands.
//!
//! The handshakes are made here and not inside tonic, so that each uses the certificates of its
//! moment, and so that somebody who speaks without TLS is told so instead of seeing a connection
//! that closes. One slow hand holds nobody else up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, TcpIncoming};

use super::{HANDSHAKE, Tls};
use crate::clock;

/// Handshakes under way at one listener.
const HANDSHAKES_MAX: usize = 1024;
/// Connections that have shaken hands and were not taken yet.
const QUEUE: usize = 16;
/// How long somebody who was refused may take to read why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The first byte of TLS: a record with a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
/// What anybody without TLS is told.
const TLS_IS_SPOKEN: &str = "this listener of Holdfast speaks TLS: connect with https and the \
                             authority of the DAG (dagctl: --tls-authority)";

/// Who has to show what.
#[derive(Clone)]
pub enum Door {
    /// Nothing is asked and nothing is hidden.
    Open,
    /// Other nodes and operators.
    Members(Arc<Tls>),
    /// Front ends.
    Clients(Arc<Tls>),
}

impl Door {
    /// That of other nodes and of operators.
    pub fn for_members(tls: Option<Arc<Tls>>) -> Self {
        tls.map_or(Self::Open, Self::Members)
    }

    /// That of front ends.
    pub fn for_clients(tls: Option<Arc<Tls>>) -> Self {
        tls.map_or(Self::Open, Self::Clients)
    }

    /// With the certificates of this moment; `None` without TLS.
    fn acceptor(&self) -> Option<TlsAcceptor> {
        match self {
            Self::Open => None,
            Self::Members(tls) => Some(tls.current().members.clone().into()),
            Self::Clients(tls) => Some(tls.current().clients.clone().into()),
        }
    }
}

/// Serves what comes through a door, until told to stop.
pub async fn serve(
    services: Router,
    listener: TcpListener,
    door: Door,
    stopping: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let stopped = stopping.clone().cancelled_owned();
    if matches!(door, Door::Open) {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        return services.serve_with_incoming_shutdown(incoming, stopped).await;
    }
    let (sender, accepted) = mpsc::channel(QUEUE);
    tokio::spawn(accept(listener, door, sender, stopping));
    services.serve_with_incoming_shutdown(ReceiverStream::new(accepted), stopped).await
}

type Accepted = mpsc::Sender<io::Result<TlsStream<TcpStream>>>;

async fn accept(
    listener: TcpListener,
    door: Door,
    accepted: Accepted,
    stopping: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let told = Arc::new(AtomicU64::new(0));
    loop {
        let permit = room.clone().acquire_owned().await.expect("never closed");
        let connection = tokio::select! {
            () = stopping.cancelled() => return,
            connection = listener.accept() => connection,
        };
        let Ok((stream, from)) = connection else {
            // No file handles are left, for instance: trying again at once would not help.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (door, accepted, told) = (door.clone(), accepted.clone(), told.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE, admit(stream, &door)).await {
                Ok(Ok(Some(stream))) => drop(accepted.send(Ok(stream)).await),
                Ok(Ok(None)) => tracing::info!(peer = %from, "turned away: speaks without TLS"),
                Ok(Err(error)) => tell(from, &error, &told),
                Err(_) => tracing::debug!(peer = %from, "did not shake hands in time"),
            }
            drop(permit);
        });
    }
}

/// A connection that was closed before anything was said is a probe, and no news. Who is turned
/// away comes back at once, so one line in ten seconds has to do for all.
fn tell(from: SocketAddr, error: &io::Error, told: &AtomicU64) {
    let now = clock::wall().0 / 10_000;
    match error.kind() {
        io::ErrorKind::InvalidData if told.swap(now, Ordering::Relaxed) != now => {
            tracing::warn!(peer = %from, %error, "turned away by TLS")
        }
        _ => tracing::debug!(peer = %from, %error, "gone while shaking hands"),
    }
}

/// Shakes hands; `None` with those who speak without TLS.
async fn admit(stream: TcpStream, door: &Door) -> io::Result<Option<TlsStream<TcpStream>>> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match door.acceptor().filter(|_| first[0] == HANDSHAKE_RECORD) {
        Some(acceptor) => match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(Some(stream)),
            Err((error, stream)) => {
                let _ = timeout(LAST_WORDS, hear_out(stream)).await;
                Err(error)
            }
        },
        None => turn_away(stream).await.map(|()| None),
    }
}

/// Says in the caller's own protocol what is wrong.
async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    let mut said = [0; 256];
    let length = stream.read(&mut said).await?;
    if said[..length].starts_with(b"PRI") {
        stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await?;
        // The call itself comes after the greeting; the answer has to find it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(&go_away(TLS_IS_SPOKEN)).await?;
    } else {
        let length = TLS_IS_SPOKEN.len() + 1;
        let head = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n");
        let text = format!("{head}Connection: close\r\n\r\n{TLS_IS_SPOKEN}\n");
        stream.write_all(text.as_bytes()).await?;
    }
    hear_out(stream).await
}

/// Ends a connection from this side and reads the other to its end: what is unread when a
/// connection closes would take the last answer with it, and a caller that was refused would see
/// no more than a broken pipe.
async fn hear_out(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut said = [0; 256];
    while stream.read(&mut said).await? > 0 {}
    Ok(())
}

/// Types of HTTP/2 frames (RFC 9113 section 6).
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// RFC 9113 section 7: what lies below the connection is not secure enough.
const INADEQUATE_SECURITY: u32 = 0xc;

/// The frame that ends a connection, with a reason for people (RFC 9113 section 6.8).
fn go_away(reason: &str) -> Vec<u8> {
    let length = (8 + reason.len()) as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[GOAWAY, 0]);
    // On stream 0, and none was worked on.
    frame.extend_from_slice(&[0; 8]);
    frame.extend_from_slice(&INADEQUATE_SECURITY.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_that_ends_a_connection_has_its_length_and_its_reason() {
        let frame = go_away("no");
        let expected: [u8; 17] = [0, 0, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12];
        assert_eq!(frame[..17], expected);
        assert_eq!(&frame[17..], b"no");
    }

    #[tokio::test]
    async fn whoever_speaks_http_without_tls_is_told_in_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let turned_away = async { turn_away(listener.accept().await.unwrap().0).await.unwrap() };
        let asked = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (answer, ()) = tokio::join!(asked, turned_away);
        assert!(answer.ends_with(&format!("{TLS_IS_SPOKEN}\n")), "{answer}");
    }
}
