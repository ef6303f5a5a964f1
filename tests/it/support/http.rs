//! HTTP/1.1 as it travels: requests written byte by byte, answers taken apart, over clear text or TLS.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Self { status, head, body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunked(&answer.body);
        }
        Some(answer)
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(&String::from_utf8_lossy(&bytes[..end]), 16).expect("the length of a chunk");
        let chunk = &bytes[end + 2..];
        if length == 0 || chunk.len() < length + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..length]);
        bytes = &chunk[length + 2..];
    }
    body
}

/// Reads to the end of the connection; `None` when it ends without an answer.
pub async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A connection that is reset has given all that it gives.
    let _ = stream.read_to_end(&mut bytes).await;
    Answer::read(&bytes)
}

/// Sends one request with these lines of its head, the first one included, and a body, and reads the answer. The connection
/// ends after it.
pub async fn ask_over(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), lines: &[&str], body: &[u8]) -> Answer {
    let mut request = format!("{}\r\nConnection: close\r\n", lines.join("\r\n"));
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).await.expect("the request is sent");
    // A refusal may come before the body has been taken.
    let _ = stream.write_all(body).await;
    answer(stream).await.expect("an answer")
}

/// As [`ask_over`], in clear text.
pub async fn ask(address: &str, lines: &[&str], body: &[u8]) -> Answer {
    ask_over(&mut TcpStream::connect(address).await.expect("a connection"), lines, body).await
}

/// What a client brings to a handshake.
pub struct Tls<'a> {
    /// Folder with `ca.pem`.
    pub trust: &'a Path,
    /// Folder with `client.pem` and its key.
    pub identity: Option<&'a Path>,
    /// What it would speak, best first.
    pub protocols: &'a [&'a str],
}

impl Tls<'_> {
    /// Shakes hands with `localhost`. A refusal of our certificate shows at the first read only.
    pub async fn connect(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        redkeep::server::install_crypto();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.trust.join("ca.pem")).expect("an authority")).expect("an authority");
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(folder) => {
                let chain = vec![CertificateDer::from_pem_file(folder.join("client.pem")).expect("a certificate")];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(folder.join("client-key.pem")).expect("a key")).expect("a pair")
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").expect("a name"), stream).await
    }
}
