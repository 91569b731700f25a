//! Settings: one error type that tells the reader what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::Uri;

/// A secret file is a line of text; more than this is another file by mistake.
const SECRET_FILE_MAX_BYTES: u64 = 64 * 1024;

/// A setting that cannot be used. Names the setting, what was read (never for secrets) and what is
/// allowed.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// It is required and absent.
    #[error("{name} is not set; it must be {allowed}")]
    Missing {
        /// The environment variable.
        name: &'static str,
        /// What it may be.
        allowed: String,
    },
    /// It is there and cannot be used.
    #[error("{name} is {read}, but must be {allowed}")]
    Invalid {
        /// The environment variable.
        name: &'static str,
        /// What was read, or "(secret)".
        read: String,
        /// What it may be.
        allowed: String,
    },
    /// Both a secret and the file of a secret are given.
    #[error("both {name} and {name}_FILE are set; set only one of them")]
    Twice {
        /// The variable without `_FILE`.
        name: &'static str,
    },
    /// The file of a secret cannot be read.
    #[error("{name}_FILE names {}, which cannot be read: {source}", path.display())]
    Unreadable {
        /// The variable without `_FILE`.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl SettingError {
    /// For a value that may be shown.
    pub fn invalid(name: &'static str, read: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Self::Invalid { name, read: format!("{:?}", read.to_string()), allowed: allowed.into() }
    }

    /// For a secret: what was read is not repeated.
    pub fn invalid_secret(name: &'static str, allowed: impl Into<String>) -> Self {
        Self::Invalid { name, read: "(secret)".to_owned(), allowed: allowed.into() }
    }
}

/// Parses a setting; on failure says what is allowed.
///
/// # Errors
///
/// [`SettingError::Invalid`] with `text` in it: not for secrets.
pub fn parse<T: FromStr>(name: &'static str, text: &str, allowed: &str) -> Result<T, SettingError> {
    text.parse().map_err(|_| SettingError::invalid(name, text, allowed))
}

/// A URL that can be called. It is logged, so it may not have a user or a password in it.
///
/// # Errors
///
/// [`SettingError::Invalid`], which does not repeat a URL with a password.
pub fn http_url(name: &'static str, text: &str, example: &str) -> Result<String, SettingError> {
    let uri = text.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    match uri {
        Some(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Err(SettingError::invalid_secret(name, format!("a URL without user and password, such as {example}")))
        }
        Some(_) => Ok(text.to_owned()),
        None => Err(SettingError::invalid(name, text, format!("a URL such as {example}"))),
    }
}

/// A secret given either as a value (`NAME`) or as a file that contains it (`NAME_FILE`). White
/// space around the file's content, such as the newline that editors add, does not belong to it.
///
/// # Errors
///
/// [`SettingError::Twice`] and [`SettingError::Unreadable`].
pub fn value_or_file(name: &'static str, value: Option<String>, file: Option<&Path>) -> Result<Option<String>, SettingError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(SettingError::Twice { name }),
        (Some(value), None) => Ok(Some(value)),
        (None, Some(path)) => {
            let unreadable = |source| SettingError::Unreadable { name, path: path.to_owned(), source };
            read_secret(path).map(Some).map_err(unreadable)
        }
        (None, None) => Ok(None),
    }
}

pub(crate) fn read_secret(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > SECRET_FILE_MAX_BYTES {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_setting_what_was_read_and_what_is_allowed() {
        let error = parse::<u16>("PORT", "eighty", "a number from 1 to 65535").unwrap_err();
        assert_eq!(error.to_string(), "PORT is \"eighty\", but must be a number from 1 to 65535");
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let error = SettingError::invalid_secret("JWT_SECRET", "at least 32 bytes");
        assert_eq!(error.to_string(), "JWT_SECRET is (secret), but must be at least 32 bytes");
    }

    #[test]
    fn a_secret_comes_from_the_value_or_the_file_but_not_from_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "from the file\n").unwrap();
        let read = |value: Option<&str>, file| value_or_file("X", value.map(str::to_owned), file);
        assert_eq!(read(Some("value"), None).unwrap().unwrap(), "value");
        assert_eq!(read(None, Some(&path)).unwrap().unwrap(), "from the file");
        assert_eq!(read(None, None).unwrap(), None);
        assert!(matches!(read(Some("value"), Some(&path)), Err(SettingError::Twice { name: "X" })));
        let error = read(None, Some(&folder.path().join("missing"))).unwrap_err();
        assert!(error.to_string().starts_with("X_FILE names "), "{error}");
    }
}
