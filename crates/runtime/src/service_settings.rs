//! The settings that both services have, as groups for clap, so that they are called the same everywhere.
//!
//! Values are read as text and checked by methods: clap's own errors would name the flag instead of the variable, and repeat secrets. An empty
//! variable is the same as none, because compose files cannot leave one out.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use database::DatabaseUrl;

use crate::auth::{Jwks, JwksSource, Secret, TokenError, TokenSigner, TokenVerifier};
use crate::settings::{SettingError, http_url, value_or_file};

/// Whose tokens are believed.
#[derive(Args, Clone, Default)]
pub struct AuthArgs {
    /// Secrets for tokens, separated by commas, each of at least 32 bytes: the first signs, all verify.
    #[arg(long, env = "JWT_SECRET", value_name = "SECRETS", hide_env_values = true)]
    jwt_secret: Option<String>,
    /// A file with such secrets.
    #[arg(long, env = "JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,
    /// A file or URL of public keys (a JSON Web Key Set).
    #[arg(long, env = "JWKS", value_name = "FILE|URL")]
    jwks: Option<String>,
    /// For whom tokens must be (their `aud`): set it when the keys' owner signs for others, too.
    #[arg(long, env = "JWT_AUDIENCE", value_name = "NAME")]
    jwt_audience: Option<String>,
    /// Who must have made them (their `iss`).
    #[arg(long, env = "JWT_ISSUER", value_name = "NAME")]
    jwt_issuer: Option<String>,
}

impl std::fmt::Debug for AuthArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthArgs")
            .field("jwt_secret", &self.jwt_secret.as_ref().map(|_| "(secret)"))
            .field("jwt_secret_file", &self.jwt_secret_file)
            .field("jwks", &self.jwks)
            .field("jwt_audience", &self.jwt_audience)
            .field("jwt_issuer", &self.jwt_issuer)
            .finish()
    }
}

/// What `JWT_SECRET` may be, for the error when nothing is set.
const AUTH_ALLOWED: &str =
    "a secret of at least 32 bytes (for example: openssl rand -hex 32); JWT_SECRET_FILE or JWKS would do as well";

impl AuthArgs {
    /// A verifier of all secrets and keys.
    ///
    /// # Errors
    ///
    /// When there is neither a secret nor a key set, or one of them cannot be used.
    pub async fn verifier(&self) -> Result<TokenVerifier, SettingError> {
        let secrets = self.secrets()?;
        let jwks = match given(self.jwks.as_deref()) {
            None if secrets.is_empty() => return Err(missing("JWT_SECRET", AUTH_ALLOWED)),
            None => None,
            Some(source) => {
                let Ok(parsed) = source.parse();
                if matches!(parsed, JwksSource::Url(_)) {
                    http_url("JWKS", source, "https://id.example/.well-known/jwks.json")?;
                }
                let allowed = |error| format!("a readable file or a URL of a key set ({error})");
                Some(Jwks::load(parsed).await.map_err(|error| SettingError::invalid("JWKS", source, allowed(error)))?)
            }
        };
        let (audience, issuer) = self.names();
        if jwks.is_some() && audience.is_none() {
            tracing::warn!(
                "JWT_AUDIENCE is not set: every token that the owner of JWKS signs is accepted, also those for others"
            );
        }
        Ok(TokenVerifier::requiring(&secrets, jwks, audience, issuer))
    }

    /// Signs with the first secret.
    ///
    /// # Errors
    ///
    /// When there is no usable secret.
    pub fn signer(&self) -> Result<TokenSigner, SettingError> {
        let secrets = self.secrets()?;
        let first = secrets
            .first()
            .ok_or_else(|| missing("JWT_SECRET", "a secret of at least 32 bytes, or JWT_SECRET_FILE a file of one"))?;
        let (audience, issuer) = self.names();
        Ok(TokenSigner::new(first).naming(audience, issuer))
    }

    fn names(&self) -> (Option<String>, Option<String>) {
        let name = |text: &Option<String>| given(text.as_deref()).map(str::to_owned);
        (name(&self.jwt_audience), name(&self.jwt_issuer))
    }

    fn secrets(&self) -> Result<Vec<Secret>, SettingError> {
        let value = given(self.jwt_secret.as_deref()).map(str::to_owned);
        let file = self.jwt_secret_file.as_deref();
        Secret::from_setting("JWT_SECRET", value, file)
    }
}

/// Where the service's database is.
#[derive(Args, Clone)]
pub struct DatabaseArgs {
    /// postgres://user:password@host:5432/name or sqlite://path/to/file.db.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// A file that contains such a URL.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// Whether to bring the tables up to date at the start: true or false.
    #[arg(long, env = "MIGRATE_ON_START", value_name = "BOOL", default_value = "true")]
    migrate_on_start: String,
}

impl std::fmt::Debug for DatabaseArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url().map(|url| url.to_string());
        f.debug_struct("DatabaseArgs").field("database_url", &url).field("migrate_on_start", &self.migrate_on_start).finish()
    }
}

impl DatabaseArgs {
    /// The URL.
    ///
    /// # Errors
    ///
    /// When it is missing or no URL of a database; what was read is not repeated, because it may hold a password.
    pub fn url(&self) -> Result<DatabaseUrl, SettingError> {
        let allowed = "postgres://user:password@host:5432/name or sqlite://path/to/file.db";
        let value = given(self.database_url.as_deref()).map(str::to_owned);
        let file = self.database_url_file.as_deref();
        let text = value_or_file("DATABASE_URL", value, file)?.ok_or_else(|| missing("DATABASE_URL", allowed))?;
        text.parse().map_err(|error| SettingError::invalid_secret("DATABASE_URL", format!("{allowed} ({error})")))
    }

    /// Whether to migrate at the start.
    ///
    /// # Errors
    ///
    /// When it is neither true nor false.
    pub fn migrate_on_start(&self) -> Result<bool, SettingError> {
        boolean("MIGRATE_ON_START", &self.migrate_on_start, true)
    }
}

/// Asks a replica on this machine whether it is ready: for container health checks, so that an image needs no HTTP client.
#[derive(Args, Clone, Debug)]
pub struct HealthcheckArgs {
    /// Where the replica listens: host:port.
    #[arg(long, env = "LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
}

/// Why a replica is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// A setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// It does not answer.
    #[error("no answer: {0}")]
    NoAnswer(#[from] reqwest::Error),
    /// It says why.
    #[error("{0}")]
    Answer(String),
}

/// Longer than a replica under load takes, shorter than the health checks of common orchestrators.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

impl HealthcheckArgs {
    /// What `/health/ready` says; `default_port` is the service's own.
    ///
    /// # Errors
    ///
    /// When it is not ready.
    pub async fn ask(&self, default_port: u16) -> Result<(), NotReady> {
        let listen = match given(self.listen.as_deref()) {
            Some(listen) => listen_address("LISTEN", listen)?,
            None => format!("127.0.0.1:{default_port}"),
        };
        crate::install_tls_provider();
        // A proxy for the rest of the world would look for the replica on its own machine.
        let client = reqwest::Client::builder().timeout(HEALTHCHECK_TIMEOUT).no_proxy().build()?;
        let url = format!("http://{}/health/ready", callable(&listen));
        let response = client.get(url).send().await?;
        if response.status().is_success() { Ok(()) } else { Err(NotReady::Answer(response.text().await?)) }
    }
}

/// Where to call what listens there: whoever listens on every address of this machine listens on its own, too.
fn callable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

/// How a replica stops.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// When told to stop, how long to say "not ready" and go on before taking no more connections, for load balancers: a number and s, at
    /// most 60s.
    #[arg(long, env = "DRAIN_NOTICE", value_name = "TIME", default_value = "2s")]
    drain_notice: String,
}

/// Longer than any load balancer needs to notice.
const DRAIN_NOTICE_MAX: Duration = Duration::from_secs(60);

impl DrainArgs {
    /// The time; may be zero.
    ///
    /// # Errors
    ///
    /// When it is none or too long.
    pub fn notice(&self) -> Result<Duration, SettingError> {
        let text = given(Some(&self.drain_notice)).unwrap_or("2s");
        let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok()).map(Duration::from_secs);
        seconds
            .filter(|notice| *notice <= DRAIN_NOTICE_MAX)
            .ok_or_else(|| SettingError::invalid("DRAIN_NOTICE", text, "a number and s, from 0s to 60s"))
    }
}

/// The token to print.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    #[command(flatten)]
    token: TokenRequest,
    #[command(flatten)]
    auth: AuthArgs,
}

impl TokenArgs {
    /// The signed token.
    ///
    /// # Errors
    ///
    /// When there is no secret, or what was asked for cannot be signed.
    pub fn sign(&self) -> Result<String, TokenRequestError> {
        self.token.sign(&self.auth.signer()?)
    }
}

/// What a token shall say, whatever signs it.
#[derive(Args, Clone, Debug)]
pub struct TokenRequest {
    /// Whom the token stands for.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// What it allows, for example `admin`; may be repeated.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// How long it is good: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "12h")]
    ttl: String,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenRequestError {
    /// A setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The user's name or a scope cannot stand in a token.
    #[error("no token for this user and scope: {0}")]
    Token(#[from] TokenError),
}

impl TokenRequest {
    /// The signed token.
    ///
    /// # Errors
    ///
    /// When what was asked for cannot be signed.
    pub fn sign(&self, signer: &TokenSigner) -> Result<String, TokenRequestError> {
        let ttl = duration("--ttl", &self.ttl)?;
        Ok(signer.sign(&self.user, &self.scope, ttl)?)
    }
}

/// A time such as `90s`, `15m`, `12h` or `7d`; at least a second.
///
/// # Errors
///
/// When it is none of these.
pub fn duration(name: &'static str, text: &str) -> Result<Duration, SettingError> {
    let seconds = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(60 * 60),
        'd' => Some(24 * 60 * 60),
        _ => None,
    };
    let parse = || {
        let unit = text.chars().next_back()?;
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds(unit)?).filter(|seconds| *seconds > 0)
    };
    parse().map(Duration::from_secs).ok_or_else(|| SettingError::invalid(name, text, "a number and s, m, h or d, such as 12h"))
}

/// An address to listen on; the host is looked up when it is bound.
///
/// # Errors
///
/// When it is no `host:port`.
pub fn listen_address(name: &'static str, text: &str) -> Result<String, SettingError> {
    if is_host_and_port(text) {
        return Ok(text.to_owned());
    }
    Err(SettingError::invalid(name, text, "host:port, such as 0.0.0.0:8000 or [::]:8000"))
}

/// `true` or `false`; `default` when empty.
///
/// # Errors
///
/// Anything else.
pub fn boolean(name: &'static str, text: &str, default: bool) -> Result<bool, SettingError> {
    match text {
        "" => Ok(default),
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(SettingError::invalid(name, other, "true or false")),
    }
}

pub(crate) fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(char::is_whitespace) && !host.contains('/');
        let is_bracketed = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        is_host && is_bracketed && port.parse::<u16>().is_ok()
    })
}

pub(crate) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

pub(crate) fn missing(name: &'static str, allowed: &str) -> SettingError {
    SettingError::Missing { name, allowed: allowed.to_owned() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Everything {
        #[command(flatten)]
        auth: AuthArgs,
        #[command(flatten)]
        database: DatabaseArgs,
    }

    fn parse(args: &[&str]) -> Everything {
        Everything::try_parse_from(["test"].iter().chain(args)).unwrap()
    }

    #[tokio::test]
    async fn a_wrong_value_names_the_variable_and_what_is_allowed_but_no_secret() {
        let everything =
            parse(&["--database-url", "mysql://root:hunter2@db/x", "--migrate-on-start", "maybe", "--jwt-secret", "hunter2"]);
        let url = everything.database.url().unwrap_err().to_string();
        assert!(url.contains("DATABASE_URL") && url.contains("postgres://") && !url.contains("hunter2"), "{url}");
        let migrate = everything.database.migrate_on_start().unwrap_err().to_string();
        assert_eq!(migrate, "MIGRATE_ON_START is \"maybe\", but must be true or false");
        let secret = everything.auth.verifier().await.unwrap_err().to_string();
        assert!(secret.contains("JWT_SECRET") && secret.contains("32 bytes") && !secret.contains("hunter2"), "{secret}");
        assert!(!format!("{everything:?}").contains("hunter2"));
        let jwks = parse(&["--jwks", "https://root:hunter2@id.example/keys"]).auth.verifier().await.unwrap_err().to_string();
        assert!(jwks.contains("JWKS") && jwks.contains("without user and password") && !jwks.contains("hunter2"), "{jwks}");
    }

    #[tokio::test]
    async fn nothing_and_an_empty_variable_are_the_same() {
        for args in [&[][..], &["--database-url", "", "--jwt-secret", "", "--jwks", ""]] {
            let everything = parse(args);
            assert!(matches!(everything.database.url(), Err(SettingError::Missing { name: "DATABASE_URL", .. })));
            assert!(matches!(everything.auth.verifier().await, Err(SettingError::Missing { name: "JWT_SECRET", .. })));
            assert!(matches!(everything.auth.signer(), Err(SettingError::Missing { .. })));
        }
    }

    #[tokio::test]
    async fn tokens_that_are_signed_here_are_for_whom_they_must_be() {
        let secret = ["--jwt-secret", "0123456789abcdef0123456789abcdef"];
        let named = parse(&[&secret[..], &["--jwt-audience", "tandem", "--jwt-issuer", "https://id.example"]].concat()).auth;
        let nameless = parse(&secret).auth;
        let sign = |auth: &AuthArgs| auth.signer().unwrap().sign::<&str>("ada", &[], Duration::from_secs(60)).unwrap();
        let verifier = named.verifier().await.unwrap();
        verifier.verify(&sign(&named)).await.unwrap();
        assert!(matches!(verifier.verify(&sign(&nameless)).await, Err(TokenError::InvalidClaim("aud" | "iss"))));
        nameless.verifier().await.unwrap().verify(&sign(&named)).await.unwrap();
    }

    #[test]
    fn addresses_are_checked_before_anything_is_started() {
        for text in ["0.0.0.0:8001", "[::]:8001", "localhost:0"] {
            listen_address("LISTEN", text).unwrap();
        }
        for text in ["8001", "0.0.0.0", "::1:8001", "0.0.0.0:eighty"] {
            assert!(listen_address("LISTEN", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_replica_is_asked_where_it_listens() {
        for (listen, asked) in [
            ("0.0.0.0:8001", "127.0.0.1:8001"),
            ("[::]:8001", "[::1]:8001"),
            ("10.0.0.5:8001", "10.0.0.5:8001"),
            ("orders.internal:8000", "orders.internal:8000"),
        ] {
            assert_eq!(callable(listen), asked);
        }
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("--ttl", "90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("--ttl", "2d").unwrap(), Duration::from_secs(172_800));
        for text in ["", "12", "h", "-1h", "0s", "1w", "1.5h", "99999999999999999999d", "18446744073709551615d"] {
            assert!(duration("--ttl", text).is_err(), "{text}");
        }
    }
}
