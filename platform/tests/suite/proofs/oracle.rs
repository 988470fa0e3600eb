//! The oracle: it knows every write that was sent and how it was answered, and so which states a store may be found in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// An entry as it was sent: its text, which no other write has, and a number that is higher for each write after it. 0
/// without a text is an entry that was never created; a deletion counts as one more write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub version: u64,
    pub text: Option<String>,
}

/// An entry that was found.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Found {
    pub id: String,
    pub version: u64,
    pub token: String,
    pub text: String,
}

/// How a write was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With success: it must be there from now on.
    Acknowledged,
    /// With a refusal, such as 412: it must never be there.
    Refused,
    /// With an outage, or not at all: it may be there or not.
    Unknown,
}

#[derive(Default)]
struct History {
    id: Option<String>,
    sent: Vec<(State, Answer)>,
}

impl History {
    fn acknowledged(&self) -> u64 {
        let acknowledged = self.sent.iter().filter(|(_, answer)| *answer == Answer::Acknowledged);
        acknowledged.map(|(state, _)| state.version).max().unwrap_or(0)
    }

    /// Whether the entry may be found with this text, or (`None`) not at all.
    fn allows(&self, text: Option<&str>) -> bool {
        let last = self.acknowledged();
        if last == 0 && text.is_none() {
            return true;
        }
        self.sent.iter().any(|(state, answer)| {
            let possible = match answer {
                Answer::Acknowledged => state.version == last,
                Answer::Unknown => state.version > last,
                Answer::Refused => false,
            };
            possible && state.text.as_deref() == text
        })
    }
}

/// What was sent so far.
#[derive(Default)]
pub struct Oracle {
    inner: Mutex<Inner>,
    /// Whether half a group is allowed, which the documentation of the engine says.
    halves_groups: bool,
}

#[derive(Default)]
struct Inner {
    histories: HashMap<String, History>,
    /// The tokens that were inserted together.
    groups: Vec<Vec<String>>,
    wrong_answers: Vec<String>,
    /// Whether the power is being cut.
    cut: bool,
    acknowledged: u64,
    unavailable: u64,
}

/// A write of which the answer is not yet known.
#[must_use]
pub struct Sent {
    token: String,
    number: usize,
}

impl Oracle {
    /// An oracle for an engine that may store a part of the entries that are inserted together.
    pub fn of_halved_groups() -> Self {
        Self { halves_groups: true, ..Self::default() }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a write before it is sent.
    pub fn send(&self, token: &str, version: u64, text: Option<&str>) -> Sent {
        let mut inner = self.inner();
        let history = inner.histories.entry(token.to_owned()).or_default();
        let state = State { version, text: text.map(str::to_owned) };
        history.sent.push((state, Answer::Unknown));
        Sent { token: token.to_owned(), number: history.sent.len() - 1 }
    }

    /// Notes that these entries are inserted together.
    pub fn together(&self, tokens: Vec<String>) {
        self.inner().groups.push(tokens);
    }

    /// Notes the answer of a write, and the id that it gave.
    pub fn answered(&self, sent: &Sent, answer: Answer, id: Option<&str>) {
        let mut inner = self.inner();
        if inner.cut {
            return;
        }
        let history = inner.histories.get_mut(&sent.token).unwrap();
        history.sent[sent.number].1 = answer;
        if let Some(id) = id {
            history.id = Some(id.to_owned());
        }
        inner.acknowledged += u64::from(answer == Answer::Acknowledged);
    }

    /// Notes a response of 503 or 507.
    pub fn unavailable(&self) {
        self.inner().unavailable += 1;
    }

    /// Notes a response that must never be, such as 500.
    pub fn wrong(&self, response: String) {
        let mut inner = self.inner();
        if !inner.cut {
            inner.wrong_answers.push(response);
        }
    }

    /// Notes that the power is about to be cut: no answer that comes later counts, because a machine without power gives
    /// none. Here the program goes on without its disk for a moment, and then ext4 lets some `fdatasync` succeed that has
    /// synced nothing (3 of 40 `shutdown`s under Linux 6.18, in a loop of `pwrite` and `fdatasync` alone), and SQLite takes
    /// what it can no longer read for damage, a 500.
    pub fn cut(&self) {
        self.inner().cut = true;
    }

    /// Whether a write of an entry was acknowledged whose token begins so.
    pub fn has_acknowledged(&self, prefix: &str) -> bool {
        let inner = self.inner();
        inner.histories.iter().any(|(token, history)| token.starts_with(prefix) && history.acknowledged() > 0)
    }

    /// How many writes were acknowledged, and how many responses were 503 or 507.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.acknowledged, inner.unavailable)
    }

    /// What is wrong with what was found: a lost write, half a write, a write that was refused. Where nothing is, what
    /// was found counts as acknowledged from now on.
    pub fn check(&self, found: &[Found]) -> Result<(), Vec<String>> {
        let mut inner = self.inner();
        inner.cut = false;
        let mut wrong = std::mem::take(&mut inner.wrong_answers);
        let mut by_token: HashMap<&str, &Found> = HashMap::new();
        for entry in found {
            if by_token.insert(&entry.token, entry).is_some() {
                wrong.push(format!("{}: stored twice", entry.token));
            }
            if !inner.histories.contains_key(&entry.token) {
                wrong.push(format!("{}: was never sent", entry.token));
            }
        }
        for (token, history) in &inner.histories {
            let entry = by_token.get(token.as_str());
            let text = entry.map(|entry| entry.text.as_str());
            if !history.allows(text) {
                let expected = history.acknowledged();
                let start = text.map(|text| text.get(..60).unwrap_or(text));
                wrong.push(format!("{token}: acknowledged {expected}, found {start:?}"));
            }
            if let (Some(id), Some(entry)) = (&history.id, entry)
                && *id != entry.id
            {
                wrong.push(format!("{token}: acknowledged with the id {id}, found as {}", entry.id));
            }
        }
        for group in &inner.groups {
            let there = group.iter().filter(|token| by_token.contains_key(token.as_str())).count();
            if there != 0 && there != group.len() && !self.halves_groups {
                wrong.push(format!("{}: {there} of {} inserted together", group[0], group.len()));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        for (token, history) in &mut inner.histories {
            let entry = by_token.get(token.as_str());
            let text = entry.map(|entry| entry.text.as_str());
            for (state, answer) in &mut history.sent {
                if *answer == Answer::Unknown && state.text.as_deref() == text {
                    *answer = Answer::Acknowledged;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(token: &str, version: u64, text: &str) -> Found {
        Found { id: token.to_owned(), version, token: token.to_owned(), text: text.to_owned() }
    }

    /// An oracle of one entry that was created, replaced, and replaced again without an answer.
    fn oracle() -> Oracle {
        let oracle = Oracle::default();
        for (version, text, answer) in [
            (1, "one", Answer::Acknowledged),
            (2, "two", Answer::Acknowledged),
            (3, "refused", Answer::Refused),
            (3, "three", Answer::Unknown),
        ] {
            oracle.answered(&oracle.send("a", version, Some(text)), answer, Some("a"));
        }
        oracle
    }

    #[test]
    fn what_was_acknowledged_is_allowed_and_so_is_what_has_no_answer() {
        oracle().check(&[found("a", 2, "two")]).unwrap();
        let oracle = oracle();
        oracle.check(&[found("a", 3, "three")]).unwrap();
        // What was there once must stay.
        oracle.check(&[found("a", 2, "two")]).unwrap_err();
    }

    #[test]
    fn every_other_state_is_wrong() {
        for wrong in [
            vec![],
            vec![found("a", 1, "one")],
            vec![found("a", 2, "tw")],
            vec![found("a", 3, "refused")],
            vec![found("a", 2, "two"), found("a", 2, "two")],
            vec![found("a", 2, "two"), found("b", 1, "never sent")],
            vec![Found { id: "other".to_owned(), ..found("a", 2, "two") }],
        ] {
            oracle().check(&wrong).unwrap_err();
        }
    }

    #[test]
    fn half_a_group_is_wrong_also_without_an_answer() {
        let oracle = Oracle::default();
        for token in ["a", "b"] {
            let _ = oracle.send(token, 1, Some("x"));
        }
        oracle.together(vec!["a".to_owned(), "b".to_owned()]);
        oracle.check(&[]).unwrap();
        oracle.check(&[found("a", 1, "x")]).unwrap_err();
        oracle.check(&[found("a", 1, "x"), found("b", 1, "x")]).unwrap();
        oracle.check(&[]).unwrap_err();
    }

    #[test]
    fn a_deletion_that_was_acknowledged_stays() {
        let oracle = oracle();
        oracle.answered(&oracle.send("a", 4, None), Answer::Acknowledged, None);
        oracle.check(&[]).unwrap();
        oracle.check(&[found("a", 3, "three")]).unwrap_err();
    }

    #[test]
    fn an_answer_after_the_cut_does_not_count_until_the_power_is_back() {
        let oracle = oracle();
        let sent = oracle.send("b", 1, Some("x"));
        oracle.cut();
        oracle.answered(&sent, Answer::Acknowledged, None);
        oracle.check(&[found("a", 2, "two")]).unwrap();
        oracle.answered(&sent, Answer::Acknowledged, None);
        oracle.check(&[found("a", 2, "two")]).unwrap_err();
    }
}
