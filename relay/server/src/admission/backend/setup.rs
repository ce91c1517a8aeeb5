//! What `verify.url` needs from files: the roots that vouch for the backend, and the token that the relay shows it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::HeaderValue;
use rustls::ClientConfig;
use towpath_service::config::SettingKey;
use towpath_service::visible_path;
use zeroize::Zeroizing;

use crate::certificate::Fault;
use crate::config::{VerifySettings, keys};
use crate::secret_file::{self, SecretFileError};
use crate::tls::{RootsError, client_config, root_certificates};

/// The longest token. It is sent in a header, and servers bound those.
const MAX_TOKEN: usize = 4096;

/// The reason why the backend of `verify.url` cannot be asked with these files.
#[derive(Debug, thiserror::Error)]
pub enum VerifySetupError {
    /// The file with the token cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file with the token holds something else. The message does not repeat its contents.
    #[error("{path} holds no token: expected 1 to 4096 printable ASCII characters without spaces", path = visible_path(.0))]
    Token(PathBuf),
    /// No certificate that could vouch for the backend.
    #[error("no root certificates for verify.url")]
    Roots(#[source] RootsError),
    /// The file with root certificates cannot be used.
    #[error(transparent)]
    CaFile(RootsError),
    /// rustls does not take the settings.
    #[error("cannot set up TLS for verify.url")]
    Tls(#[from] rustls::Error),
}

/// The backend of `verify.url`, with what the files say.
#[derive(Debug)]
pub(crate) struct VerifySetup {
    pub(super) settings: VerifySettings,
    /// `None` where the URL is one without TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The value of `Authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

impl VerifySetup {
    /// Reads the files. `is_sound` says whether the value of a setting can be used. Adds to `faults` what is wrong; then there
    /// is no setup.
    pub(crate) fn read(
        settings: &VerifySettings,
        is_sound: &dyn Fn(SettingKey) -> bool,
        warnings: &mut Vec<String>,
        faults: &mut Vec<Fault<VerifySetupError>>,
    ) -> Option<Self> {
        let before = faults.len();
        let mut keep = |key, error| faults.push(Fault { key, error });
        let authorization =
            settings.token_file.as_deref().filter(|_| is_sound(keys::VERIFY_TOKEN_FILE)).and_then(|path| {
                let read = read_token(path, warnings);
                read.map_err(|error| keep(keys::VERIFY_TOKEN_FILE, error)).ok()
            });
        let roots_key = if settings.ca_file.is_some() { keys::VERIFY_CA_FILE } else { keys::VERIFY_URL };
        let tls = if settings.url.is_https() && is_sound(keys::VERIFY_CA_FILE) {
            read_roots(settings.ca_file.as_deref()).map_err(|error| keep(roots_key, error)).ok()
        } else {
            None
        };
        (faults.len() == before).then(|| Self { settings: settings.clone(), tls, authorization })
    }
}

fn read_roots(file: Option<&Path>) -> Result<Arc<ClientConfig>, VerifySetupError> {
    let roots = root_certificates(file).map_err(|error| match file {
        Some(_) => VerifySetupError::CaFile(error),
        None => VerifySetupError::Roots(error),
    })?;
    Ok(client_config(roots)?)
}

/// Reads a token into the value of a header that is never logged.
fn read_token(path: &Path, warnings: &mut Vec<String>) -> Result<HeaderValue, VerifySetupError> {
    let text = secret_file::read_text(path, warnings)?;
    let token = text.trim();
    let is_token =
        (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = Zeroizing::new(format!("Bearer {token}"));
    let mut value = Some(&*value)
        .filter(|_| is_token)
        .and_then(|value| HeaderValue::from_str(value).ok())
        .ok_or_else(|| VerifySetupError::Token(path.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_what_a_header_can_carry_and_no_message_repeats_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let read = |text: &str| {
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            read_token(&path, &mut Vec::new())
        };
        let value = read("s3cret-t.oken\n").expect("a token");
        assert_eq!(value.as_bytes(), b"Bearer s3cret-t.oken");
        assert!(value.is_sensitive());
        assert_eq!(read(&"a".repeat(MAX_TOKEN)).expect("a long token").len(), MAX_TOKEN + "Bearer ".len());
        for text in ["", "\n", "two words", "two\nlines", "umläut", &"a".repeat(MAX_TOKEN + 1)] {
            let message = read(text).expect_err(text).to_string();
            assert!(
                message.ends_with(
                    "holds no token: expected 1 to 4096 printable ASCII characters without spaces"
                )
            );
        }
    }
}
