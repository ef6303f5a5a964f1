//! Who is at the other end of a connection, as far as the connection itself tells.
//!
//! Every request carries a [`Peer`] in its extensions, behind every door. It knows nothing of tokens and roles, and it
//! proves nothing but what TLS has proved.

use aws_lc_rs::digest;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

/// Longest subject that is kept, in characters.
const SUBJECT_CHARS: usize = 256;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from. Behind a proxy this is the proxy.
    pub address: SocketAddr,
    /// The certificate that it has shown, when it has shown one. It is signed by one of the authorities in
    /// `server.tls.client_ca`, and valid at the time of the handshake.
    pub certificate: Option<Arc<Certificate>>,
}

/// A client's certificate, by what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    subject: String,
    fingerprint: String,
}

impl Certificate {
    /// Reads a certificate in DER. One whose subject cannot be read has an empty subject.
    pub fn read(der: &[u8]) -> Self {
        let mut fingerprint = String::with_capacity(2 * digest::SHA256_OUTPUT_LEN);
        for byte in digest::digest(&digest::SHA256, der).as_ref() {
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Self { subject: subject(der).unwrap_or_default(), fingerprint }
    }

    /// The subject as in `CN=backup,O=Example`, with at most 256 characters; empty when the certificate has none.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// SHA-256 over the certificate, as 64 hex digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Tags of DER that stand on the way to a subject.
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const UTF8_STRING: u8 = 0x0c;
    pub(super) const PRINTABLE_STRING: u8 = 0x13;
    pub(super) const IA5_STRING: u8 = 0x16;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;
}

/// Attributes of a subject that have a short name; others are left out.
///
/// Source: RFC 4514, section 3.
const ATTRIBUTES: [(&[u8], &str); 6] =
    [(&[0x55, 4, 3], "CN"), (&[0x55, 4, 10], "O"), (&[0x55, 4, 11], "OU"), (&[0x55, 4, 6], "C"), (&[0x55, 4, 7], "L"), (&[0x55, 4, 8], "ST")];

/// The subject of a certificate in the form of RFC 4514: the last part first.
fn subject(der: &[u8]) -> Option<String> {
    let (certificate, _) = expect(der, tag::SEQUENCE)?;
    let (fields, _) = expect(certificate, tag::SEQUENCE)?;
    let fields = match expect(fields, tag::VERSION) {
        Some((_, rest)) => rest,
        None => fields,
    };
    let (_serial, fields) = expect(fields, tag::INTEGER)?;
    let (_algorithm, fields) = expect(fields, tag::SEQUENCE)?;
    let (_issuer, fields) = expect(fields, tag::SEQUENCE)?;
    let (_validity, fields) = expect(fields, tag::SEQUENCE)?;
    let (mut names, _) = expect(fields, tag::SEQUENCE)?;
    let mut parts = Vec::new();
    while !names.is_empty() {
        let (set, rest) = expect(names, tag::SET)?;
        names = rest;
        let (pair, _) = expect(set, tag::SEQUENCE)?;
        let (attribute, value) = expect(pair, tag::OBJECT_IDENTIFIER)?;
        let (kind, value, _) = element(value)?;
        let name = ATTRIBUTES.iter().find(|(identifier, _)| *identifier == attribute).map(|(_, name)| *name);
        if let Some(name) = name.filter(|_| matches!(kind, tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING)) {
            parts.push(format!("{name}={}", escape(&String::from_utf8_lossy(value))));
        }
    }
    parts.reverse();
    Some(parts.join(",").chars().take(SUBJECT_CHARS).collect())
}

/// Puts a backslash before what would end a value, and control characters as hex.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => escaped.extend(['\\', c]),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(escaped, "\\{byte:02x}");
                }
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// The content of an element with this tag at the beginning of `input`, and what follows it.
fn expect(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(input)?;
    (tag == wanted).then_some((content, rest))
}

/// The element at the beginning of `input`: tag, content, rest.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, input) = input.split_first()?;
    let (&first, input) = input.split_first()?;
    let (length, input) = match first {
        0..=0x7f => (usize::from(first), input),
        // No certificate is longer than what four bytes of length say.
        0x81..=0x84 => {
            let (bytes, input) = input.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), input)
        }
        _ => return None,
    };
    let (content, rest) = input.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        parts.iter().for_each(|(kind, value)| parameters.distinguished_name.push(kind.clone(), *value));
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_told_by_subject_and_fingerprint() {
        let der = certificate(&[(DnType::OrganizationName, "Example, Inc."), (DnType::CommonName, "backup\u{7}")]);
        let read = Certificate::read(&der);
        assert_eq!(read.subject(), "CN=backup\\07,O=Example\\, Inc.");
        assert_eq!(read.fingerprint().len(), 64);
        assert_ne!(read.fingerprint(), Certificate::read(&der[1..]).fingerprint());
        assert_eq!(Certificate::read(&certificate(&[])).subject(), "");
        let long = "n".repeat(SUBJECT_CHARS + 1);
        assert_eq!(Certificate::read(&certificate(&[(DnType::CommonName, &long)])).subject().len(), SUBJECT_CHARS);
    }

    #[test]
    fn what_is_cut_or_no_certificate_has_no_subject() {
        let der = certificate(&[(DnType::CommonName, "backup")]);
        for length in 0..der.len() {
            assert_eq!(Certificate::read(&der[..length]).subject(), "", "{length} of {} bytes", der.len());
        }
        for bytes in [&[0x30, 0x80][..], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], b"not a certificate"] {
            assert_eq!(Certificate::read(bytes).subject(), "");
        }
    }
}
