//! Key encryption keys: what wraps the data key of a repository.
//!
//! [`KeyService`] is where a real KMS fits in. The one built in keeps a file per key name, made on
//! request, readable by its owner only.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first line of a key file, before the key itself.
const FILE_HEADER: &str = "stillframe-key-v1";
const KEY_LENGTH: usize = 32;
/// A key file is far smaller.
const KEY_FILE_MAX: u64 = 4096;
const NONCE_LENGTH: usize = 24;

/// Why a key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such key, and none may be made.
    #[error("there is no key `{name}` ({}); make it with `stillframe key create {name}`, or put its file back", path.display())]
    Missing {
        /// The name of the key.
        name: String,
        /// The file it would be in.
        path: PathBuf,
    },
    /// There is no such key, and images are encrypted under it.
    #[error("the key file {} is missing, and images are encrypted under it: put it back from a copy; a new key opens none of them", .0.display())]
    Lost(PathBuf),
    /// Others could read the key.
    #[error("the key file {} can be read by others; run `chmod 600` on it", .0.display())]
    Readable(PathBuf),
    /// The file is not a key.
    #[error("{} is not a key file: put the right one back from a copy", .0.display())]
    NotAKey(PathBuf),
    /// The data key was wrapped by another key.
    #[error(
        "the key `{0}` is not the one that these images were encrypted under; put the right key file back"
    )]
    Wrong(String),
    /// The key file could not be read or written.
    #[error("key file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrapped {
    /// Which service can unwrap it.
    pub service: String,
    /// The name of the key that wraps it.
    pub key: String,
    /// How it is wrapped.
    pub algorithm: String,
    /// The nonce, in base64.
    pub nonce: String,
    /// The wrapped key with its tag, in base64.
    pub ciphertext: String,
}

/// What wraps and unwraps data keys. `context` is bound into the wrapping.
pub trait KeyService: Send + Sync {
    /// Wraps a data key under the key of this name.
    fn wrap(&self, name: &str, data_key: &[u8], context: &str) -> Result<Wrapped, KeyError>;

    /// Unwraps it again.
    fn unwrap(&self, wrapped: &Wrapped, context: &str) -> Result<Vec<u8>, KeyError>;
}

/// A file per key.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    directory: PathBuf,
    create: bool,
}

impl KeyFiles {
    /// `create`: whether wrapping under a name that has no key makes one.
    pub fn new(directory: PathBuf, create: bool) -> Self {
        Self { directory, create }
    }

    /// The file of a key.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}.key", file_stem(name)))
    }

    /// Makes a key; says whether it was not there before.
    pub fn create(&self, name: &str) -> Result<bool, KeyError> {
        let path = self.path(name);
        let file_error = |source| KeyError::File { path: path.clone(), source };
        fs::create_dir_all(&self.directory).map_err(file_error)?;
        let key: [u8; KEY_LENGTH] = random()?;
        let text = format!("{FILE_HEADER}\n{}\n", BASE64.encode(&key));
        // Written beside its place and linked into it, so that a key file is whole or not there,
        // and one that is there is never replaced.
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.directory)
            .map_err(file_error)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(file_error)?;
        match file.persist_noclobber(&path) {
            Ok(_) => {
                super::objects::sync_directory(&self.directory).map_err(file_error)?;
                Ok(true)
            }
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(file_error(error.error)),
        }
    }

    fn load(&self, name: &str) -> Result<[u8; KEY_LENGTH], KeyError> {
        let path = self.path(name);
        let mut options = fs::OpenOptions::new();
        let file = match options.read(true).custom_flags(0).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(KeyError::Missing { name: name.to_owned(), path });
            }
            Err(source) => return Err(KeyError::File { path, source }),
        };
        let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 != 0 {
            return Err(KeyError::Readable(path));
        }
        let mut bytes = Vec::new();
        file.take(KEY_FILE_MAX)
            .read_to_end(&mut bytes)
            .map_err(|source| KeyError::File { path: path.clone(), source })?;
        let text = String::from_utf8(bytes).map_err(|_| KeyError::NotAKey(path.clone()))?;
        let key = text
            .strip_prefix(FILE_HEADER)
            .and_then(|rest| BASE64.decode(rest.trim().as_bytes()).ok())
            .and_then(|key| <[u8; KEY_LENGTH]>::try_from(key).ok());
        key.ok_or(KeyError::NotAKey(path))
    }
}

impl KeyService for KeyFiles {
    fn wrap(&self, name: &str, data_key: &[u8], context: &str) -> Result<Wrapped, KeyError> {
        let key = match self.load(name) {
            Err(KeyError::Missing { .. }) if self.create => {
                self.create(name)?;
                self.load(name)?
            }
            loaded => loaded?,
        };
        let nonce: [u8; NONCE_LENGTH] = random()?;
        let payload = Payload { msg: data_key, aad: context.as_bytes() };
        let ciphertext = XChaCha20Poly1305::new(&key.into())
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| KeyError::Wrong(name.to_owned()))?;
        Ok(Wrapped {
            service: "key-files".to_owned(),
            key: name.to_owned(),
            algorithm: "XChaCha20-Poly1305".to_owned(),
            nonce: BASE64.encode(&nonce),
            ciphertext: BASE64.encode(&ciphertext),
        })
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &str) -> Result<Vec<u8>, KeyError> {
        let key = self.load(&wrapped.key).map_err(|error| match error {
            KeyError::Missing { path, .. } => KeyError::Lost(path),
            other => other,
        })?;
        let wrong = || KeyError::Wrong(wrapped.key.clone());
        let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
        let nonce = decode(&wrapped.nonce)
            .and_then(|nonce| <[u8; NONCE_LENGTH]>::try_from(nonce).ok())
            .ok_or_else(wrong)?;
        let ciphertext = decode(&wrapped.ciphertext).ok_or_else(wrong)?;
        let payload = Payload { msg: ciphertext.as_slice(), aad: context.as_bytes() };
        XChaCha20Poly1305::new(&key.into())
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| wrong())
    }
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    Ok(bytes)
}

/// A file name for any text: readable, and never the same for two texts.
pub fn file_stem(text: &str) -> String {
    let plain = !text.is_empty()
        && text.len() <= 48
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && text.starts_with(|first: char| first.is_ascii_alphanumeric());
    // `_` stands in no plain name, so a plain name is never what another is bent into.
    if plain {
        return text.to_owned();
    }
    let bent: String =
        text.chars()
            .rev()
            .take(32)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .map(|character| {
                if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' }
            })
            .collect();
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..8]);
    format!("{}_{hash}", bent.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_key_comes_back_under_its_own_key_and_context_only() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyFiles::new(directory.path().join("keys"), true);
        let wrapped = keys.wrap("projects/p/key", b"data key", "here").unwrap();
        assert_eq!(keys.unwrap(&wrapped, "here").unwrap(), b"data key");
        assert!(matches!(keys.unwrap(&wrapped, "elsewhere"), Err(KeyError::Wrong(_))));
        keys.create("other").unwrap();
        let other = Wrapped { key: "other".into(), ..wrapped };
        assert!(matches!(keys.unwrap(&other, "here"), Err(KeyError::Wrong(_))));
    }

    #[test]
    fn keys_are_made_on_request_only_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyFiles::new(directory.path().to_owned(), false);
        assert!(matches!(keys.wrap("k", b"x", ""), Err(KeyError::Missing { .. })));
        assert!(keys.create("k").unwrap());
        assert!(!keys.create("k").unwrap());
        let wrapped = keys.wrap("k", b"x", "").unwrap();
        let path = keys.path("k");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(keys.unwrap(&wrapped, ""), Err(KeyError::Readable(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(keys.unwrap(&wrapped, ""), Err(KeyError::NotAKey(_))));
    }

    #[test]
    fn two_names_never_share_a_file() {
        let names =
            ["a", "A", "a/b", "a-b", "a_b", "projects/p/locations/us/keyRings/r/cryptoKeys/k", ""];
        let stems: std::collections::BTreeSet<String> =
            names.iter().map(|name| file_stem(name)).collect();
        assert_eq!(stems.len(), names.len());
    }
}
