//! Mails as files, for development.

use std::fs::{OpenOptions, create_dir_all, read, read_dir, remove_file};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::message::Mail;

/// How many mails are kept: enough for development, and few enough for one page.
const MOST: usize = 50;

/// A folder of mails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(pub(super) PathBuf);

impl Folder {
    /// Writes a mail, and deletes the oldest ones beyond the bound. The file has the name of its id: so a mail that is sent
    /// twice is there once, and they sort by time. Only the user of the server can read it: a link in it is a secret.
    pub(super) fn write(&self, id: &str, mail: &Mail) -> io::Result<()> {
        create_dir_all(&self.0)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.0.join(format!("{id}.json")))?.write_all(&serde_json::to_vec_pretty(mail)?)?;
        for old in self.files()?.into_iter().skip(MOST) {
            // Another process may have deleted it.
            let _ = remove_file(old);
        }
        Ok(())
    }

    /// The files, the newest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort_unstable_by(|one, other| other.cmp(one));
        Ok(files)
    }

    /// The mails, the newest first.
    pub(crate) fn mails(&self) -> io::Result<Vec<Mail>> {
        let files = self.files()?.into_iter();
        Ok(files.filter_map(|file| serde_json::from_slice(&read(file).ok()?).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::metadata;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn mails_are_for_their_user_only_and_the_oldest_are_deleted() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder(parent.path().join("var/mails"));
        assert!(folder.mails().unwrap().is_empty());
        let write = |number: usize, subject: &str| {
            let mail = Mail::new("ada@a.example", subject, "").unwrap();
            folder.write(&format!("{number:04}"), &mail).unwrap();
        };
        for number in 0..=MOST {
            write(number, &number.to_string());
        }
        write(MOST, "again");
        let found = folder.mails().unwrap();
        let (newest, oldest) = (found[0].subject.as_str(), found.last().unwrap().subject.as_str());
        assert_eq!((found.len(), newest, oldest), (MOST, "again", "1"));
        for file in folder.files().unwrap() {
            assert_eq!(metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
