//! The certificate that the feed shows to targets that replicate over TLS.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Longest file, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// Where certificate and key are, in PEM. They are read anew for each restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why the files cannot be used. Nothing of the key is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("the certificate or the key of the feed cannot be read: {0}")]
    File(String),
    /// There is no certificate.
    #[error("the file with the certificate of the feed holds none in PEM that can be read")]
    Certificate,
    /// There is no key, or it belongs to another certificate.
    #[error("the file with the key of the feed holds none in PEM that belongs to its certificate")]
    Key,
}

impl TlsFiles {
    /// Reads the files. Clients are asked for no certificate: a target is known by its address, and by having been told.
    ///
    /// # Errors
    ///
    /// [`TlsFault`], by condition.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsFault> {
        let (cert, key) = (read(&self.cert)?, read(&self.key)?);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert).collect::<Result<_, _>>().map_err(|_| TlsFault::Certificate)?;
        if chain.is_empty() {
            return Err(TlsFault::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsFault::Key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|_| TlsFault::Key)?;
        let config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|_| TlsFault::Key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|fault| TlsFault::File(fault.kind().to_string()))?;
    file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(|fault| TlsFault::File(fault.kind().to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    #[test]
    fn files_are_read_and_fit() {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (cert, key) = (write("cert", pair.cert.pem()), write("key", pair.signing_key.serialize_pem()));
        let stranger = write("stranger", other.signing_key.serialize_pem());
        let of = |cert: &PathBuf, key: &PathBuf| TlsFiles { cert: cert.clone(), key: key.clone() }.acceptor().map(drop);
        assert_eq!(of(&cert, &key), Ok(()));
        assert_eq!(of(&key, &key), Err(TlsFault::Certificate));
        assert_eq!(of(&cert, &cert), Err(TlsFault::Key));
        assert_eq!(of(&cert, &stranger), Err(TlsFault::Key));
        assert!(matches!(of(&cert, &folder.path().join("none")), Err(TlsFault::File(_))));
    }
}
