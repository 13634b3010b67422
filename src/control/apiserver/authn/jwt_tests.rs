//! A real provider over real TLS: discovery, keys, rotation, and tokens good and bad.

use std::sync::Arc as Shared;
use std::sync::Mutex as StdMutex;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::net::{self, Identity, Protocols, Server, ServingCert};
use crate::pki::{Authority, LeafSpec, SigningKey, VerifyingKey};

struct Issuer {
    url: String,
    ca: Authority,
    key: SigningKey,
    published: Shared<StdMutex<Value>>,
    _stop: CancellationToken,
}

fn jwks(keys: &[&SigningKey]) -> Value {
    let one = |key: &&SigningKey| VerifyingKey::from_pem(&key.public_pem()).unwrap().to_jwk();
    json!({"keys": keys.iter().map(one).collect::<Vec<_>>()})
}

async fn issuer() -> Issuer {
    let ca = Authority::new("issuer-ca").unwrap();
    let issued = ca.issue(&LeafSpec::server("issuer", &[], &["127.0.0.1".parse().unwrap()])).unwrap();
    let identity = Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() };
    let server = Server::new(ServingCert::new(&identity).unwrap(), Protocols::H2AndH1, "secure").unwrap();
    let listener = net::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let key = SigningKey::generate().unwrap();
    let published = Shared::new(StdMutex::new(jwks(&[&key])));
    let (own, keys) = (url.clone(), published.clone());
    let answer = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (own, keys) = (own.clone(), keys.clone());
        async move {
            axum::Json(match request.uri().path() {
                "/keys" => keys.lock().unwrap().clone(),
                _ => json!({"issuer": own, "jwks_uri": format!("{own}/keys")}),
            })
        }
    });
    let stop = CancellationToken::new();
    tokio::spawn(server.serve(listener, answer, stop.clone()));
    Issuer { url, ca, key, published, _stop: stop }
}

fn rules(issuer: &str) -> Rules {
    Rules {
        issuer: issuer.into(),
        egress: None,
        discovery: None,
        audiences: vec!["lab".into(), "other".into()],
        algorithms: vec!["RS256".into(), "ES256".into()],
        username: Mapping::Claim { claim: "sub".into(), prefix: "oidc:".into() },
        groups: Some(Mapping::Claim { claim: "groups".into(), prefix: "oidc:".into() }),
        uid: Some(Mapping::Claim { claim: "uid".into(), prefix: String::new() }),
        extra: Vec::new(),
        required: vec![("team".into(), "red".into())],
        claim_rules: Vec::new(),
        user_rules: Vec::new(),
    }
}

/// A provider whose keys are there.
async fn provider(issuer: &Issuer) -> Provider {
    let verify = Verify::Bundle(issuer.ca.cert_pem().as_bytes().to_vec());
    let provider = Provider::new(rules(&issuer.url), verify, &Default::default()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while provider.keys.now().is_none() {
        assert!(Instant::now() < deadline, "the keys were never fetched");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    provider
}

const NOW: i64 = 2_000_000_000;

fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": "lab", "exp": NOW + 60, "nbf": NOW, "sub": "jane", "groups": ["devs"], "uid": "7",
        "team": "red", "jti": "j-1",
    })
}

#[tokio::test]
async fn a_providers_token_becomes_a_user_by_its_claims() {
    let issuer = issuer().await;
    let provider = provider(&issuer).await;
    let token = issuer.key.sign(&claims(&issuer.url)).unwrap();
    let user = provider.user(&token, NOW).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("oidc:jane", "7"));
    assert_eq!(user.groups, ["oidc:devs"]);
    assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=j-1"]);
    // Another issuer's token is another authenticator's business.
    let foreign = issuer.key.sign(&claims("https://elsewhere")).unwrap();
    assert_eq!(provider.user(&foreign, NOW).await, Ok(None));
    assert_eq!(provider.user("junk", NOW).await, Ok(None));
}

#[tokio::test]
async fn a_wrong_claim_or_key_is_an_error_that_says_which() {
    let issuer = issuer().await;
    let provider = provider(&issuer).await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut all = claims(&issuer.url);
        change(&mut all);
        issuer.key.sign(&all).unwrap()
    };
    for (token, said) in [
        (with(&|all| all["exp"] = json!(NOW - 1)), "token is expired"),
        (with(&|all| all["exp"] = json!(null)), "token is expired"),
        (with(&|all| all["nbf"] = json!(NOW + 3600)), "before the nbf"),
        (with(&|all| all["aud"] = json!(["vault"])), "expected audience"),
        (with(&|all| all["sub"] = json!(7)), "claim not present"),
        (with(&|all| all["sub"] = json!("")), "is empty"),
        (with(&|all| all["team"] = json!("blue")), "required claim team value does not match"),
        (
            SigningKey::generate().unwrap().sign(&claims(&issuer.url)).unwrap(),
            "failed to verify id token signature",
        ),
    ] {
        let error = provider.user(&token, NOW).await.unwrap_err();
        assert!(error.contains(said), "{error} lacks {said}");
    }
}

#[tokio::test]
async fn a_rotated_key_is_fetched_when_a_token_names_it() {
    let issuer = issuer().await;
    let provider = provider(&issuer).await;
    let next = SigningKey::generate().unwrap();
    let token = next.sign(&claims(&issuer.url)).unwrap();
    assert!(provider.user(&token, NOW).await.is_err());
    *issuer.published.lock().unwrap() = jwks(&[&issuer.key, &next]);
    tokio::time::sleep(REFRESH_AT_MOST).await;
    assert_eq!(provider.user(&token, NOW).await.unwrap().unwrap().name, "oidc:jane");
}

#[tokio::test]
async fn a_provider_that_is_not_who_it_says_is_never_initialized() {
    let (issuer, stranger) = (issuer().await, Authority::new("stranger").unwrap());
    let verify = Verify::Bundle(stranger.cert_pem().as_bytes().to_vec());
    let provider = Provider::new(rules(&issuer.url), verify, &Default::default()).unwrap();
    let error = provider.keys.fetch().await.unwrap_err();
    assert!(error.contains("certificate signed by unknown authority"), "{error}");
    let token = issuer.key.sign(&claims(&issuer.url)).unwrap();
    assert!(provider.user(&token, NOW).await.unwrap_err().contains("is not initialized"));
}

#[test]
fn expressions_make_the_user_and_judge_it() {
    let compile = |source: &str| Expression::compile(source, "claims").unwrap();
    let condition = |source: &str, variable: &str, message: &str| Condition {
        expression: Expression::compile(source, variable).unwrap(),
        message: message.into(),
    };
    let rules = Rules {
        username: Mapping::Expression(compile("'lab:' + claims.sub")),
        groups: Some(Mapping::Expression(compile("claims.roles.split(',')"))),
        uid: Some(Mapping::Expression(compile("claims.sub + '-id'"))),
        extra: vec![("example.com/tenant".into(), compile("claims.?tenant.orValue('')"))],
        required: Vec::new(),
        claim_rules: vec![condition("claims.exp - claims.nbf <= 3600", "claims", "it lives too long")],
        user_rules: vec![condition("!user.username.startsWith('system:')", "user", "not for the system")],
        ..rules("https://issuer")
    };
    let claims = json!({"sub": "jane", "roles": "a,b", "tenant": "red", "exp": 200, "nbf": 100});
    let user = rules.user(&claims).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("lab:jane", "jane-id"));
    assert_eq!(
        (user.groups.as_slice(), &user.extra["example.com/tenant"][..]),
        (&["a".to_owned(), "b".to_owned()][..], &["red".to_owned()][..])
    );
    rules.judge(&claims, &user).unwrap();
    let long = json!({"exp": 9000, "nbf": 100});
    let error = rules.judge(&long, &user).unwrap_err();
    assert!(error.ends_with("'claims.exp - claims.nbf <= 3600' failed: it lives too long"), "{error}");
    let system = UserInfo { name: "system:admin".into(), ..UserInfo::default() };
    assert!(
        rules.judge(&claims, &system).unwrap_err().contains("error evaluating user info validation rule")
    );
    assert!(rules.user(&json!({"sub": "x", "roles": 7})).is_err());
}
