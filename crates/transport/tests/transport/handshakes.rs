//! Who gets in, and what is logged of those who do not.

use tokio::net::TcpStream;
use windlass_transport::test_certificates::{Authority, Pair};

use crate::support::{Echo, Log, client_tls, echo, echo_on, server_tls};

async fn refused(pair: Option<&Pair>, ours: &Authority, logged: &str) {
    let log = Log::of_process();
    let server =
        Echo::start(Some(server_tls(&ours.issue("server", &["localhost"]), Some(&ours.ca))), 9).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let peer = format!("peer={}", stream.local_addr().unwrap());
    let answer = echo_on(stream, &client_tls(&ours.ca, pair)).await;
    assert!(answer.is_err(), "{answer:?}");
    let line = log.line_with(&peer).await;
    assert!(line.contains("TLS handshake failed") && line.contains(logged), "{line}");
}

#[tokio::test]
async fn a_client_with_a_certificate_of_the_authority_is_served() {
    let ours = Authority::new("ours");
    let server =
        Echo::start(Some(server_tls(&ours.issue("server", &["localhost"]), Some(&ours.ca))), 9).await;
    let tls = client_tls(&ours.ca, Some(&ours.issue("client", &[])));
    assert_eq!(echo(server.address, &tls).await.unwrap(), "word");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    refused(None, &Authority::new("ours"), "peer sent no certificates").await;
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let theirs = Authority::new("theirs");
    refused(Some(&theirs.issue("client", &[])), &Authority::new("ours"), "UnknownIssuer").await;
}

#[tokio::test]
async fn a_client_whose_certificate_expired_is_refused() {
    let ours = Authority::new("ours");
    refused(Some(&ours.issue_expired("client", &[])), &ours, "expired").await;
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_authority_or_name() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let foreign = Echo::start(Some(server_tls(&theirs.issue("server", &["localhost"]), None)), 9).await;
    let misnamed = Echo::start(Some(server_tls(&ours.issue("server", &["elsewhere"]), None)), 9).await;
    let tls = client_tls(&ours.ca, None);
    let error = |result: std::io::Result<String>| result.unwrap_err().to_string();
    assert!(error(echo(foreign.address, &tls).await).contains("UnknownIssuer"));
    assert!(error(echo(misnamed.address, &tls).await).contains("not valid for name"));
}

#[tokio::test]
async fn a_client_that_says_nothing_delays_no_other() {
    let ours = Authority::new("ours");
    let server = Echo::start(Some(server_tls(&ours.issue("server", &["localhost"]), None)), 9).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(echo(server.address, &client_tls(&ours.ca, None)).await.unwrap(), "word");
}
