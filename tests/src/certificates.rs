//! Certificates of an authority that exists for one test.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// An authority, and a server and a client it vouches for; all in PEM.
pub struct Certificates {
    /// The authority's certificate.
    pub ca: String,
    /// Certificate of a server on this machine.
    pub server: String,
    /// The server's key.
    pub server_key: String,
    /// Certificate of a client.
    pub client: String,
    /// The client's key.
    pub client_key: String,
}

impl Certificates {
    /// New ones, that nobody else trusts.
    pub fn generate() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let (server, server_key) = signed(&authority, "server")?;
        let (client, client_key) = signed(&authority, "client")?;
        Ok(Self { ca: authority.pem(), server, server_key, client, client_key })
    }

    /// Writes `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let files = [
            ("ca.pem", &self.ca),
            ("server.pem", &self.server),
            ("server.key", &self.server_key),
            ("client.pem", &self.client),
            ("client.key", &self.client_key),
        ];
        for (name, pem) in files {
            fs::write(folder.join(name), pem)?;
        }
        Ok(())
    }
}

fn signed(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> Result<(String, String)> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    // etcd is also a client of its own.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, authority)?.pem(), key.serialize_pem()))
}
