//! Encryption of what is stored, with age: to whom, and how it is read back.
//!
//! What is written is an age file like any other, so that the `age` tool opens it with the secret key alone. Writing needs
//! public keys only: whoever takes over the service cannot read what it stored before, unless it was given the secret key to
//! read things back. No secret key is ever shown.

use super::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// Most recipients of an artifact.
pub const RECIPIENTS: usize = 16;

/// Most secret keys that are tried.
const IDENTITIES: usize = 16;

/// Longest file of secret keys, in bytes.
const FILE_BYTES: u64 = 64 * 1024;

/// Longest head of an encrypted file, in bytes: room for far more recipients than we write to.
const HEAD_BYTES: usize = 16 * 1024;

/// End of the name of what is encrypted.
pub const SUFFIX: &str = ".age";

/// Beginning of a secret key, in capitals.
const SECRET_KEY: &str = "AGE-SECRET-KEY-";

/// The public key of somebody who can read artifacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

/// Why a text is no recipient. The text itself is not told: it may be a secret that was put in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    /// It is a secret key.
    #[error(
        "is a secret key; list the public key that belongs to it, which begins with age1 and which age-keygen -y prints. Replace the secret one if others could read it here"
    )]
    Secret,
    /// It is something else.
    #[error("must be a public key of age, such as age-keygen prints: age1 and 58 more characters")]
    Form,
}

impl FromStr for Recipient {
    type Err = BadRecipient;

    fn from_str(text: &str) -> Result<Self, BadRecipient> {
        if text.trim().to_ascii_uppercase().starts_with(SECRET_KEY) {
            return Err(BadRecipient::Secret);
        }
        text.parse().map(Self).map_err(|_| BadRecipient::Form)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Secret keys that artifacts are read back with. Cheap to clone; never printed.
#[derive(Clone)]
pub struct Identity(Arc<[age::x25519::Identity]>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// Why a file of secret keys cannot be used. Nothing of its content is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    File(String),
    /// Others than its owner can read it.
    #[error("has the mode {0:o}, so others than its owner can read it; run chmod 600 on it")]
    Open(u32),
    /// It does not hold what it should.
    #[error("must hold secret keys as age-keygen writes them, from 1 to {IDENTITIES}, one a line; line {0} is none")]
    Form(usize),
}

impl Identity {
    /// Reads a file as `age-keygen` writes it: a key a line, with empty lines and comments behind `#`.
    ///
    /// # Errors
    ///
    /// [`BadIdentity`], by condition.
    pub fn read(path: &Path) -> Result<Self, BadIdentity> {
        use std::os::unix::fs::PermissionsExt;
        let unreadable = |fault: io::Error| BadIdentity::File(fault.kind().to_string());
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES {
            return Err(BadIdentity::File("it is no file, or too long".to_owned()));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(BadIdentity::Open(mode));
        }
        let mut text = String::new();
        file.take(FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, BadIdentity> {
        let mut keys = Vec::new();
        let mut last = 1;
        for (index, line) in text.lines().enumerate() {
            last = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if keys.len() == IDENTITIES {
                return Err(BadIdentity::Form(last));
            }
            keys.push(line.parse().map_err(|_| BadIdentity::Form(last))?);
        }
        if keys.is_empty() { Err(BadIdentity::Form(last)) } else { Ok(Self(keys.into())) }
    }
}

/// To whom artifacts are encrypted, and with what they are read back. The default is neither. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Encryption {
    /// Who can read what is stored from now on; nobody means that it is not encrypted. At most [`RECIPIENTS`].
    pub recipients: Arc<[Recipient]>,
    /// What encrypted artifacts are read back with, if anything.
    pub identity: Option<Identity>,
}

impl Encryption {
    /// Whether artifacts are encrypted.
    pub fn is_on(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// What names of files end with: [`SUFFIX`] or nothing.
    pub fn suffix(&self) -> &'static str {
        if self.is_on() { SUFFIX } else { "" }
    }

    /// The recipients as texts, for records.
    pub fn recipient_names(&self) -> Vec<String> {
        self.recipients.iter().map(ToString::to_string).collect()
    }

    /// Begins an encrypted file: its head goes to `output` at once, all else as it is written. It must be ended with
    /// [`Sealed::finish`].
    ///
    /// # Errors
    ///
    /// What `output` says, or that there is no recipient.
    pub fn seal<W: Write>(&self, output: W) -> io::Result<Sealed<W>> {
        let recipients = self.recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        encryptor.wrap_output(output).map(Sealed)
    }

    /// Small bytes as they are stored: encrypted, or as they are where there is no recipient.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when they cannot be encrypted.
    pub fn seal_small(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        if !self.is_on() {
            return Ok(bytes);
        }
        let sealing = || {
            let mut sealed = self.seal(Vec::with_capacity(bytes.len() + FILE_BYTES as usize))?;
            sealed.write_all(&bytes)?;
            sealed.finish()
        };
        sealing().map_err(|_| Error::unavailable("what is to be stored could not be encrypted"))
    }
}

/// An encrypted file under way. Memory is a few chunks of 64 KiB, whatever its length.
pub struct Sealed<W: Write>(age::stream::StreamWriter<W>);

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sealed<W> {
    /// Ends the file.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl Identity {
    /// Reads an encrypted file. What comes out is authentic up to where it comes; at the end of the file, all of it.
    ///
    /// # Errors
    ///
    /// What `input` says; [`io::ErrorKind::PermissionDenied`] when none of the keys opens the file;
    /// [`io::ErrorKind::InvalidData`] when it is no file of age.
    pub fn open<R: Read>(&self, mut input: R) -> io::Result<impl Read + use<R>> {
        let whole = io::Cursor::new(head(&mut input)?).chain(input);
        match age::Decryptor::new(whole).and_then(|decryptor| decryptor.decrypt(self.0.iter().map(|key| key as &dyn age::Identity))) {
            Ok(reader) => Ok(reader),
            Err(age::DecryptError::NoMatchingKeys) => Err(io::ErrorKind::PermissionDenied.into()),
            Err(age::DecryptError::Io(fault)) => Err(fault),
            Err(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// First line of an encrypted file.
///
/// Source: the age format, version 1.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// Beginning of the last line of its head.
///
/// Source: the same.
const LAST_LINE: &[u8] = b"--- ";

/// Reads the head of an encrypted file up to its last line, and no byte more. The library looks at a head anew with every line
/// of it, so one without end would keep it busy for as long.
fn head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut head, mut line) = (Vec::new(), 0);
    let mut byte = [0];
    while head.len() < HEAD_BYTES {
        input.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() <= MAGIC.len() && !MAGIC.starts_with(&head) {
            break;
        }
        if byte[0] == b'\n' {
            if head[line..].starts_with(LAST_LINE) {
                return Ok(head);
            }
            line = head.len();
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    /// A fresh key: encryption to it, which can be read back.
    pub(crate) fn encryption() -> Encryption {
        let key = age::x25519::Identity::generate();
        Encryption { recipients: [Recipient(key.to_public())].into(), identity: Some(Identity([key].into())) }
    }

    #[test]
    fn what_is_sealed_is_read_back_and_by_nobody_else() {
        for length in [0, 1, 65_535, 65_536, 65_537, 300_000] {
            let bytes: Vec<u8> = (0..length).map(|index: u32| (index / 3 % 251) as u8).collect();
            let encryption = encryption();
            let sealed = encryption.seal_small(bytes.clone()).unwrap();
            let mut back = Vec::new();
            encryption.identity.as_ref().unwrap().open(&*sealed).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
            let other = self::encryption().identity.unwrap();
            assert_eq!(other.open(&*sealed).err().unwrap().kind(), io::ErrorKind::PermissionDenied);
            // Cut or changed anywhere, it is no success.
            for end in [sealed.len() - 1, sealed.len() / 2, 10, 0] {
                let mut back = Vec::new();
                let read = encryption.identity.as_ref().unwrap().open(&sealed[..end]).and_then(|mut reader| reader.read_to_end(&mut back));
                assert!(read.is_err(), "{length} cut at {end}");
            }
        }
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let head = [&b"age-encryption.org/v1\n"[..], &b"-> X25519 abc\n".repeat(100_000)].concat();
        assert_eq!(encryption().identity.unwrap().open(&*head).err().unwrap().kind(), io::ErrorKind::InvalidData);
        assert_eq!(encryption().identity.unwrap().open(io::repeat(b'a')).err().unwrap().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn keys_are_told_apart_and_never_shown() {
        let key = age::x25519::Identity::generate();
        let (secret, public) = (key.to_string(), key.to_public().to_string());
        let secret = secret.expose_secret();
        assert_eq!(public.parse::<Recipient>().unwrap().to_string(), public);
        assert_eq!(secret.parse::<Recipient>(), Err(BadRecipient::Secret));
        assert_eq!(secret.to_lowercase().parse::<Recipient>(), Err(BadRecipient::Secret));
        for bad in ["", "age1", "age1xyz", "ssh-ed25519 AAAA", &public[..public.len() - 1], &format!("{public} ")] {
            assert_eq!(bad.parse::<Recipient>(), Err(BadRecipient::Form), "{bad}");
        }
        let identity = Identity::parse(&format!("# a comment\n\n{secret}\n")).unwrap();
        assert!(!format!("{identity:?}").contains(&secret[20..]));
        for (text, line) in [("", 1), ("# only\n", 1), (public.as_str(), 1), ("\nnonsense", 2)] {
            assert_eq!(Identity::parse(text).err(), Some(BadIdentity::Form(line)), "{text}");
        }
        assert_eq!(Identity::parse(&format!("{secret}\n").repeat(17)).err(), Some(BadIdentity::Form(17)));
    }
}
