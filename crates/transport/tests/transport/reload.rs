//! Files that change while the server runs.

use std::fs;

use windlass_transport::test_certificates::Authority;

use crate::support::{Echo, Log, client_tls, echo, eventually, server_tls};

#[tokio::test]
async fn changed_files_are_taken_over_and_broken_ones_are_not() {
    let log = Log::of_process();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let pair = old.issue("server", &["localhost"]);
    let server = Echo::start(Some(server_tls(&pair, None)), 9).await;
    let (old_client, new_client) = (client_tls(&old.ca, None), client_tls(&new.ca, None));
    assert_eq!(echo(server.address, &old_client).await.unwrap(), "word");

    fs::write(&pair.certificate, "nonsense").unwrap();
    let line = log.line_with(&pair.certificate.display().to_string()).await;
    assert!(line.contains("the old ones stay") && line.contains("tls_certificate: "), "{line}");
    assert_eq!(echo(server.address, &old_client).await.unwrap(), "word");

    let renewed = new.issue("server", &["localhost"]);
    fs::copy(&renewed.key, &pair.key).unwrap();
    fs::copy(&renewed.certificate, &pair.certificate).unwrap();
    eventually(|| async { echo(server.address, &new_client).await.is_ok() }).await;
    assert!(echo(server.address, &old_client).await.is_err());
}
