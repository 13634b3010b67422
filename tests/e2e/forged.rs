//! A service account's token and its forgeries, for whoever asks what they are taken for.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::kit::server::ApiServer;

pub const ROBOT: &str = "system:serviceaccount:default:robot";

/// A service account's token, and what is like one.
pub fn account_tokens(server: &ApiServer) -> Vec<(&'static str, String, Option<&'static str>)> {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let headers = [("Authorization", "Bearer root-token")];
    // The second table of a server finds it there.
    server.ask(None, "POST", accounts, &headers, "{\"metadata\":{\"name\":\"robot\"}}");
    let ask = |spec: Value| {
        let made = server.root("POST", &format!("{accounts}/robot/token"), &json!({"spec": spec}));
        made["status"]["token"].as_str().unwrap().to_owned()
    };
    let good = ask(json!({}));
    let claims = |token: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    };
    let key = std::fs::read_to_string(server.file("sa.key")).unwrap();
    let header = good.split('.').next().unwrap().to_owned();
    let signed = |key: &str, change: &dyn Fn(&mut Value)| {
        let mut own = claims(&good);
        change(&mut own);
        sign(key, &header, &own)
    };
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (now, none) = (claims(&good)["iat"].as_i64().unwrap(), URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"));
    let parts: Vec<&str> = good.split('.').collect();
    let root = URL_SAFE_NO_PAD.encode(good_as_root(&claims(&good)).to_string());
    vec![
        ("an account's token signed here", signed(&key, &|_| ()), Some(ROBOT)),
        ("an account's token of another key", signed(&other, &|_| ()), None),
        ("an account's token of yesterday", signed(&key, &|own| own["exp"] = json!(now - 86_400)), None),
        ("an account's token of tomorrow", signed(&key, &|own| own["nbf"] = json!(now + 86_400)), None),
        ("an account's token of an absurd date", signed(&key, &|own| own["exp"] = json!(i64::MIN)), None),
        ("an account's token for somebody else", ask(json!({"audiences": ["vault"]})), None),
        (
            "an account's token of another uid",
            signed(&key, &|own| own["kubernetes.io"]["serviceaccount"]["uid"] = json!("x")),
            None,
        ),
        ("an account's token with no algorithm", format!("{none}.{}.", parts[1]), None),
        (
            "an account's token with no algorithm and a signature",
            format!("{none}.{}.{}", parts[1], parts[2]),
            None,
        ),
        ("an account's token changed afterwards", format!("{}.{root}.{}", parts[0], parts[2]), None),
        ("an account's token without its end", good[..good.len() - 10].to_owned(), None),
        ("an account's token without signature", format!("{}.{}", parts[0], parts[1]), None),
        ("an account's token", good.clone(), Some(ROBOT)),
    ]
}

fn good_as_root(claims: &Value) -> Value {
    let mut forged = claims.clone();
    forged["sub"] = json!("system:serviceaccount:kube-system:root");
    forged
}

/// A token of these parts, signed by a P-256 key.
fn sign(pem: &str, header: &str, claims: &Value) -> String {
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der(), &random).unwrap();
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}
