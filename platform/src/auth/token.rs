//! API tokens: what a program of a user shows in place of a password.
//!
//! In the form of GitHub's (docs/ACCOUNTS.md): a prefix that a search for leaked secrets finds, 30 random characters, and a checksum, by
//! which what is no token is told apart without the store. The store has a hash of it alone: a copy of the store opens nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::account::{Account, Holder};
use super::random::{self, hidden_id};
use crate::clock::{Clock, millis};
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::store::{Dao, DocumentStore, Entity, Expected, Filter, Patch, Stored, field};

/// What every token begins with. It is the same in every app, so that one rule of a scanner of secrets finds them all.
pub const PREFIX: &str = "app_";

/// The random characters: 178 bits.
const RANDOM: usize = 30;

/// The characters of the checksum: 62⁶ is more than 2³².
const CHECKSUM: u32 = 6;

/// The most tokens of one user: a list of them is short, and nobody fills the store. More are for programs that lose theirs.
const MAX_TOKENS: u64 = 100;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token, as it is kept. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    holder: Holder,
    name: String,
    scopes: Vec<String>,
    created: i64,
    used: Option<i64>,
    expires: Option<i64>,
}

impl Entity for Kept {
    const COLLECTION: &'static str = "platform_tokens";
    const INDEXES: &'static [&'static str] = &["user", "expires"];
}

/// A token, as its user may see it. It holds nothing that a program could send.
#[derive(Clone, Debug, Serialize)]
pub struct ApiToken {
    /// What [`ApiTokens::revoke`] is given.
    pub id: String,
    /// What the user calls it.
    pub name: String,
    /// What it may be used for: `read`, `write`, and what the app says.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was used last, as exactly as `auth.sessions.touch` has it.
    pub used: Option<Timestamp>,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

impl ApiToken {
    /// Whether it may be used for this.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }
}

impl TryFrom<Stored<Kept>> for ApiToken {
    type Error = Error;

    fn try_from(stored: Stored<Kept>) -> Result<Self> {
        let Kept { name, scopes, created, used, expires, .. } = stored.value;
        let time = |millis| Timestamp::from_millisecond(millis).map_err(Error::internal);
        let (used, expires) = (used.map(time).transpose()?, expires.map(time).transpose()?);
        Ok(Self { id: stored.id, name, scopes, created: time(created)?, used, expires })
    }
}

/// The API tokens of all users. Cheap to clone. An extractor.
#[derive(Clone)]
pub struct ApiTokens {
    tokens: Dao<Kept>,
    clock: Clock,
    touch: Duration,
}

impl ApiTokens {
    /// The tokens of this store. Their use is noted once in `touch`.
    pub fn new(store: Arc<dyn DocumentStore>, clock: Clock, touch: Duration) -> Self {
        Self { tokens: Dao::new(store), clock, touch }
    }

    /// Makes a token for a user. It can be shown now, and never again. It holds until it ends (`life`), is revoked, or the user
    /// has another [`Account::auth_version`].
    ///
    /// # Errors
    ///
    /// 409 for a user who has 100 tokens.
    pub async fn issue<U: Account>(
        &self,
        user: &Stored<U>,
        name: &str,
        scopes: &[String],
        life: Option<Duration>,
    ) -> Result<Secret> {
        if self.tokens.count(Holder::all_of(user)).await? >= MAX_TOKENS {
            return Err(Error::conflict("Too Many Tokens"));
        }
        let created = self.clock.millis();
        let token = Kept {
            holder: Holder::new(user),
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            created,
            used: None,
            expires: life.map(|life| created.saturating_add(millis(life))),
        };
        let text = random_token()?;
        self.tokens.insert_with_id(&hidden_id(&[&text]), &token).await?;
        Ok(Secret::new(text))
    }

    /// The token that this text is and its user, unless it has ended or was revoked. What has not the form of a token costs
    /// no look-up.
    pub async fn find<U: Account>(
        &self,
        users: &Dao<U>,
        text: &str,
    ) -> Result<Option<(ApiToken, Stored<U>)>> {
        if !is_well_formed(text) {
            return Ok(None);
        }
        let now = self.clock.millis();
        let found = self.tokens.get(&hidden_id(&[text])).await?;
        let holds = |kept: &Kept| kept.expires.is_none_or(|end| now < end);
        let Some(mut token) = found.filter(|token| holds(&token.value)) else { return Ok(None) };
        let Some(user) = token.value.holder.find(users).await? else { return Ok(None) };
        if token.value.used.is_none_or(|used| now >= used.saturating_add(millis(self.touch))) {
            let touched = self.tokens.update(&token.id, Expected::Any, Patch::new().set("used", now)).await?;
            // It was revoked meanwhile.
            let Some(touched) = touched else { return Ok(None) };
            token = touched;
        }
        Ok(Some((token.try_into()?, user)))
    }

    /// The tokens of a user that hold, and those that have ended and are not swept away yet; the oldest first.
    pub async fn list<U: Account>(&self, user: &Stored<U>) -> Result<Vec<ApiToken>> {
        let found = self.tokens.get_all(Holder::held_by(user)).await?;
        let mut tokens = found.into_iter().map(ApiToken::try_from).collect::<Result<Vec<_>>>()?;
        tokens.sort_by_key(|token| token.created);
        Ok(tokens)
    }

    /// Revokes a token of a user; false when this user has none of this id.
    pub async fn revoke<U: Account>(&self, user: &Stored<U>, id: &str) -> Result<bool> {
        self.tokens.delete_first(Filter::id(id).and(Holder::all_of(user))).await
    }

    /// Revokes all tokens of a user, and returns how many.
    pub async fn revoke_all<U: Account>(&self, user: &Stored<U>) -> Result<u64> {
        self.tokens.delete_all(Holder::all_of(user)).await
    }

    /// Deletes the tokens that have ended, and returns how many.
    pub async fn sweep(&self) -> Result<u64> {
        self.tokens.delete_all(field("expires").lte(self.clock.millis())).await
    }
}

/// A new token.
fn random_token() -> Result<String> {
    let mut text = PREFIX.to_owned();
    while text.len() < PREFIX.len() + RANDOM {
        let bytes = random::bytes::<RANDOM>()?;
        // 248 is the largest multiple of 62 in a byte: the ones above would make some characters likelier than others.
        let even =
            bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(BASE62[usize::from(byte % 62)]));
        text.extend(even.take(PREFIX.len() + RANDOM - text.len()));
    }
    let checksum = checksum(&text);
    Ok(text + &checksum)
}

/// The CRC-32 of a text in base 62, the highest digit first.
fn checksum(text: &str) -> String {
    let crc = crc32fast::hash(text.as_bytes());
    let digit = |place| char::from(BASE62[(crc / 62_u32.pow(place) % 62) as usize]);
    (0..CHECKSUM).rev().map(digit).collect()
}

/// Whether a text has the form of a token: prefix, length and checksum.
fn is_well_formed(text: &str) -> bool {
    let is_token = text.len() == PREFIX.len() + RANDOM + CHECKSUM as usize
        && text.is_ascii()
        && text.starts_with(PREFIX);
    is_token && {
        let (body, end) = text.split_at(PREFIX.len() + RANDOM);
        end == checksum(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_form_that_scanners_look_for() {
        let token = random_token().unwrap();
        assert_eq!((token.len(), &token[..4]), (40, "app_"));
        assert!(token[4..].bytes().all(|byte| byte.is_ascii_alphanumeric()) && is_well_formed(&token));
        assert_ne!(token, random_token().unwrap());
        // The check value of CRC-32 (ISO-HDLC): 0xCBF43926 = 3,421,780,262.
        let digits = checksum("123456789").bytes().fold(0_u64, |number, byte| {
            number * 62 + BASE62.iter().position(|digit| *digit == byte).unwrap() as u64
        });
        assert_eq!(digits, 0xCBF4_3926);
    }

    #[test]
    fn one_wrong_character_is_seen_without_the_store() {
        let token = random_token().unwrap();
        for place in 0..token.len() {
            let mut wrong = token.clone().into_bytes();
            wrong[place] = if wrong[place] == b'a' { b'b' } else { b'a' };
            assert!(!is_well_formed(&String::from_utf8(wrong).unwrap()), "{token} at {place}");
        }
        for wrong in ["", "app_", &token[..39], &format!("{token}0"), &format!("app_{}", "é".repeat(18))] {
            assert!(!is_well_formed(wrong), "{wrong}");
        }
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        // 620,000 draws: each of 62 comes 10,000 times, with a standard deviation of 99. The remainder of a whole byte would give
        // 8 of them 12,100.
        let mut counts = [0_u32; 256];
        for _ in 0..20_667 {
            random_token().unwrap()[4..34].bytes().for_each(|byte| counts[usize::from(byte)] += 1);
        }
        for character in BASE62 {
            let count = counts[usize::from(*character)];
            assert!((9_200..10_800).contains(&count), "{} came {count} times", char::from(*character));
        }
    }
}
