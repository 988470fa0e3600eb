//! The keys of signed and encrypted cookies: where they come from, and what is made with them.
//!
//! The first key signs and encrypts, all verify and decrypt: so a key can be replaced while cookies of the old one are
//! still in use. No key is used itself: HKDF-SHA-256 (RFC 5869) derives one for each purpose.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::{hkdf, hmac};

use super::random;
use super::settings::Settings;
use crate::error::{Error, Result, StartError};

/// The key under `--debug` where none is given. Everybody can read it here, so it is refused as a given one.
const DEVELOPMENT_KEY: &str = "for-development-only-and-published-in-the-source";

/// The length of 32 bytes in base64url.
const MIN_LENGTH: usize = 43;

/// A text with fewer different characters was typed, not drawn. Of 43 random ones in base64url some 31 differ; of 64 in hex,
/// practically always 11 or more.
const MIN_DIFFERENT: usize = 10;

/// The bytes of a signature: SHA-256.
pub(crate) const TAG: usize = 32;

const REMEDY: &str = "set auth.keys (the variable SERVER__AUTH__KEYS) to what `server secrets` prints, or name a file in \
    auth.key_file; on this machine --debug needs none";

/// Whether an app needs keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyNeed {
    /// It signs nothing.
    No,
    /// It does, on this machine only (`--debug`): the published key will do, with a warning.
    Development,
    /// It does.
    Yes,
}

/// The keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<[hkdf::Prk]>);

impl Keys {
    /// The keys of the settings, or none where none are set. Where they are needed, that is an error.
    ///
    /// # Errors
    ///
    /// Exit code 2: a key is too short, too simple or published, or the file cannot be
    /// read or made.
    pub fn open(settings: &Settings, need: KeyNeed) -> Result<Option<Self>, StartError> {
        let (given, file) = (settings.keys.expose(), &settings.key_file);
        let has_file = !file.as_os_str().is_empty();
        if given.trim().is_empty() && has_file {
            let text = read_or_make(file)
                .map_err(|error| StartError::config(format!("auth.key_file: {}: {error}", file.display())))?;
            let keys = Self::parse(&text, "auth.key_file")?;
            let empty = || StartError::config(format!("auth.key_file: {} has no key", file.display()));
            return keys.ok_or_else(empty).map(Some);
        }
        match Self::parse(given, "auth.keys")? {
            None if need == KeyNeed::Development => {
                tracing::warn!(
                    target: "server",
                    "auth.keys is not set: cookies are signed with a published key, for development only"
                );
                Ok(Some(Self::of([DEVELOPMENT_KEY].into_iter())))
            }
            None if need == KeyNeed::Yes => Err(StartError::config(format!(
                "auth.keys: routes sign cookies, and there is no key; {REMEDY}"
            ))),
            keys => Ok(keys),
        }
    }

    fn parse(text: &str, setting: &str) -> Result<Option<Self>, StartError> {
        for (index, key) in text.split_whitespace().enumerate() {
            let different = key.chars().collect::<BTreeSet<_>>().len();
            let wrong = if key == DEVELOPMENT_KEY {
                "is published in the source".to_owned()
            } else if key.chars().count() < MIN_LENGTH {
                format!("is shorter than {MIN_LENGTH} characters")
            } else if different < MIN_DIFFERENT {
                format!("has fewer than {MIN_DIFFERENT} different characters")
            } else {
                continue;
            };
            return Err(StartError::config(format!("{setting}: key {} {wrong}; {REMEDY}", index + 1)));
        }
        let mut keys = text.split_whitespace().peekable();
        Ok(keys.peek().is_some().then(|| Self::of(keys)))
    }

    fn of<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        // The keys are random: a salt adds nothing (RFC 5869, section 3.1).
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
        Self(keys.map(|key| salt.extract(key.as_bytes())).collect())
    }

    /// Keys for a test of this crate.
    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        Self::of([DEVELOPMENT_KEY].into_iter())
    }

    /// The error of a handler that needs keys where there are none.
    pub(crate) fn missing() -> Error {
        Error::internal(format!("there is no key: say Routes::needs_keys(), and {REMEDY}"))
    }

    /// The signature of a message by the first key: HMAC-SHA-256.
    pub(crate) fn sign(&self, purpose: &str, message: &[u8]) -> Result<[u8; TAG]> {
        let key = self.0.first().ok_or_else(Self::missing)?;
        let tag = hmac::sign(&derive(key, purpose, hmac::HMAC_SHA256)?, message);
        tag.as_ref().try_into().map_err(Error::internal)
    }

    /// Whether one of the keys has signed the message. How long that takes tells nothing of the signature.
    pub(crate) fn has_signed(&self, purpose: &str, message: &[u8], tag: &[u8]) -> bool {
        let mut keys = self.0.iter().filter_map(|key| derive(key, purpose, hmac::HMAC_SHA256).ok());
        keys.any(|key| hmac::verify(&key, message, tag).is_ok())
    }

    /// The text, encrypted by the first key with AES-256-GCM: nonce, ciphertext and tag. Only with the same `context` is it
    /// decrypted. The nonce is random: a key is good for 2^32 texts (NIST SP 800-38D, section 8.3).
    pub(crate) fn encrypt(&self, purpose: &str, context: &[u8], text: &[u8]) -> Result<Vec<u8>> {
        let key = self.0.first().ok_or_else(Self::missing)?;
        let key = LessSafeKey::new(derive(key, purpose, &AES_256_GCM)?);
        let nonce: [u8; NONCE_LEN] = random::bytes()?;
        let mut sealed = text.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed)
            .map_err(|_| Error::internal("cannot encrypt"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The text that one of the keys has encrypted with this context.
    pub(crate) fn decrypt(&self, purpose: &str, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().find_map(|key| {
            let key = LessSafeKey::new(derive(key, purpose, &AES_256_GCM).ok()?);
            let (nonce, mut text) = (Nonce::assume_unique_for_key(*nonce), sealed.to_vec());
            let length = key.open_in_place(nonce, Aad::from(context), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        })
    }
}

/// A new key: 32 random bytes in base64url, 43 characters.
pub fn new_key() -> Result<String> {
    Ok(random::secret()?.expose().to_owned())
}

/// The key of a purpose.
fn derive<K, L: hkdf::KeyType>(key: &hkdf::Prk, purpose: &str, kind: L) -> Result<K>
where
    K: for<'a> From<hkdf::Okm<'a, L>>,
{
    let purpose = [purpose.as_bytes()];
    key.expand(&purpose, kind).map(K::from).map_err(|_| Error::internal("cannot derive a key"))
}

/// The text of the file. One that is missing is made with a new key, for this user only. It is written beside its place and
/// then linked to it, which fails where another process was first: so no process reads a file without its key.
fn read_or_make(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        read => return read,
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let key = new_key().map_err(|error| io::Error::other(error.cause()))?;
    // The name is drawn anew: a key that was written would be in the listing of the folder.
    let name = new_key().map_err(|error| io::Error::other(error.cause()))?;
    let new = folder.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let linked = file
        .write_all(format!("{key}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&new, path));
    fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => fs::read_to_string(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use crate::secret::Secret;

    fn open(keys: &str, file: PathBuf, need: KeyNeed) -> Result<Option<Keys>, StartError> {
        let mut settings = crate::auth::settings::of_test();
        (settings.keys, settings.key_file) = (Secret::new(keys), file);
        Keys::open(&settings, need)
    }

    fn given(keys: &str) -> Result<Option<Keys>, StartError> {
        open(keys, PathBuf::new(), KeyNeed::Yes)
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let (old, new) = (new_key().unwrap(), new_key().unwrap());
        let both = given(&format!("{new}  {old}")).unwrap().unwrap();
        let (old, new) = (given(&old).unwrap().unwrap(), given(&new).unwrap().unwrap());
        for keys in [&old, &new] {
            assert!(both.has_signed("a", b"text", &keys.sign("a", b"text").unwrap()));
            let sealed = keys.encrypt("a", b"context", b"text").unwrap();
            assert_eq!(both.decrypt("a", b"context", &sealed).unwrap(), b"text");
            assert_eq!(both.decrypt("a", b"another", &sealed), None);
            assert_eq!(both.decrypt("b", b"context", &sealed), None);
        }
        let tag = both.sign("a", b"text").unwrap();
        assert!(new.has_signed("a", b"text", &tag));
        assert!(!old.has_signed("a", b"text", &tag));
        assert!(!new.has_signed("b", b"text", &tag), "of another purpose");
    }

    #[test]
    fn a_weak_key_is_refused_and_is_not_quoted() {
        let good = new_key().unwrap();
        assert_eq!(good.len(), MIN_LENGTH);
        let weak = ["123456789-abcdefgh", &good[1..], &"ab".repeat(32), DEVELOPMENT_KEY];
        for key in weak {
            for (keys, number) in [(key.to_owned(), 1), (format!("{good} {key}"), 2)] {
                // Also where nothing needs it, and in development.
                let error = open(&keys, PathBuf::new(), KeyNeed::Development).err().unwrap();
                assert_eq!(error.exit_code, 2);
                let text = error.to_string();
                assert!(
                    text.starts_with(&format!("auth.keys: key {number} ")) && !text.contains(key),
                    "{text}"
                );
            }
        }
        assert!(given(&"0123456789abcdef".repeat(4)).unwrap().is_some(), "64 digits in hex");
    }

    #[test]
    fn no_key_is_an_error_where_one_is_needed_but_in_development() {
        let error = given(" ").err().unwrap();
        assert_eq!(error.exit_code, 2);
        for word in ["auth.keys", "SERVER__AUTH__KEYS", "`server secrets`", "auth.key_file"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(open("", PathBuf::new(), KeyNeed::Development).unwrap().is_some());
        assert!(open("", PathBuf::new(), KeyNeed::No).unwrap().is_none());
    }

    #[test]
    fn a_key_file_is_made_once_for_its_user_only_also_by_many_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/auth.key");
        let barrier = std::sync::Barrier::new(8);
        let made: BTreeSet<String> = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| {
                scope.spawn(|| {
                    barrier.wait();
                    read_or_make(&path).unwrap()
                })
            });
            threads.map(|thread| thread.join().unwrap()).into_iter().collect()
        });
        assert_eq!(made.len(), 1, "all have the same");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        assert!(open("", path.clone(), KeyNeed::Yes).unwrap().is_some());
        fs::write(&path, "short\n").unwrap();
        assert!(
            open("", path.clone(), KeyNeed::No)
                .err()
                .unwrap()
                .to_string()
                .starts_with("auth.key_file: key 1")
        );
        fs::write(&path, "\n").unwrap();
        assert!(open("", path, KeyNeed::Development).is_err(), "an empty file");
    }
}
