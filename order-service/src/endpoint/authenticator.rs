//! From a token to the caller that travels with a request.

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{Extensions, HeaderMap, HeaderValue, header};
use gateway::Caller;
use graphql_transport::{Authenticated, Authenticator, Rejected};
use runtime::auth::{Identity, TokenError, TokenVerifier};
use serde_json::Value;

use crate::graphql::Viewer;

/// JWT bearer tokens. The caller's own token travels to Payments, which checks it again.
pub(super) struct BearerTokens {
    pub(super) verifier: TokenVerifier,
}

#[async_trait]
impl Authenticator for BearerTokens {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, Rejected> {
        match headers.get(header::AUTHORIZATION) {
            None => Ok(attach(Caller::default(), None)),
            Some(value) => self.verify(value).await,
        }
    }

    async fn authenticate_socket(&self, upgrade: &HeaderMap, init: &Value) -> Result<Authenticated, Rejected> {
        let from_init = authorization(init).map(HeaderValue::from_str).transpose();
        let from_init = from_init.map_err(|_| rejected(&TokenError::Malformed))?;
        match from_init.as_ref().or_else(|| upgrade.get(header::AUTHORIZATION)) {
            Some(value) => self.verify(value).await,
            None => Err(Rejected::InvalidToken("no token in `connection_init` or on the upgrade request".to_owned())),
        }
    }
}

impl BearerTokens {
    async fn verify(&self, value: &HeaderValue) -> Result<Authenticated, Rejected> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.clone());
        let identity = self.verifier.from_headers(&headers).await.map_err(|error| rejected(&error))?;
        let mut extensions = Extensions::new();
        extensions.insert(Viewer(identity.clone()));
        Ok(attach(Caller { headers, extensions }, identity))
    }
}

fn attach(caller: Caller, identity: Option<Identity>) -> Authenticated {
    let expires_at = identity.map(|identity| identity.expires_at);
    Authenticated { attach: Arc::new(move |request| request.data(caller.clone())), expires_at }
}

fn rejected(error: &TokenError) -> Rejected {
    match error {
        TokenError::KeysUnavailable => Rejected::Unavailable(error.to_string()),
        _ => Rejected::InvalidToken(error.to_string()),
    }
}

/// `Authorization` in any case, at the top level or under `headers`, as the common clients write it.
fn authorization(init: &Value) -> Option<&str> {
    [Some(init), init.get("headers")].into_iter().flatten().find_map(token_in)
}

fn token_in(object: &Value) -> Option<&str> {
    object.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization")).and_then(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_found_wherever_clients_put_it() {
        for init in [
            json!({ "Authorization": "Bearer x" }),
            json!({ "authorization": "Bearer x", "other": 1 }),
            json!({ "headers": { "AUTHORIZATION": "Bearer x" } }),
        ] {
            assert_eq!(authorization(&init), Some("Bearer x"), "{init}");
        }
        for init in [json!(null), json!({}), json!({ "Authorization": 1 }), json!({ "headers": [] }), json!("Bearer x")] {
            assert_eq!(authorization(&init), None, "{init}");
        }
    }
}
