//! Forged, stale and foreign tokens.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use runtime::auth::{Jwks, JwksSource, Secret, TokenError, TokenSigner, TokenVerifier};
use serde_json::{Value, json};

const SECRET: &str = "the current secret, 32 bytes or more";
const OLD_SECRET: &str = "the former secret, 32 bytes or more";

const RSA: &[u8] = include_bytes!("fixtures/rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("fixtures/rsa-public.pem");
const OTHER_RSA: &[u8] = include_bytes!("fixtures/other-rsa.pem");
const P256: &[u8] = include_bytes!("fixtures/p256.pem");
const P384: &[u8] = include_bytes!("fixtures/p384.pem");
const ED25519: &[u8] = include_bytes!("fixtures/ed25519.pem");

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "sub": "alice", "exp": now_s() + 60 })
}

fn hs256(secret: &str, claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn signed(algorithm: Algorithm, id: Option<&str>, pem: &[u8], claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = id.map(str::to_owned);
    encode(&header, claims, &encoding_key(algorithm, pem)).unwrap()
}

fn encoding_key(algorithm: Algorithm, pem: &[u8]) -> EncodingKey {
    match algorithm {
        Algorithm::RS256 | Algorithm::PS256 | Algorithm::RS512 => EncodingKey::from_rsa_pem(pem),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
        _ => EncodingKey::from_ec_pem(pem),
    }
    .unwrap()
}

fn jwk(algorithm: Algorithm, id: &str, pem: &[u8]) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(&encoding_key(algorithm, pem), algorithm).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    jwk
}

fn unsigned_part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn with_secrets(secrets: &[&str]) -> TokenVerifier {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret).unwrap()).collect();
    TokenVerifier::new(&secrets, None)
}

async fn with_keys(keys: Vec<Jwk>) -> TokenVerifier {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, serde_json::to_vec(&JwkSet { keys }).unwrap()).unwrap();
    let jwks = Jwks::load(JwksSource::File(path)).await.unwrap();
    TokenVerifier::new(&[Secret::new(SECRET).unwrap()], Some(jwks))
}

#[tokio::test]
async fn a_signed_token_comes_back_as_its_identity() {
    let secret = Secret::new(SECRET).unwrap();
    let token = TokenSigner::new(&secret).sign("alice", &["admin", "read"], Duration::from_secs(60)).unwrap();
    let identity = with_secrets(&[SECRET]).verify(&token).await.unwrap();
    assert_eq!(identity.subject, "alice");
    assert!(identity.is_admin() && identity.has_scope("read") && !identity.has_scope("write"));
    let left = identity.expires_at.duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(50), "{left:?}");
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let verifier = with_secrets(&[SECRET]);
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let head = unsigned_part(&json!({ "alg": algorithm, "typ": "JWT" }));
        for signature in ["", "AAAA"] {
            let token = format!("{head}.{}.{signature}", unsigned_part(&claims()));
            assert_eq!(verifier.verify(&token).await, Err(TokenError::UnsupportedAlgorithm), "{algorithm}");
        }
    }
    let good = hs256(SECRET, &claims());
    let (content, _) = good.rsplit_once('.').unwrap();
    assert_eq!(verifier.verify(&format!("{content}.")).await, Err(TokenError::BadSignature));
}

#[tokio::test]
async fn a_public_key_is_never_used_as_a_secret() {
    let verifier = with_keys(vec![jwk(Algorithm::RS256, "rsa", RSA)]).await;
    // The classic: HS256, "signed" with what everybody knows.
    let token = hs256(std::str::from_utf8(RSA_PUBLIC).unwrap(), &claims());
    assert_eq!(verifier.verify(&token).await, Err(TokenError::BadSignature));
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("rsa".to_owned());
    let token = encode(&header, &claims(), &EncodingKey::from_secret(RSA_PUBLIC)).unwrap();
    assert_eq!(verifier.verify(&token).await, Err(TokenError::BadSignature));
}

#[tokio::test]
async fn other_algorithms_are_refused_even_with_a_known_key() {
    let verifier = with_keys(vec![jwk(Algorithm::RS256, "rsa", RSA), jwk(Algorithm::ES384, "p384", P384)]).await;
    for token in [
        signed(Algorithm::PS256, Some("rsa"), RSA, &claims()),
        signed(Algorithm::RS512, Some("rsa"), RSA, &claims()),
        signed(Algorithm::ES384, Some("p384"), P384, &claims()),
        encode(&Header::new(Algorithm::HS512), &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap(),
    ] {
        assert_eq!(verifier.verify(&token).await, Err(TokenError::UnsupportedAlgorithm));
    }
}

#[tokio::test]
async fn a_changed_payload_is_refused() {
    let verifier = with_secrets(&[SECRET]);
    let token = hs256(SECRET, &claims());
    let parts: Vec<_> = token.split('.').collect();
    let admin = json!({ "sub": "alice", "exp": now_s() + 60, "scope": "admin" });
    let forged = format!("{}.{}.{}", parts[0], unsigned_part(&admin), parts[2]);
    // Also after the genuine one was remembered.
    verifier.verify(&token).await.unwrap();
    assert_eq!(verifier.verify(&forged).await, Err(TokenError::BadSignature));
}

#[tokio::test]
async fn expired_and_premature_tokens_are_refused_beyond_the_leeway() {
    let verifier = with_secrets(&[SECRET]);
    let verify = async |claims: Value| verifier.verify(&hs256(SECRET, &claims)).await.map(|_| ());
    assert_eq!(verify(json!({ "sub": "a", "exp": now_s() - 10 })).await, Err(TokenError::Expired));
    assert_eq!(verify(json!({ "sub": "a", "exp": now_s() - 2 })).await, Ok(()));
    assert_eq!(verify(json!({ "sub": "a", "exp": now_s() + 60, "nbf": now_s() + 20 })).await, Err(TokenError::NotYetValid));
    assert_eq!(verify(json!({ "sub": "a", "exp": now_s() + 60, "nbf": now_s() + 2 })).await, Ok(()));
}

#[tokio::test]
async fn a_remembered_token_expires_all_the_same() {
    let verifier = with_secrets(&[SECRET]);
    // Within the leeway already: the second look must not be answered from memory for ever.
    let token = hs256(SECRET, &json!({ "sub": "a", "exp": now_s() - 4 }));
    verifier.verify(&token).await.unwrap();
    let expired = async {
        while verifier.verify(&token).await != Err(TokenError::Expired) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), expired).await.unwrap();
}

#[tokio::test]
async fn required_claims_and_their_types_are_checked() {
    let verifier = with_secrets(&[SECRET]);
    for (claims, name) in [
        (json!({ "sub": "a" }), "exp"),
        (json!({ "sub": "a", "exp": "tomorrow" }), "exp"),
        (json!({ "sub": "a", "exp": null }), "exp"),
        (json!({ "exp": now_s() + 60 }), "sub"),
        (json!({ "sub": 7, "exp": now_s() + 60 }), "sub"),
        (json!({ "sub": "", "exp": now_s() + 60 }), "sub"),
        (json!({ "sub": "a b", "exp": now_s() + 60 }), "sub"),
        (json!({ "sub": "x".repeat(256), "exp": now_s() + 60 }), "sub"),
        (json!({ "sub": "a", "exp": now_s() + 60, "nbf": "soon" }), "nbf"),
        (json!({ "sub": "a", "exp": u64::MAX }), "exp"),
    ] {
        let error = verifier.verify(&hs256(SECRET, &claims)).await.unwrap_err();
        assert_eq!(error, TokenError::InvalidClaim(name), "{claims}");
    }
    let fraction = json!({ "sub": "a", "exp": now_s() as f64 + 60.5 });
    verifier.verify(&hs256(SECRET, &fraction)).await.unwrap();
}

#[tokio::test]
async fn scopes_are_read_in_every_common_form() {
    let verifier = with_secrets(&[SECRET]);
    for scopes in [
        json!({ "scope": "read admin" }),
        json!({ "scopes": ["read", "admin"] }),
        json!({ "scp": ["read", "admin"] }),
        json!({ "scp": "read admin", "scope": "read" }),
    ] {
        let mut all = claims();
        all.as_object_mut().unwrap().extend(scopes.as_object().unwrap().clone());
        let mut identity = verifier.verify(&hs256(SECRET, &all)).await.unwrap();
        identity.scopes.sort();
        assert_eq!(identity.scopes, ["admin", "read"], "{scopes}");
    }
    let almost = json!({ "sub": "a", "exp": now_s() + 60, "scope": "administrator", "roles": ["admin"] });
    assert!(!verifier.verify(&hs256(SECRET, &almost)).await.unwrap().is_admin());
}

#[tokio::test]
async fn during_a_rotation_both_secrets_verify_and_afterwards_only_the_new_one() {
    let old_token = hs256(OLD_SECRET, &claims());
    let new_token = TokenSigner::new(&Secret::new(SECRET).unwrap()).sign("a", &[""; 0], Duration::from_secs(60)).unwrap();
    let rotating = with_secrets(&[SECRET, OLD_SECRET]);
    rotating.verify(&old_token).await.unwrap();
    rotating.verify(&new_token).await.unwrap();
    let rotated = with_secrets(&[SECRET]);
    assert_eq!(rotated.verify(&old_token).await, Err(TokenError::BadSignature));
    rotated.verify(&new_token).await.unwrap();
}

#[tokio::test]
async fn public_keys_of_each_kind_verify_their_own_tokens() {
    let verifier = with_keys(vec![
        jwk(Algorithm::RS256, "rsa", RSA),
        jwk(Algorithm::ES256, "p256", P256),
        jwk(Algorithm::EdDSA, "ed", ED25519),
    ])
    .await;
    for (algorithm, id, pem) in
        [(Algorithm::RS256, "rsa", RSA), (Algorithm::ES256, "p256", P256), (Algorithm::EdDSA, "ed", ED25519)]
    {
        for id in [Some(id), None] {
            let identity = verifier.verify(&signed(algorithm, id, pem, &claims())).await.unwrap();
            assert_eq!(identity.subject, "alice");
        }
        let unknown = signed(algorithm, Some("another"), pem, &claims());
        assert_eq!(verifier.verify(&unknown).await, Err(TokenError::UnknownKey));
    }
    let foreign = signed(Algorithm::RS256, Some("rsa"), OTHER_RSA, &claims());
    assert_eq!(verifier.verify(&foreign).await, Err(TokenError::BadSignature));
    // Secrets stay valid beside public keys.
    verifier.verify(&hs256(SECRET, &claims())).await.unwrap();
}

#[tokio::test]
async fn a_key_set_without_a_usable_key_is_a_start_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let symmetric = json!({ "keys": [{ "kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET) }] });
    for content in ["", "{}", "{\"keys\": []}", &symmetric.to_string()] {
        std::fs::write(&path, content).unwrap();
        let error = Jwks::load(JwksSource::File(path.clone())).await.unwrap_err();
        assert!(error.to_string().contains("jwks.json"), "{error}");
    }
    let missing = Jwks::load(JwksSource::File(folder.path().join("missing.json"))).await.unwrap_err();
    assert!(missing.to_string().contains("missing.json"), "{missing}");
}

/// An identity provider whose keys change, and which can be down.
struct Provider {
    url: String,
    keys: Arc<std::sync::Mutex<Option<JwkSet>>>,
    requests: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(keys: Option<Vec<Jwk>>) -> Self {
        let keys = Arc::new(std::sync::Mutex::new(keys.map(|keys| JwkSet { keys })));
        let requests = Arc::new(AtomicUsize::new(0));
        let listener = runtime::serve::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let answer = {
            let (keys, requests) = (keys.clone(), requests.clone());
            move || {
                requests.fetch_add(1, Ordering::Relaxed);
                let keys = keys.lock().unwrap().clone();
                async move { keys.map(axum::Json).ok_or(http::StatusCode::BAD_GATEWAY) }
            }
        };
        let router = axum::Router::new().route("/jwks", axum::routing::get(answer));
        tokio::spawn(async move { axum_serve(listener, router).await });
        Self { url, keys, requests }
    }

    fn set(&self, keys: Option<Vec<Jwk>>) {
        *self.keys.lock().unwrap() = keys.map(|keys| JwkSet { keys });
    }

    async fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new(&[], Some(Jwks::load(self.url.parse().unwrap()).await.unwrap()))
    }
}

async fn axum_serve(listener: tokio::net::TcpListener, router: axum::Router) {
    let never = runtime::lifecycle::Shutdown::new(Duration::ZERO);
    runtime::serve::serve(listener, router, never).await;
}

/// Lets the gap between two reads pass without waiting for it.
async fn let_the_gap_pass() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn new_keys_of_a_provider_are_found_and_old_ones_survive_its_outage() {
    let provider = Provider::start(Some(vec![jwk(Algorithm::RS256, "one", RSA)])).await;
    let verifier = provider.verifier().await;
    let one = || signed(Algorithm::RS256, Some("one"), RSA, &claims());
    let two = || signed(Algorithm::ES256, Some("two"), P256, &claims());
    verifier.verify(&one()).await.unwrap();

    provider.set(Some(vec![jwk(Algorithm::RS256, "one", RSA), jwk(Algorithm::ES256, "two", P256)]));
    let_the_gap_pass().await;
    verifier.verify(&two()).await.unwrap();

    provider.set(None);
    let_the_gap_pass().await;
    let unknown = signed(Algorithm::EdDSA, Some("three"), ED25519, &claims());
    assert_eq!(verifier.verify(&unknown).await, Err(TokenError::UnknownKey));
    let later = json!({ "sub": "bob", "exp": now_s() + 60 });
    verifier.verify(&signed(Algorithm::RS256, Some("one"), RSA, &later)).await.unwrap();
}

#[tokio::test]
async fn invented_key_ids_do_not_turn_into_requests() {
    let provider = Provider::start(Some(vec![jwk(Algorithm::RS256, "one", RSA)])).await;
    let verifier = provider.verifier().await;
    for n in 0..50 {
        let token = signed(Algorithm::EdDSA, Some(&format!("invented-{n}")), ED25519, &claims());
        assert_eq!(verifier.verify(&token).await, Err(TokenError::UnknownKey));
    }
    assert_eq!(provider.requests.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_keep_others_from_new_keys() {
    let provider = Provider::start(Some(vec![jwk(Algorithm::RS256, "one", RSA)])).await;
    let verifier = provider.verifier().await;
    provider.set(Some(vec![jwk(Algorithm::ES256, "two", P256)]));
    let_the_gap_pass().await;
    let two = signed(Algorithm::ES256, Some("two"), P256, &claims());
    // Begins, and is given up at its first wait.
    assert_eq!(verifier.verify(&two).now_or_never(), None);
    verifier.verify(&two).await.unwrap();
}

#[tokio::test]
async fn a_service_may_start_before_its_provider() {
    let provider = Provider::start(None).await;
    let verifier = provider.verifier().await;
    let token = signed(Algorithm::RS256, Some("one"), RSA, &claims());
    let error = verifier.verify(&token).await.unwrap_err();
    assert_eq!(error, TokenError::KeysUnavailable);
    assert_eq!(error.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    provider.set(Some(vec![jwk(Algorithm::RS256, "one", RSA)]));
    let_the_gap_pass().await;
    verifier.verify(&token).await.unwrap();
}

#[tokio::test]
async fn tokens_for_others_are_refused_when_an_audience_is_required() {
    let secret = Secret::new(SECRET).unwrap();
    let verifier = TokenVerifier::requiring(&[secret], None, Some("tandem".to_owned()), Some("https://id.example".to_owned()));
    let verify = async |audience: Value, issuer: Value| {
        let claims = json!({ "sub": "a", "exp": now_s() + 60, "aud": audience, "iss": issuer });
        verifier.verify(&hs256(SECRET, &claims)).await.map(|_| ())
    };
    assert_eq!(verify(json!("tandem"), json!("https://id.example")).await, Ok(()));
    assert_eq!(verify(json!(["other", "tandem"]), json!("https://id.example")).await, Ok(()));
    assert_eq!(verify(json!("other"), json!("https://id.example")).await, Err(TokenError::InvalidClaim("aud")));
    assert_eq!(verify(json!("tandem"), json!("https://evil.example")).await, Err(TokenError::InvalidClaim("iss")));
    assert_eq!(verify(Value::Null, json!("https://id.example")).await, Err(TokenError::InvalidClaim("aud")));
    assert_eq!(verify(json!("tandem"), Value::Null).await, Err(TokenError::InvalidClaim("iss")));
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_a_panic() {
    let verifier = with_secrets(&[SECRET]);
    let long = "a".repeat(100_000);
    let nested = format!("{}.{}.x", unsigned_part(&json!({ "alg": "HS256" })), "[".repeat(4_000));
    for text in ["", ".", "..", "a.b.c", "a.b", "\u{1F600}.\u{1F600}.\u{1F600}", &long, &nested] {
        let error = verifier.verify(text).await.unwrap_err();
        assert!(matches!(error, TokenError::Malformed | TokenError::BadSignature), "{error:?}");
    }
}

#[tokio::test]
async fn the_header_decides_between_anonymous_known_and_refused() {
    let verifier = with_secrets(&[SECRET]);
    let token = hs256(SECRET, &claims());
    let from = async |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        verifier.from_headers(&headers).await
    };
    assert_eq!(from(&[]).await, Ok(None));
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let identity = from(&[&format!("{scheme} {token}")]).await.unwrap().unwrap();
        assert_eq!(identity.subject, "alice");
    }
    for wrong in [&token, "Basic YTpi", "Bearer", ""] {
        assert_eq!(from(&[wrong]).await, Err(TokenError::NotBearer), "{wrong}");
    }
    let good = format!("Bearer {token}");
    assert_eq!(from(&[&good, &good]).await, Err(TokenError::NotBearer), "which one would count?");
}

#[test]
fn a_refusal_says_how_to_authenticate() {
    assert_eq!(
        TokenError::Expired.www_authenticate(),
        "Bearer error=\"invalid_token\", error_description=\"the token has expired\""
    );
    assert_eq!(
        TokenError::InvalidClaim("exp").www_authenticate(),
        "Bearer error=\"invalid_token\", error_description=\"the token's claim 'exp' is missing or invalid\""
    );
    assert_eq!(TokenError::Expired.status(), http::StatusCode::UNAUTHORIZED);
}

#[test]
fn a_signer_refuses_what_no_verifier_accepts() {
    let signer = TokenSigner::new(&Secret::new(SECRET).unwrap());
    let minute = Duration::from_secs(60);
    assert_eq!(signer.sign("", &["admin"], minute), Err(TokenError::InvalidClaim("sub")));
    assert_eq!(signer.sign("a", &["two words"], minute), Err(TokenError::InvalidClaim("scope")));
    assert_eq!(signer.sign("a", &["admin"], Duration::MAX), Err(TokenError::InvalidClaim("exp")));
}
