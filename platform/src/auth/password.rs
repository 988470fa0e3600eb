//! Passwords: argon2id (RFC 9106) beside the reactor, as many at the same time as there are cores.
//!
//! A hash takes tens of milliseconds and megabytes, on purpose. Without a bound, many log-ins at once would take all threads
//! and all memory.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use argon2::password_hash::phc::{self, Output, ParamsString, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::random;
use super::settings;
use crate::error::{Error, Result, StartError};
use crate::secret::{MASK, Secret};

/// The most bytes of a password. NIST SP 800-63B-4 (section 3.1.1.2) asks for 64 characters at least; nothing is cut off.
const MAX_BYTES: usize = 1_024;

/// A password with fewer different characters is one key that is held down, or two in turn.
const MIN_DIFFERENT: usize = 5;

/// The bytes of a hash, and of its salt (RFC 9106, section 4).
const HASH: usize = 32;
const SALT: usize = 16;

/// Passwords that are tried first: lines that begin with `#` say where they are from.
const COMMON: &str = include_str!("common_passwords.txt");

/// The hash of a password, with its salt and its parameters: `$argon2id$v=19$m=19456,t=2,p=1$…`.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// What a password has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It is another one, or there is no such user.
    No,
    /// It is the right one.
    Yes,
    /// It is the right one, and its hash is weaker than the settings ask for: this is one to keep in its place.
    YesRehash(PasswordHash),
}

/// Why a new password is refused. As text it is for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// It has fewer characters than this.
    TooShort(u64),
    /// It has more bytes than 1,024.
    TooLong,
    /// It is one of those that are tried first.
    Common,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(least) => write!(f, "must have at least {least} characters"),
            Self::TooLong => write!(f, "must have at most {MAX_BYTES} bytes"),
            Self::Common => f.write_str("is one of those that are easy to guess"),
        }
    }
}

/// Makes and verifies the hashes of passwords. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    service: String,
    min_length: u64,
    params: Params,
    permits: Arc<Semaphore>,
    /// Memory of earlier hashes, at most one piece for each permit: a new one has to be given by the system, page by page,
    /// which takes longer than the hash.
    memory: Mutex<Vec<Vec<Block>>>,
    #[cfg(test)]
    seen: tests::Seen,
}

impl Passwords {
    /// Passwords with these settings, for a service of this name.
    pub fn new(settings: &settings::Passwords, service: &str) -> Result<Self, StartError> {
        let (kib, passes) = (settings.memory.get() / 1_024, settings.passes.get());
        let figure = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let params = Params::new(figure(kib), figure(passes), 1, Some(HASH));
        let params = params.map_err(|error| StartError::config(format!("auth.passwords: {error}")))?;
        let at_once = match settings.at_once.as_usize() {
            0 => available_parallelism().map_or(1, usize::from),
            at_once => at_once,
        };
        Ok(Self(Arc::new(Inner {
            service: service.to_owned(),
            min_length: settings.min_length.get(),
            params,
            permits: Arc::new(Semaphore::new(at_once)),
            memory: Mutex::default(),
            #[cfg(test)]
            seen: tests::Seen::default(),
        })))
    }

    /// Whether a new password is good enough. `context` is what belongs to its user, such as the name in the address of the
    /// mail. There are no rules of composition: they make passwords worse (NIST SP 800-63B-4, section 3.1.1.2).
    pub fn check(&self, password: &Secret, context: &[&str]) -> Result<(), Weakness> {
        let text = password.expose();
        if text.len() > MAX_BYTES {
            return Err(Weakness::TooLong);
        }
        let characters = text.chars().count();
        if u64::try_from(characters).unwrap_or(u64::MAX) < self.0.min_length {
            return Err(Weakness::TooShort(self.0.min_length));
        }
        let whole = text.to_lowercase();
        let lower: Vec<char> = whole.chars().collect();
        // What is one piece again and again is no better than the piece: `passwordpassword`, `123456789012345`.
        let length = (1..lower.len()).find(|length| repeats(&lower, *length)).unwrap_or(lower.len());
        let piece: String = lower.iter().take(length).collect();
        // Digits and signs around a word are what lists of guesses try too: `password1234567`.
        let word_alone = whole.trim_matches(|c: char| !c.is_alphabetic());
        let is_known = |word: &str| word == whole || word == piece || word == word_alone;
        let mut own = context.iter().copied().chain([self.0.service.as_str()]);
        let is_common = lower.iter().collect::<BTreeSet<_>>().len() < MIN_DIFFERENT
            || lower.len() >= 2 * length
            || own.any(|word| is_known(&word.to_lowercase()))
            || COMMON.lines().any(is_known);
        if is_common { Err(Weakness::Common) } else { Ok(()) }
    }

    /// The hash of a new password; [`Passwords::check`] first. It waits for its turn.
    pub async fn hash(&self, password: &Secret) -> Result<PasswordHash> {
        if password.expose().len() > MAX_BYTES {
            return Err(Error::internal("a password of more than 1,024 bytes: check it first"));
        }
        let password = password.clone();
        self.run(move |inner| inner.new_hash(&password)).await
    }

    /// Whether the password is the one of the hash. Without a hash it is not, and that takes as long: so the time does not
    /// tell whether there is such a user.
    pub async fn verify(&self, hash: Option<&PasswordHash>, password: &Secret) -> Result<Verified> {
        if password.expose().len() > MAX_BYTES {
            return Ok(Verified::No);
        }
        let (hash, password) = (hash.cloned(), password.clone());
        self.run(move |inner| match hash {
            None => inner.new_hash(&password).map(|_| Verified::No),
            Some(hash) => inner.verify(&hash, &password),
        })
        .await
    }

    /// Runs this beside the reactor when there is a permit. The permit goes with it: a request that is given up leaves a
    /// thread that still computes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.map_err(Error::internal)?;
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&inner);
            drop(permit);
            result
        });
        done.await.map_err(Error::internal)?
    }
}

impl Inner {
    fn new_hash(&self, password: &Secret) -> Result<PasswordHash> {
        let salt: [u8; SALT] = random::bytes()?;
        let hash = self.compute(&self.params, &salt, password)?;
        let hash = phc::PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.params).map_err(broken)?,
            salt: Some(Salt::new(&salt).map_err(broken)?),
            hash: Some(Output::new(&hash).map_err(broken)?),
        };
        Ok(PasswordHash(hash.to_string()))
    }

    fn verify(&self, hash: &PasswordHash, password: &Secret) -> Result<Verified> {
        let kept = phc::PasswordHash::new(&hash.0).map_err(broken)?;
        let params = Params::try_from(&kept).map_err(broken)?;
        let (Some(salt), Some(expected)) = (kept.salt, kept.hash) else {
            return Err(broken("it has no hash"));
        };
        if kept.algorithm != ARGON2ID_IDENT || expected.len() != HASH {
            return Err(broken("it is no argon2id of 32 bytes"));
        }
        let given = self.compute(&params, &salt, password)?;
        // Hashes of both are compared: how long that takes tells nothing of them.
        if Sha256::digest(given) != Sha256::digest(expected.as_bytes()) {
            return Ok(Verified::No);
        }
        if params.m_cost() >= self.params.m_cost() && params.t_cost() >= self.params.t_cost() {
            return Ok(Verified::Yes);
        }
        self.new_hash(password).map(Verified::YesRehash)
    }

    fn compute(&self, params: &Params, salt: &[u8], password: &Secret) -> Result<[u8; HASH]> {
        #[cfg(test)]
        let _running = self.seen.enter();
        let memory = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blocks = memory().pop().unwrap_or_default();
        blocks.resize(params.block_count(), Block::default());
        let mut hash = [0; HASH];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let done =
            argon2.hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut hash, &mut blocks);
        memory().push(blocks);
        done.map_err(broken)?;
        Ok(hash)
    }
}

/// An error without the hash and without the password.
fn broken(cause: impl fmt::Display) -> Error {
    Error::internal(format!("the hash of a password: {cause}"))
}

/// Whether the text is its first characters, so many, again and again; the last time perhaps not whole.
fn repeats(text: &[char], length: usize) -> bool {
    text.iter().zip(text.iter().skip(length)).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use serde_json::json;

    /// What is seen of the hashes that are computed.
    #[derive(Default)]
    pub(super) struct Seen {
        running: AtomicUsize,
        most: AtomicUsize,
        all: AtomicUsize,
        /// Who holds it keeps hashes from their end.
        gate: tokio::sync::Mutex<()>,
    }

    pub(super) struct Running<'a>(&'a Seen);

    impl Seen {
        pub(super) fn enter(&self) -> Running<'_> {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            self.all.fetch_add(1, Ordering::SeqCst);
            drop(self.gate.blocking_lock());
            Running(self)
        }
    }

    impl Drop for Running<'_> {
        fn drop(&mut self) {
            self.0.running.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn passwords(min_length: u64, memory: &str, at_once: u64) -> Passwords {
        let settings = json!({"min_length": min_length, "memory": memory, "passes": 1, "at_once": at_once});
        Passwords::new(&serde_json::from_value(settings).unwrap(), "Corner-Shop-of-Ada").unwrap()
    }

    const WEAKEST: &str = "7MiB";

    fn count(passwords: &Passwords) -> usize {
        passwords.0.seen.all.load(Ordering::SeqCst)
    }

    /// Different characters, so many.
    fn text_of(length: u32) -> String {
        (0..length).map(|n| char::from_u32(0x4e00 + n).unwrap()).collect()
    }

    #[test]
    fn a_password_has_enough_characters_and_not_too_many_bytes() {
        let passwords = passwords(15, WEAKEST, 1);
        let check = |text: String| passwords.check(&Secret::new(text), &[]);
        assert_eq!(check(text_of(14)), Err(Weakness::TooShort(15)));
        for length in [15, 64, 341] {
            assert_eq!(check(text_of(length)), Ok(()), "{length}");
        }
        // 1,024 bytes, and one more.
        assert_eq!(check(text_of(341) + "a"), Ok(()));
        assert_eq!(check(text_of(341) + "ab"), Err(Weakness::TooLong));
    }

    #[test]
    fn common_passwords_and_those_of_the_user_are_refused() {
        let passwords = passwords(8, WEAKEST, 1);
        let check = |text: &str| passwords.check(&Secret::new(text), &["ada.lovelace", ""]);
        let common = ["password", "PassWord", "1q2w3e4r5t6y7u8i9o0p", "passwordpassword", "123456789012345"];
        let simple = ["aaaaaaaaaaaaaaa", "abababababababab", "tree-houtree-hou", "tree-hou!tree-hou!tree-"];
        let own =
            ["Ada.Lovelace", "ada.lovelaceada.lovelace", "corner-shop-of-ada", "corner-shop-of-adacorner"];
        for text in [&common[..], &simple, &own].concat() {
            assert_eq!(check(text), Err(Weakness::Common), "{text}");
        }
        for good in ["correct horse battery staple", "my password is long", "пароль-не-простой"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[tokio::test]
    async fn nothing_is_cut_off_and_a_hash_shows_nothing() {
        let passwords = passwords(15, WEAKEST, 1);
        let (one, other) = (Secret::new(text_of(199) + "a"), Secret::new(text_of(199) + "b"));
        let hash = passwords.hash(&one).await.unwrap();
        assert_eq!(passwords.verify(Some(&hash), &one).await.unwrap(), Verified::Yes);
        assert_eq!(passwords.verify(Some(&hash), &other).await.unwrap(), Verified::No);
        assert_ne!(passwords.hash(&one).await.unwrap(), hash, "a salt of its own");
        assert_eq!(format!("{hash:?}"), "***");
        assert!(hash.0.starts_with("$argon2id$v=19$m=7168,t=1,p=1$"), "{}", hash.0);
        let kept: PasswordHash = serde_json::from_value(json!(hash.0)).unwrap();
        assert_eq!(kept, hash);
        let long = Secret::new("x".repeat(1_025));
        assert_eq!(passwords.verify(Some(&hash), &long).await.unwrap(), Verified::No);
        assert!(!passwords.hash(&long).await.unwrap_err().cause().contains("xx"));
        let broken = PasswordHash("$2b$10$hunter2".to_owned());
        let error = passwords.verify(Some(&broken), &one).await.unwrap_err();
        assert!(!error.trace().contains("hunter2"), "{error:?}");
    }

    #[tokio::test]
    async fn an_unknown_user_costs_one_hash() {
        let passwords = passwords(15, WEAKEST, 1);
        let secret = Secret::new(text_of(15));
        assert_eq!(passwords.verify(None, &secret).await.unwrap(), Verified::No);
        assert_eq!(count(&passwords), 1);
        let hash = passwords.hash(&secret).await.unwrap();
        assert_eq!(passwords.verify(Some(&hash), &Secret::new("another one")).await.unwrap(), Verified::No);
        assert_eq!(count(&passwords), 3);
    }

    #[tokio::test]
    async fn a_hash_of_weaker_parameters_is_made_anew_when_its_password_comes() {
        let (weak, strong) = (passwords(15, WEAKEST, 1), passwords(15, "8MiB", 1));
        let secret = Secret::new(text_of(15));
        let old = weak.hash(&secret).await.unwrap();
        assert_eq!(strong.verify(Some(&old), &Secret::new("another one")).await.unwrap(), Verified::No);
        let Verified::YesRehash(new) = strong.verify(Some(&old), &secret).await.unwrap() else { panic!() };
        assert!(new.0.contains("m=8192,"), "{}", new.0);
        assert_eq!(strong.verify(Some(&new), &secret).await.unwrap(), Verified::Yes);
        // Not the other way.
        assert_eq!(weak.verify(Some(&new), &secret).await.unwrap(), Verified::Yes);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn so_many_hashes_are_computed_at_once_and_no_more() {
        let passwords = passwords(15, WEAKEST, 2);
        let hashes = (0..20).map(|_| {
            let passwords = passwords.clone();
            tokio::spawn(async move { passwords.hash(&Secret::new(text_of(15))).await.unwrap() })
        });
        futures_util::future::try_join_all(hashes).await.unwrap();
        let seen = &passwords.0.seen;
        assert_eq!((count(&passwords), seen.most.load(Ordering::SeqCst)), (20, 2));
        assert!(passwords.0.memory.lock().unwrap().len() <= 2);
    }

    #[tokio::test]
    async fn a_caller_that_has_gone_keeps_its_permit_until_its_hash_is_done() {
        let passwords = passwords(15, WEAKEST, 1);
        let secret = Secret::new(text_of(15));
        let gate = passwords.0.seen.gate.lock().await;
        {
            let mut abandoned = Box::pin(passwords.hash(&secret));
            std::future::poll_fn(|context| {
                assert!(abandoned.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(passwords.0.permits.available_permits(), 0, "it was dropped, and still computes");
        drop(gate);
        passwords.hash(&secret).await.unwrap();
        assert_eq!((count(&passwords), passwords.0.seen.most.load(Ordering::SeqCst)), (2, 1));
    }

    /// `cargo test -p platform --release -- --ignored --nocapture the_time_of_a_hash`
    #[test]
    #[ignore = "measures"]
    fn the_time_of_a_hash() {
        let settings = json!({"min_length": 15, "memory": "19MiB", "passes": 2, "at_once": 1});
        let passwords = Passwords::new(&serde_json::from_value(settings).unwrap(), "shop").unwrap();
        for reused in [false, true] {
            let begun = std::time::Instant::now();
            for _ in 0..20 {
                if !reused {
                    passwords.0.memory.lock().unwrap().clear();
                }
                passwords.0.new_hash(&Secret::new("secret")).unwrap();
            }
            println!("reused {reused}: {:?}", begun.elapsed() / 20);
        }
    }
}
