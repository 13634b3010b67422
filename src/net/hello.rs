//! What anybody on the way reads of a TLS greeting: the name the client wants and the protocols it offers.

use rustls::server::Acceptor;

/// The part of a ClientHello that is not encrypted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Empty where the client dials an address.
    pub server_name: String,
    pub protocols: Vec<String>,
}

/// Reads a ClientHello; nothing when it is not all there.
pub fn client_hello(mut bytes: &[u8]) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut bytes).ok()?;
    let accepted = acceptor.accept().ok()??;
    let hello = accepted.client_hello();
    let protocols = hello.alpn().into_iter().flatten();
    Some(Hello {
        server_name: hello.server_name().unwrap_or_default().to_owned(),
        protocols: protocols.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Protocols, Verify, client_config};
    use super::*;

    #[test]
    fn a_greeting_tells_the_name_and_half_of_one_nothing() {
        let config = client_config(&Verify::Unverified, None, Protocols::H1).unwrap();
        let name = rustls_pki_types::ServerName::try_from("kubernetes.default").unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        let hello = client_hello(&bytes).unwrap();
        assert_eq!(
            (hello.server_name.as_str(), &hello.protocols[..]),
            ("kubernetes.default", &["http/1.1".to_owned()][..])
        );
        assert_eq!(client_hello(&bytes[..bytes.len() / 2]), None);
    }
}
