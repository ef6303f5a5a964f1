//! Certificates of the port, read again when they change: a renewal needs no restart.
//!
//! New files that do not fit together change nothing: what was good goes on, and the log says so once.

use crate::config::{ClientAuth, Tls};
use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Longest file that is read, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// What is spoken inside of TLS, in the order in which it is preferred.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why the files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server.tls.{key}: {what}")]
pub struct Fault {
    key: &'static str,
    what: String,
}

fn fault(key: &'static str, what: impl Into<String>) -> Fault {
    Fault { key, what: what.into() }
}

/// What the files hold.
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Tells files from others without keeping them.
type Fingerprint = [u8; 32];

impl Files {
    fn read(options: &Tls) -> Result<Self, Fault> {
        let client_ca = options.client_ca.as_deref().map(|path| read("client_ca", path)).transpose()?;
        Ok(Self { cert: read("cert", &options.cert)?, key: read("key", &options.key)?, client_ca })
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            context.update(&(part.map_or(0, Vec::len) as u64).to_be_bytes());
            context.update(part.map_or(&[], Vec::as_slice));
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        fingerprint
    }

    fn config(&self, client_auth: ClientAuth) -> Result<ServerConfig, Fault> {
        let chain = certificates("cert", &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| fault("key", "the file holds no private key in PEM that can be read; it must not be encrypted"))?;
        let builder = ServerConfig::builder();
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("client_ca", authorities)? {
                    roots.add(authority).map_err(|_| fault("client_ca", "the file holds a certificate that cannot be read"))?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
                let verifier = match client_auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    ClientAuth::Required => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|what| fault("client_ca", what.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|what| match what {
            rustls::Error::InconsistentKeys(_) => fault("key", "is not the key of the certificate in server.tls.cert"),
            rustls::Error::InvalidCertificate(_) => fault("cert", "the file holds a certificate that cannot be read"),
            what => fault("key", format!("cannot be used: {what}")),
        })?;
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Fault> {
    let told = |what: std::io::Error| fault(key, format!("the file cannot be read: {}", what.kind()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(told)?;
    if bytes.len() as u64 > FILE_BYTES { Err(fault(key, format!("the file has more than {FILE_BYTES} bytes"))) } else { Ok(bytes) }
}

fn certificates(key: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(fault(key, "the file holds no certificate in PEM that can be read")),
    }
}

/// The certificates as they are.
pub(super) struct Certificates {
    options: Tls,
    current: ArcSwap<ServerConfig>,
    opened: Fingerprint,
}

impl Certificates {
    /// Reads the files. The cryptography of the process must have been chosen.
    ///
    /// # Errors
    ///
    /// [`Fault`] with the key of the file.
    pub(super) fn open(options: Tls) -> Result<Self, Fault> {
        let files = Files::read(&options)?;
        let config = files.config(options.client_auth)?;
        Ok(Self { options, current: ArcSwap::from_pointee(config), opened: files.fingerprint() })
    }

    /// What the next handshake uses.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Looks at the files until the stop is asked for, and takes what has changed.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut watch = Watch { seen: Ok(self.opened), is_told: true };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let certificates = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                certificates.look(&mut watch);
                watch
            });
            match looked.await {
                Ok(after) => watch = after,
                Err(_) => return,
            }
        }
    }

    fn look(&self, watch: &mut Watch) {
        let files = Files::read(&self.options);
        let seen = files.as_ref().map(Files::fingerprint).map_err(Clone::clone);
        let is_new = seen != watch.seen;
        if !is_new && watch.is_told {
            return;
        }
        match files.and_then(|files| files.config(self.options.client_auth)) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!("new certificates were read and are used from the next connection on");
                *watch = Watch { seen, is_told: true };
            }
            // Files are replaced one after the other: only what stays broken is worth a word.
            Err(_) if is_new => *watch = Watch { seen, is_told: false },
            Err(fault) => {
                tracing::warn!(error = %fault, "the certificates have changed and cannot be used; those read before stay in use");
                *watch = Watch { seen, is_told: true };
            }
        }
    }
}

/// What was found at the last look.
struct Watch {
    seen: Result<Fingerprint, Fault>,
    is_told: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn open(options: Tls) -> Result<Certificates, Fault> {
        crate::server::install_crypto();
        Certificates::open(options)
    }

    fn files(folder: &Path, cert: &str, key: &str) -> Tls {
        let options = Tls { cert: folder.join("cert.pem"), key: folder.join("key.pem"), client_ca: None, client_auth: ClientAuth::Optional };
        std::fs::write(&options.cert, cert).unwrap();
        std::fs::write(&options.key, key).unwrap();
        options
    }

    #[test]
    fn files_that_cannot_be_used_are_told_by_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let ((cert, key), (_, other)) = (pair(), pair());
        for (cert, key, told) in [
            ("", key.as_str(), "server.tls.cert: the file holds no certificate"),
            (&key, &key, "server.tls.cert: the file holds no certificate"),
            (&cert, "", "server.tls.key: the file holds no private key"),
            (&cert, &cert, "server.tls.key: the file holds no private key"),
            (&cert, &other, "server.tls.key: is not the key of the certificate"),
            (&cert, &"x".repeat(FILE_BYTES as usize + 1), "server.tls.key: the file has more than"),
        ] {
            let fault = open(files(folder.path(), cert, key)).err().unwrap().to_string();
            assert!(fault.starts_with(told), "{told}: {fault}");
        }
        let mut options = files(folder.path(), &cert, &key);
        options.client_ca = Some(folder.path().join("absent.pem"));
        assert!(open(options.clone()).err().unwrap().to_string().starts_with("server.tls.client_ca: "));
        options.client_ca = Some(options.key.clone());
        assert!(open(options).err().unwrap().to_string().starts_with("server.tls.client_ca: "));
    }

    #[test]
    fn a_new_pair_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let ((cert, key), (new_cert, new_key)) = (pair(), pair());
        let options = files(folder.path(), &cert, &key);
        let certificates = open(options.clone()).unwrap();
        let mut watch = Watch { seen: Ok(certificates.opened), is_told: true };
        let first = certificates.current();
        certificates.look(&mut watch);
        assert!(Arc::ptr_eq(&first, &certificates.current()), "nothing has changed");

        std::fs::write(&options.cert, &new_cert).unwrap();
        certificates.look(&mut watch);
        assert!(Arc::ptr_eq(&first, &certificates.current()) && !watch.is_told, "the key is still to come");
        certificates.look(&mut watch);
        assert!(watch.is_told, "it did not come");
        std::fs::remove_file(&options.key).unwrap();
        certificates.look(&mut watch);
        certificates.look(&mut watch);
        assert!(Arc::ptr_eq(&first, &certificates.current()) && watch.is_told);

        std::fs::write(&options.key, &new_key).unwrap();
        certificates.look(&mut watch);
        let second = certificates.current();
        assert!(!Arc::ptr_eq(&first, &second));
        certificates.look(&mut watch);
        assert!(Arc::ptr_eq(&second, &certificates.current()));
        // The old pair comes back.
        files(folder.path(), &cert, &key);
        certificates.look(&mut watch);
        assert!(!Arc::ptr_eq(&second, &certificates.current()));
    }
}
