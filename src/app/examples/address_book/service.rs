//! The rules of the address book. It knows nothing of HTTP, so that a command line could use it too.

use std::collections::BTreeMap;

use super::model::Entry;
use platform::error::{Error, FieldError, Result};
use platform::store::{Dao, Expected, Filter, Stored};

/// The address book.
pub struct AddressBook {
    entries: Dao<Entry>,
}

impl AddressBook {
    pub fn new(entries: Dao<Entry>) -> Self {
        Self { entries }
    }

    /// Adds an entry and returns its id.
    pub async fn create(&self, entry: Entry) -> Result<String> {
        self.entries.insert(&checked(entry)?).await
    }

    pub async fn read(&self, id: &str) -> Result<Stored<Entry>> {
        self.entries.get(id).await?.ok_or_else(|| no_such_address(id))
    }

    /// The entries after this id, at most `limit` of them, and the id after which the next ones come.
    pub async fn list(
        &self,
        after: Option<&str>,
        limit: u64,
    ) -> Result<(BTreeMap<String, Entry>, Option<String>)> {
        let found = self.entries.get_page_after(Filter::all(), after, limit).await?;
        Ok((found.items.into_iter().map(|entry| (entry.id, entry.value)).collect(), found.next))
    }

    /// Replaces an entry that has the expected version, and gives its new one.
    pub async fn update(&self, id: &str, expected: Expected, entry: Entry) -> Result<u64> {
        let entry = checked(entry)?;
        self.entries.replace(id, expected, &entry).await?.ok_or_else(|| no_such_address(id))
    }

    pub async fn delete(&self, id: &str, expected: Expected) -> Result<()> {
        if self.entries.delete(id, expected).await? { Ok(()) } else { Err(no_such_address(id)) }
    }
}

/// Checks the rules that a JSON Schema cannot express: a name is not blank, and no email address is there twice.
fn checked(entry: Entry) -> Result<Entry> {
    let mut errors = Vec::new();
    if entry.full_name.trim().is_empty() {
        errors.push(FieldError { pointer: "/full_name".to_owned(), message: "is blank".to_owned() });
    }
    let emails = entry.emails.as_deref().unwrap_or_default();
    for (at, email) in emails.iter().enumerate() {
        if emails[..at].iter().any(|earlier| earlier.email.eq_ignore_ascii_case(&email.email)) {
            errors.push(FieldError {
                pointer: format!("/emails/{at}/email"),
                message: "is there twice".to_owned(),
            });
        }
    }
    if errors.is_empty() {
        Ok(entry)
    } else {
        Err(Error::bad_request("Invalid address entry").with_errors(errors))
    }
}

fn no_such_address(id: &str) -> Error {
    Error::not_found("No Such Address").with_message(format!("There is no address with id '{id}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn refused_at(entry: Value) -> Vec<String> {
        let error = checked(from_value(entry).unwrap()).unwrap_err();
        error.errors().iter().map(|error| error.pointer.clone()).collect()
    }

    #[test]
    fn a_name_of_blanks_is_refused() {
        assert_eq!(refused_at(json!({"full_name": "  "})), ["/full_name"]);
    }

    #[test]
    fn an_email_address_that_is_there_twice_is_refused() {
        let emails = json!([{"kind": "home", "email": "a@b.org"}, {"kind": "work", "email": "A@b.org"}]);
        assert_eq!(refused_at(json!({"full_name": "Ada", "emails": emails})), ["/emails/1/email"]);
    }

    #[test]
    fn an_entry_is_the_same_after_the_model_has_read_it() {
        for pincode in [json!(1_234), json!("SW1Y 4JH"), json!(12.5)] {
            let address = json!({"kind": "home", "street_name": "s", "pincode": pincode, "country": "UK"});
            let sent = json!({"full_name": "Ada", "addresses": [address], "emails": []});
            let entry: Entry = from_value(sent.clone()).unwrap();
            assert_eq!(serde_json::to_value(checked(entry).unwrap()).unwrap(), sent);
        }
    }
}
