//! What is said of files that cannot be used.

use std::path::{Path, PathBuf};

use windlass_transport::test_certificates::Authority;
use windlass_transport::{ClientTls, ClientTlsFiles, PemFile, Protocol, ServerTls, ServerTlsFiles, TlsError};

fn server(certificate: &Path, key: &Path, ca: Option<&Path>) -> String {
    let path = |path: &Path| Some(path.to_owned());
    let files = ServerTlsFiles::from_settings(path(certificate), path(key), ca.and_then(path));
    ServerTls::load(files.unwrap().unwrap(), Protocol::Http2).unwrap_err().to_string()
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_setting() {
    let ours = Authority::new("ours");
    let (pair, other) = (ours.issue("server", &["localhost"]), ours.issue("other", &[]));
    let expired = ours.issue_expired("expired", &["localhost"]);
    let reversed = ours.issue_reversed("reversed", &["localhost"]);
    let (empty, absent) = (ours.write("empty", ""), PathBuf::from("/nowhere/x.pem"));
    let cases = [
        (server(&absent, &pair.key, None), "tls_certificate: cannot read /nowhere/x.pem: No such file"),
        (server(&empty, &pair.key, None), "empty has no certificate"),
        (server(&pair.certificate, &empty, None), "empty has no private key"),
        (server(&pair.certificate, &pair.certificate, None), "tls_key: "),
        (server(&pair.certificate, &other.key, None), "does not belong to the certificate in"),
        (server(&pair.certificate, &pair.key, Some(&empty)), "tls_client_ca: "),
        (server(&expired.certificate, &expired.key, None), "its certificate expired"),
        (server(&reversed.certificate, &reversed.key, None), "its certificate ends before it begins"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn settings_that_need_each_other_are_asked_for() {
    let path = || Some(PathBuf::from("x"));
    let error = |files: Result<Option<ServerTlsFiles>, TlsError>| files.unwrap_err().to_string();
    let missing = error(ServerTlsFiles::from_settings(path(), None, None));
    assert_eq!(missing, "tls_key is not set, but tls_certificate is: set both or none");
    assert!(error(ServerTlsFiles::from_settings(None, path(), None)).starts_with("tls_certificate is not"));
    assert!(error(ServerTlsFiles::from_settings(None, None, path())).starts_with("tls_certificate is not"));
    assert_eq!(ServerTlsFiles::from_settings(None, None, None).unwrap(), None);
}

#[test]
fn a_clients_files_are_checked_too() {
    let ours = Authority::new("ours");
    let (pair, other) = (ours.issue("client", &[]), ours.issue("other", &[]));
    let files = || ClientTlsFiles::new(PemFile::new("worker_ca", &ours.ca));
    let alone =
        files().with_identity(("worker_certificate", Some(pair.certificate.clone())), ("worker_key", None));
    assert!(alone.unwrap_err().to_string().starts_with("worker_key is not set, but worker_certificate is"));
    let mixed = files()
        .with_identity(("worker_certificate", Some(pair.certificate)), ("worker_key", Some(other.key)))
        .unwrap();
    let message = ClientTls::load(&mixed).unwrap_err().to_string();
    assert!(message.starts_with("worker_key: ") && message.contains("does not belong"), "{message}");
    let no_ca = ClientTlsFiles::new(PemFile::new("worker_ca", "/nowhere"));
    assert!(ClientTls::load(&no_ca).unwrap_err().to_string().starts_with("worker_ca: cannot read /nowhere"));
}
