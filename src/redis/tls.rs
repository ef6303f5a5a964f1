//! TLS to a server: whose certificates are believed, and who we say we are.
//!
//! There is no way to leave the check of certificates out.

use super::{Address, Error};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Most certificates that are read from one text. The authorities of a system are some hundreds.
const CERTIFICATES: usize = 2000;

/// Where systems keep the authorities that they trust; the first that is there counts. `SSL_CERT_FILE` goes before them.
const SYSTEM_AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whose word for a host's certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorities<'a> {
    /// The authorities that the system trusts.
    System,
    /// These certificates and no others, in PEM.
    Own(&'a [u8]),
}

/// The certificates or the key given cannot be used. Nothing of the key is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTls {
    /// There is no certificate of an authority.
    #[error("must hold certificates in PEM, of the authority that signed the servers' own")]
    Authorities,
    /// The authorities of the system cannot be read.
    #[error("the authorities that this system trusts are not found; name a file with SSL_CERT_FILE, or give the certificate of your own")]
    System,
    /// Our own certificate cannot be read.
    #[error("must hold our certificate in PEM, with those between it and its authority")]
    Certificate,
    /// Our own key cannot be read, or belongs to another certificate.
    #[error("must hold the key of our certificate in PEM")]
    Key,
}

/// How connections to the hosts of a cluster are secured.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    has_own_authorities: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Tls {}

impl Tls {
    /// Believes what `authorities` signed; `identity` is our own certificate with its key, in PEM, for servers that ask.
    ///
    /// # Errors
    ///
    /// [`BadTls`], by condition.
    pub fn new(authorities: Authorities<'_>, identity: Option<(&[u8], &[u8])>) -> Result<Self, BadTls> {
        let roots = match authorities {
            Authorities::Own(pem) => Arc::new(roots(pem).ok_or(BadTls::Authorities)?),
            Authorities::System => system_authorities().ok_or(BadTls::System)?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|_| BadTls::System)?;
        let builder = builder.with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).ok_or(BadTls::Certificate)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadTls::Key)?;
                builder.with_client_auth_cert(chain, key).map_err(|_| BadTls::Key)?
            }
        };
        Ok(Self { config: Arc::new(config), has_own_authorities: matches!(authorities, Authorities::Own(_)) })
    }

    /// Whether a host that passes the check is one of the owner's. The authorities of a system sign for everybody, so with
    /// those a certificate tells a host's name and not that it belongs to the cluster.
    pub fn tells_own_hosts(&self) -> bool {
        self.has_own_authorities
    }

    /// Shakes hands over a connection that was made to `address`.
    ///
    /// # Errors
    ///
    /// What the other side or its certificate is at fault with; [`fault`] tells what it means.
    pub(super) async fn over(&self, address: &Address, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let Address::Tcp { host, .. } = address else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let name = ServerName::try_from(host.clone()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

/// What a failed read, write or hand-shake with a host means.
pub(super) fn fault(host: &str, fault: &io::Error) -> Error {
    let inner = fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let host = host.to_owned();
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => Error::Certificate { host, what: format!("its certificate is not accepted: {}", reason(why)) },
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::Certificate { host, what: format!("it ended the TLS hand-shake ({alert:?}); it may ask for a certificate of ours, or not accept it") }
        }
        Some(rustls::Error::InvalidMessage(_)) => Error::Protocol { host, what: "it does not speak TLS on this port".to_owned() },
        Some(_) => Error::Protocol { host, what: "the TLS hand-shake failed".to_owned() },
        None => Error::Unreachable { host, what: fault.kind().to_string() },
    }
}

/// Why a certificate is not accepted, in words that do not repeat what the host sent.
fn reason(why: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Why;
    match why {
        Why::Expired | Why::ExpiredContext { .. } => "it has expired",
        Why::NotValidYet | Why::NotValidYetContext { .. } => "it is not valid yet",
        Why::UnknownIssuer => "none of the trusted authorities signed it",
        Why::NotValidForName | Why::NotValidForNameContext { .. } => "it is for another name than the host's address",
        Why::Revoked => "it was revoked",
        Why::BadSignature => "its signature does not hold",
        _ => "it cannot be checked",
    }
}

/// The certificates of a text; `None` when there is none, too many, or one that cannot be read.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES + 1).collect::<Result<_, _>>().ok()?;
    (1..=CERTIFICATES).contains(&certificates.len()).then_some(certificates)
}

/// The authorities of a text, each of which must be one.
fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    certificates(pem)?.into_iter().try_for_each(|certificate| roots.add(certificate)).ok()?;
    Some(roots)
}

/// The authorities of a text that can be used; systems keep some that cannot.
fn trusted(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).take(CERTIFICATES).flatten());
    (!roots.is_empty()).then_some(roots)
}

/// The authorities of the system, read once and shared by all clusters.
fn system_authorities() -> Option<Arc<RootCertStore>> {
    static READ: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = READ.get() {
        return Some(Arc::clone(roots));
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = SYSTEM_AUTHORITIES.iter().map(|path| Path::new(path).to_owned());
    let pem = named.into_iter().chain(known).find_map(|path| std::fs::read(path).ok())?;
    let roots = Arc::new(trusted(&pem)?);
    Some(Arc::clone(READ.get_or_init(|| roots)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (pem, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        assert!(Tls::new(Authorities::Own(pem.as_bytes()), None).unwrap().tells_own_hosts());
        assert!(Tls::new(Authorities::Own(pem.as_bytes()), Some((pem.as_bytes(), key.as_bytes()))).is_ok());
        let broken = pem.replacen("MI", "!!", 1);
        for text in ["", "nonsense", &key, &broken] {
            assert_eq!(Tls::new(Authorities::Own(text.as_bytes()), None), Err(BadTls::Authorities), "{text}");
        }
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().signing_key.serialize_pem();
        for (chain, key, fault) in [("", &*key, BadTls::Certificate), (&*pem, "", BadTls::Key), (&*pem, &*pem, BadTls::Key), (&*pem, &*other, BadTls::Key)] {
            assert_eq!(Tls::new(Authorities::Own(pem.as_bytes()), Some((chain.as_bytes(), key.as_bytes()))), Err(fault));
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let of = |error: rustls::Error| fault("h:1", &io::Error::new(io::ErrorKind::InvalidData, error));
        let unknown = of(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
        assert!(matches!(&unknown, Error::Certificate { what, .. } if what.contains("none of the trusted authorities")), "{unknown}");
        assert!(matches!(of(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), Error::Protocol { .. }));
        assert!(matches!(of(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired)), Error::Certificate { .. }));
        assert!(matches!(fault("h:1", &io::Error::from(io::ErrorKind::ConnectionReset)), Error::Unreachable { .. }));
    }
}
