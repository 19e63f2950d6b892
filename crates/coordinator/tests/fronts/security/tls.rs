//! Both fronts behind TLS.

use windlass_client::{Client, ClientConfig, ClientTls, GenerateRequest};
use windlass_coordinator::{ClientTlsFiles, Coordinator, CoordinatorConfig, PemFile, ServerTlsFiles};
use windlass_transport::test_certificates::{Authority, Pair};

use crate::support::{FakeWorker, Front, Script, eventually};

fn files(pair: &Pair, client_ca: Option<&Authority>) -> Option<ServerTlsFiles> {
    let client_ca = client_ca.map(|authority| authority.ca.clone());
    ServerTlsFiles::from_settings(Some(pair.certificate.clone()), Some(pair.key.clone()), client_ca).unwrap()
}

fn tls(authority: &Authority, pair: Option<&Pair>) -> ClientTls {
    let (certificate, key) = pair.map(|pair| (pair.certificate.clone(), pair.key.clone())).unzip();
    let files = ClientTlsFiles::new(PemFile::new("ca", &authority.ca))
        .with_identity(("certificate", certificate), ("key", key))
        .unwrap();
    ClientTls::load(&files).unwrap()
}

async fn models(front: &Front, tls: &ClientTls) -> Result<String, reqwest::Error> {
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls.for_http()).build()?;
    let url = format!("{}/v1/models", front.http.replace("http://", "https://"));
    client.get(url).send().await?.text().await
}

async fn answer(front: &Front, tls: &ClientTls) -> Result<String, windlass_client::ClientError> {
    let config = ClientConfig { tls: Some(tls.clone()), ..ClientConfig::new(&front.grpc) };
    let client = Client::connect_with(config).await?;
    Ok(client.generate_whole(GenerateRequest::text("1")).await?.text)
}

#[tokio::test]
async fn both_fronts_speak_tls_and_ask_clients_for_their_certificates() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = ours.issue("server", &["127.0.0.1"]);
    let worker = FakeWorker::start(Script::says("4")).await;
    let workers = vec![worker.address.clone()];
    let front = Front::start_with(workers, |config| config.tls = files(&server, Some(&ours))).await;
    let right = tls(&ours, Some(&ours.issue("client", &[])));
    eventually(|| async { models(&front, &right).await.unwrap().contains("demo") }).await;
    assert_eq!(answer(&front, &right).await.unwrap(), "4");

    let expired = tls(&ours, Some(&ours.issue_expired("expired", &[])));
    let foreign = tls(&ours, Some(&theirs.issue("client", &[])));
    for wrong in [tls(&ours, None), expired, foreign, tls(&theirs, None)] {
        assert!(models(&front, &wrong).await.is_err());
        assert!(answer(&front, &wrong).await.is_err());
    }
    assert!(reqwest::get(format!("{}/live", front.http)).await.is_err(), "plain text is answered");
    assert!(
        Client::connect(&front.grpc).await.is_err() || {
            let client = Client::connect(&front.grpc).await.unwrap();
            client.list_models().await.is_err()
        }
    );
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start() {
    let ours = Authority::new("ours");
    let mut config = CoordinatorConfig::new(vec!["127.0.0.1:1".into()]);
    let pair = Pair { key: "/nowhere".into(), ..ours.issue("server", &[]) };
    config.tls = files(&pair, None);
    let message = Coordinator::new(config.clone()).err().unwrap().to_string();
    assert!(message.starts_with("tls_key: cannot read /nowhere"), "{message}");
    config.tls = None;
    config.worker_tls = Some(ClientTlsFiles::new(PemFile::new("worker_ca", "/nowhere")));
    assert!(
        Coordinator::new(config.clone()).err().unwrap().to_string().starts_with("worker_ca: cannot read")
    );
    config.worker_tls = None;
    config.api_keys_file = Some("/nowhere".into());
    assert!(Coordinator::new(config).err().unwrap().to_string().starts_with("api_keys_file: cannot read"));
}
