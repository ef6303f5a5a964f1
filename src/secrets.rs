//! Sealing what callers entrust to the service, with a key that lies in a file of its own.
//!
//! Owns the form of the key file and of a sealed text. A sealed text is bound to its purpose by words that are
//! authenticated with it, so that it opens only for the thing it was sealed for. Knows nothing of clusters or of who asks.
//!
//! ```text
//! key file   32 random bytes, as 64 hexadecimal digits or in base64; only its owner may read it
//! sealed     AES-256-GCM with a random nonce: nonce (12) | ciphertext | tag (16), in base64, beside the id of the key
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// Length of the key, in bytes.
const KEY_BYTES: usize = 32;

/// Longest key file, in bytes: the digits, and room for white space around them.
const FILE_BYTES: u64 = 256;

/// Bytes of the key's digest that name it.
const ID_BYTES: usize = 8;

/// The form of a sealed text that is written. Every form ever written is read forever.
const VERSION: u8 = 1;

/// What each derived key is for. Each use has a key of its own.
const SEALING: &[u8] = b"redkeep secrets 1: sealing";
const FINGERPRINTS: &[u8] = b"redkeep secrets 1: fingerprints";
const TOKENS: &[u8] = b"redkeep secrets 1: short-lived tokens";
const DOWNLOADS: &[u8] = b"redkeep secrets 1: links to files";

/// A text that only the holder of its key can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    version: u8,
    key_id: String,
    bytes: String,
}

/// Why a sealed text does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was sealed with another key.
    #[error("it was sealed with the key {sealed}, and [secrets] key_file holds the key {held}")]
    OtherKey {
        /// Id of the key that sealed it.
        sealed: String,
        /// Id of the key at hand.
        held: String,
    },
    /// Its form is of a newer program.
    #[error("its form {0} is not known to this version")]
    Version(u8),
    /// It was changed, or sealed for another thing.
    #[error("it does not hold together, or was sealed for something else")]
    Damaged,
}

/// Why a key file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("cannot be used: {0}")]
    File(String),
    /// Others than its owner can read or change it.
    #[error("has the mode {0:o}, so others than its owner can read or change it; run chmod 600 on it")]
    Open(u32),
    /// It does not hold a key.
    #[error("must hold 32 random bytes, as 64 hexadecimal digits or in base64; `redkeep secrets new-key FILE` writes one")]
    Form,
}

impl From<std::io::Error> for KeyError {
    fn from(fault: std::io::Error) -> Self {
        Self::File(fault.kind().to_string())
    }
}

struct Keys {
    id: String,
    sealing: RandomizedNonceKey,
    fingerprints: hmac::Key,
    tokens: [u8; KEY_BYTES],
    downloads: [u8; KEY_BYTES],
}

/// The key, ready for use. Cheap to clone; never printed.
#[derive(Clone)]
pub struct Key(Arc<Keys>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.id)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Key {}

impl Key {
    /// Reads the key from its file.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; nothing of the content is told.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(KeyError::File("it is no file".to_owned()));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open(mode));
        }
        let mut text = String::new();
        file.take(FILE_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_BYTES {
            return Err(KeyError::Form);
        }
        Self::new(&decode(text.trim()).ok_or(KeyError::Form)?)
    }

    /// Writes a new key to a file that is not there yet and that only its owner may read.
    ///
    /// # Errors
    ///
    /// [`KeyError::File`], also when the file is there already.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes).map_err(|_| KeyError::File("the system gives no random bytes".to_owned()))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(format!("{}\n", STANDARD.encode(bytes)).as_bytes())?;
        file.sync_all()?;
        Self::new(&bytes)
    }

    fn new(bytes: &[u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let root = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, hmac::sign(&root, SEALING).as_ref()).map_err(|_| KeyError::Form)?;
        let fingerprints = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, FINGERPRINTS).as_ref());
        let tokens = hmac::sign(&root, TOKENS).as_ref().try_into().map_err(|_| KeyError::Form)?;
        let downloads = hmac::sign(&root, DOWNLOADS).as_ref().try_into().map_err(|_| KeyError::Form)?;
        let id = hex(&digest::digest(&digest::SHA256, bytes).as_ref()[..ID_BYTES]);
        Ok(Self(Arc::new(Keys { id, sealing, fingerprints, tokens, downloads })))
    }

    /// Names the key without giving it away: the first bytes of its SHA-256, in hexadecimal.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Seals a text for the thing that `purpose` names; the same words are needed to open it. `None` when the cipher fails,
    /// which only a text of many gigabytes makes it do.
    pub fn seal(&self, purpose: &[&str], text: &str) -> Option<Sealed> {
        let mut bytes = text.as_bytes().to_vec();
        let nonce = self.0.sealing.seal_in_place_append_tag(Aad::from(bound(VERSION, purpose)), &mut bytes).ok()?;
        let bytes = STANDARD.encode([nonce.as_ref().as_slice(), &bytes].concat());
        Some(Sealed { version: VERSION, key_id: self.0.id.clone(), bytes })
    }

    /// Opens a text that was sealed for the same thing.
    ///
    /// # Errors
    ///
    /// [`OpenError`], by condition.
    pub fn open(&self, purpose: &[&str], sealed: &Sealed) -> Result<String, OpenError> {
        if sealed.version != VERSION {
            return Err(OpenError::Version(sealed.version));
        }
        if sealed.key_id != self.0.id {
            return Err(OpenError::OtherKey { sealed: sealed.key_id.chars().take(2 * ID_BYTES).collect(), held: self.0.id.clone() });
        }
        let bytes = STANDARD.decode(&sealed.bytes).map_err(|_| OpenError::Damaged)?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::Damaged)?;
        let mut text = text.to_vec();
        let open = self.0.sealing.open_in_place(Nonce::from(nonce), Aad::from(bound(sealed.version, purpose)), &mut text);
        let open = open.map_err(|_| OpenError::Damaged)?;
        String::from_utf8(open.to_vec()).map_err(|_| OpenError::Damaged)
    }

    /// The key of short-lived tokens: processes that hold the same file believe each other's, also after a restart.
    pub fn tokens(&self) -> &[u8; KEY_BYTES] {
        &self.0.tokens
    }

    /// The key of links to files: processes that hold the same file honour each other's, also after a restart.
    pub fn downloads(&self) -> &[u8; KEY_BYTES] {
        &self.0.downloads
    }

    /// A text of fixed length that stands for a secret where two of them are compared. Without the key a guess cannot be
    /// tried against it.
    pub fn fingerprint(&self, secret: &str) -> String {
        hex(hmac::sign(&self.0.fingerprints, secret.as_bytes()).as_ref())
    }
}

/// The words that a sealed text is bound to, each behind its length.
fn bound(version: u8, purpose: &[&str]) -> Vec<u8> {
    let mut bound = vec![version];
    for word in purpose {
        bound.extend_from_slice(&(word.len() as u64).to_be_bytes());
        bound.extend_from_slice(word.as_bytes());
    }
    bound
}

fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    // A key in base64 has 43 or 44 characters, one in hexadecimal 64: neither can pass for the other.
    let bytes = if text.len() == 2 * KEY_BYTES {
        let digits: Option<Vec<u8>> = text.chars().map(|c| Some(c.to_digit(16)? as u8)).collect();
        digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
    } else {
        STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()?
    };
    bytes.try_into().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; KEY_BYTES]).unwrap()
    }

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_sealed_text_opens_for_its_own_thing_with_its_own_key_only() {
        let sealed = key(1).seal(&["cluster", "main", "default"], "hunter2").unwrap();
        assert_eq!(key(1).open(&["cluster", "main", "default"], &sealed).as_deref(), Ok("hunter2"));
        for other in [&["cluster", "main", "shop"][..], &["cluster", "mai", "ndefault"], &["cluster", "main"], &[]] {
            assert_eq!(key(1).open(other, &sealed), Err(OpenError::Damaged), "{other:?}");
        }
        let wrong = key(2).open(&["cluster", "main", "default"], &sealed).unwrap_err().to_string();
        assert!(wrong.contains(key(1).id()) && wrong.contains(key(2).id()), "{wrong}");
        assert!(!serde_json::to_string(&sealed).unwrap().contains("hunter2"));
        // The nonce is random, so equal secrets cannot be told to be equal.
        assert_ne!(key(1).seal(&[], "hunter2"), key(1).seal(&[], "hunter2"));
    }

    #[test]
    fn a_changed_text_does_not_open() {
        let sealed = key(1).seal(&["a"], "hunter2").unwrap();
        let bytes = STANDARD.decode(&sealed.bytes).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = Sealed { bytes: STANDARD.encode(changed), ..sealed.clone() };
            assert_eq!(key(1).open(&["a"], &changed), Err(OpenError::Damaged), "byte {at}");
        }
        for length in [0, 5, NONCE_LEN, NONCE_LEN + 10] {
            let cut = Sealed { bytes: STANDARD.encode(&bytes[..length]), ..sealed.clone() };
            assert_eq!(key(1).open(&["a"], &cut), Err(OpenError::Damaged), "length {length}");
        }
        assert_eq!(key(1).open(&["a"], &Sealed { version: 2, ..sealed }), Err(OpenError::Version(2)));
    }

    #[test]
    fn a_key_file_has_two_forms_and_one_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for text in ["01".repeat(32), format!("  {}\n", "01".repeat(32)), STANDARD.encode([1; 32]), STANDARD_NO_PAD.encode([1; 32])] {
            write(&path, &text, 0o600);
            assert_eq!(Key::read(&path), Ok(key(1)), "{text}");
        }
        for text in ["", "key", &"01".repeat(31), &"0g".repeat(32), &STANDARD.encode([1; 31]), &" ".repeat(1000)] {
            write(&path, text, 0o600);
            assert_eq!(Key::read(&path), Err(KeyError::Form), "{text}");
        }
        for mode in [0o640, 0o604, 0o620, 0o610] {
            write(&path, &"01".repeat(32), mode);
            assert_eq!(Key::read(&path), Err(KeyError::Open(mode)), "{mode:o}");
        }
        assert!(matches!(Key::read(&folder.path().join("none")), Err(KeyError::File(_))));
        assert!(matches!(Key::read(folder.path()), Err(KeyError::File(_))));
    }

    #[test]
    fn a_new_key_is_written_once_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = Key::create(&path).unwrap();
        assert_eq!(Key::read(&path), Ok(made.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Key::create(&path), Err(KeyError::File(what)) if what.contains("exists")));
        assert_eq!(Key::read(&path), Ok(made));
    }

    #[test]
    fn neither_key_nor_fingerprint_gives_anything_away() {
        assert_eq!(format!("{:?}", key(1)), format!("Key({})", key(1).id()));
        assert_eq!(key(1).fingerprint("a"), key(1).fingerprint("a"));
        assert_ne!(key(1).fingerprint("a"), key(2).fingerprint("a"));
    }
}
