//! Shared secrets for HS256.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::settings::{SettingError, read_secret, value_or_file};

/// RFC 7518, section 3.2: a key for HS256 has at least the size of the hash.
const SECRET_MIN_BYTES: usize = 32;

/// Random bytes in a secret made here.
const GENERATED_BYTES: usize = 32;

/// Secrets that verify at the same time. Rotation needs two.
const SECRETS_MAX: usize = 8;

/// A shared secret of at least 32 bytes. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret that is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret of {bytes} bytes is too short; it must have at least {SECRET_MIN_BYTES} (for example: openssl rand -hex 32)")]
pub struct WeakSecret {
    /// How long it is.
    pub bytes: usize,
}

/// Why a secret's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read or created.
    #[error("the key file {} cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What it contains is no secret.
    #[error("the key file {} cannot be used: {source}", path.display())]
    Weak {
        /// The file.
        path: PathBuf,
        /// Why.
        source: WeakSecret,
    },
}

impl Secret {
    /// The secret is the text's bytes.
    ///
    /// # Errors
    ///
    /// Below 32 bytes.
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        if text.len() < SECRET_MIN_BYTES {
            return Err(WeakSecret { bytes: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// The secrets of a setting `NAME` or `NAME_FILE`: one, or several separated by commas, of which
    /// the first signs and all verify. Empty when neither is set.
    ///
    /// # Errors
    ///
    /// A [`SettingError`] that does not repeat the secret.
    pub fn from_setting(name: &'static str, value: Option<String>, file: Option<&Path>) -> Result<Vec<Self>, SettingError> {
        let Some(text) = value_or_file(name, value, file)? else {
            return Ok(Vec::new());
        };
        let secrets: Vec<_> = text.split(',').map(|part| Self::new(part.trim())).collect();
        let allowed = || {
            format!(
                "1 to {SECRETS_MAX} secrets separated by commas, each of at least {SECRET_MIN_BYTES} bytes \
                 (for example: openssl rand -hex 32)"
            )
        };
        if secrets.len() > SECRETS_MAX {
            return Err(SettingError::invalid_secret(name, allowed()));
        }
        secrets.into_iter().collect::<Result<_, _>>().map_err(|_| SettingError::invalid_secret(name, allowed()))
    }

    /// The secret in a file, which is made when missing: 32 random bytes as text, readable by the
    /// owner only. Complete or not there, whenever the process is killed; of several processes that
    /// make it at once, one wins and all read the same.
    ///
    /// # Errors
    ///
    /// When it cannot be read or made, or holds no secret.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretFileError> {
        let io = |source| SecretFileError::Io { path: path.to_owned(), source };
        let text = match read_secret(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(path).map_err(io)?;
                read_secret(path).map_err(io)?
            }
            Err(error) => return Err(io(error)),
        };
        warn_if_readable_by_others(path);
        Self::new(&text).map_err(|source| SecretFileError::Weak { path: path.to_owned(), source })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn create(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut bytes = [0; GENERATED_BYTES];
    rand::fill(&mut bytes);

    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{:016x}.new", rand::random::<u64>()));
    let unfinished = PathBuf::from(unfinished);
    let mut file = new_private_file(&unfinished)?;
    file.write_all(format!("{}\n", URL_SAFE_NO_PAD.encode(bytes)).as_bytes())?;
    file.sync_all()?;

    // A link, unlike a rename, does not replace what another process made meanwhile.
    match std::fs::hard_link(&unfinished, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            // A file system without links: the last of several processes wins.
            std::fs::rename(&unfinished, path)
        }
        _ => std::fs::remove_file(&unfinished),
    }
}

/// A key that others can read lets them sign tokens for anybody.
fn warn_if_readable_by_others(path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path) {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "the key file can be read by others; run chmod 600 on it");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

fn new_private_file(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_short_secret_is_refused_without_being_repeated() {
        let error = Secret::from_setting("JWT_SECRET", Some("hunter2".to_owned()), None).unwrap_err().to_string();
        assert!(error.contains("JWT_SECRET") && error.contains("at least 32 bytes"), "{error}");
        assert!(!error.contains("hunter2"));
        let one_is_short = format!("{LONG},hunter2");
        Secret::from_setting("JWT_SECRET", Some(one_is_short), None).unwrap_err();
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new(LONG).unwrap()), "Secret(…)");
    }

    #[test]
    fn several_secrets_are_separated_by_commas() {
        let secrets = Secret::from_setting("JWT_SECRET", Some(format!("{LONG}1, {LONG}2")), None).unwrap();
        assert_eq!(secrets, [Secret::new(&format!("{LONG}1")).unwrap(), Secret::new(&format!("{LONG}2")).unwrap()]);
        assert!(Secret::from_setting("JWT_SECRET", None, None).unwrap().is_empty());
    }

    #[test]
    fn a_made_key_is_private_kept_and_the_same_for_all_who_make_it_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/jwt.key");
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Secret::load_or_create(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        let kept = Secret::load_or_create(&path).unwrap();
        assert!(made.iter().all(|secret| *secret == kept));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_empty_key_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwt.key");
        std::fs::write(&path, "").unwrap();
        let error = Secret::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("jwt.key") && error.contains("too short"), "{error}");
    }
}
