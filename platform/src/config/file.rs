//! Reads the file that is given with `--config`, up to a largest size. Errors have one line.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::tree::{Node, Origin};
use super::yaml;
use crate::error::StartError;

/// 50 times the defaults with all their comments. A bound, because `/dev/zero` never ends.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the text of the file.
pub(super) fn read(path: &Path) -> Result<String, StartError> {
    let origin = Origin::file(&path.to_string_lossy());
    let bytes = bytes(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => origin.wrong("there is no such file (--config)"),
        ErrorKind::PermissionDenied => origin.wrong("no permission to read it (--config)"),
        ErrorKind::IsADirectory => origin.wrong("is a directory, expected a YAML file (--config)"),
        _ => origin.wrong(format_args!("cannot be read: {error} (--config)")),
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(origin.wrong(format_args!("is larger than {MAX_BYTES} bytes, too large for settings")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        origin.at(line).wrong("is not UTF-8 text")
    })
}

/// The keys in the text of the file; an empty one holds none.
pub(super) fn parse(path: &Path, text: &str) -> Result<Node, StartError> {
    yaml::parse(text, &Origin::file(&path.to_string_lossy()))
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        let error = read(path).unwrap_err();
        assert_eq!(error.exit_code, 2);
        error.to_string()
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let name = |path: &Path| path.display().to_string();

        let missing = folder.path().join("none.yaml");
        assert_eq!(refused(&missing), format!("{}: there is no such file (--config)", name(&missing)));

        let directory = folder.path();
        assert_eq!(
            refused(directory),
            format!("{}: is a directory, expected a YAML file (--config)", name(directory))
        );

        let latin = folder.path().join("latin.yaml");
        std::fs::write(&latin, b"a: 1\nb: caf\xe9\n").unwrap();
        assert_eq!(refused(&latin), format!("{}:2: is not UTF-8 text", name(&latin)));
    }

    #[test]
    fn a_file_without_end_is_refused() {
        assert_eq!(
            refused(Path::new("/dev/zero")),
            "/dev/zero: is larger than 1048576 bytes, too large for settings"
        );
    }

    #[test]
    fn an_empty_file_holds_no_keys() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = read(file.path()).unwrap();
        assert_eq!(parse(file.path(), &text).unwrap().to_json(), serde_json::json!({}));
    }
}
