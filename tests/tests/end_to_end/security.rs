//! Certificates and keys between real processes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use windlass_client::{ApiKey, Client, ClientConfig, ClientTls, ClientTlsFiles, GenerateRequest, PemFile};
use windlass_tests::{Server, binary, eventually};
use windlass_transport::test_certificates::{Authority, Pair};

const LISTEN: [&str; 4] = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// A worker that lets in clients of this authority only.
fn worker(authority: &Authority) -> Result<Server> {
    let Pair { certificate, key } = authority.issue("worker", &["worker.internal"]);
    Server::windlass(
        &[
            &["worker", "--listen", "127.0.0.1:0", "--model", "demo", "--threads", "1"][..],
            &["--tls-certificate", text(&certificate)?, "--tls-key", text(&key)?],
            &["--tls-client-ca", text(&authority.ca)?],
        ]
        .concat(),
    )
}

/// A key and the file it is in, as the command makes them.
fn key(authority: &Authority) -> Result<(String, std::path::PathBuf)> {
    let output = Command::new(binary("windlass")?).args(["keys", "generate", "--name", "team"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let key = said.split_whitespace().find(|word| word.starts_with("wl-")).context("no key")?;
    let entry = said.split_once("[[key]]").context("no entry")?.1;
    Ok((key.to_owned(), authority.write("keys.toml", &format!("[[key]]{entry}"))))
}

async fn get(url: &str, tls: &ClientTls) -> Result<String> {
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls.for_http()).build()?;
    Ok(client.get(url).send().await?.text().await?)
}

fn client_tls(authority: &Authority) -> Result<ClientTls> {
    Ok(ClientTls::load(&ClientTlsFiles::new(PemFile::new("ca", &authority.ca)))?)
}

/// `windlass chat`, with what it says.
fn chat(url: &str, arguments: &[&str], key: Option<&str>) -> Result<(bool, String)> {
    let mut command = Command::new(binary("windlass")?);
    command.args([&["chat", "--url", url, "--temperature", "0"], arguments].concat());
    if let Some(key) = key {
        command.env("WINDLASS_API_KEY", key);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(b"7+5-3*2=\n")?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((output.status.success(), said))
}

#[tokio::test]
async fn a_cluster_speaks_tls_throughout_and_knows_its_callers() -> Result<()> {
    let (workers, fronts) = (Authority::new("workers"), Authority::new("fronts"));
    let worker = worker(&workers)?;
    let (ours, server) = (workers.issue("coordinator", &[]), fronts.issue("server", &["127.0.0.1"]));
    let (key, keys) = key(&fronts)?;
    let coordinator = Server::windlass(
        &[
            &["coordinator", "--workers", worker.address("listening on ")?][..],
            &LISTEN,
            &["--worker-ca", text(&workers.ca)?, "--worker-tls-name", "worker.internal"],
            &["--worker-certificate", text(&ours.certificate)?, "--worker-key", text(&ours.key)?],
            &["--tls-certificate", text(&server.certificate)?, "--tls-key", text(&server.key)?],
            &["--api-keys-file", text(&keys)?],
        ]
        .concat(),
    )?;
    let url = format!("https://{}", coordinator.address("http://")?);
    let tls = client_tls(&fronts)?;
    eventually("it is ready", || async {
        Ok(get(&format!("{url}/ready"), &tls).await?.contains("\"ready\""))
    })
    .await?;

    let ca = ["--ca", text(&fronts.ca)?];
    let (done, said) = chat(&url, &ca, Some(&key))?;
    ensure!(done && said.starts_with("8\n"), "{said}");
    let (done, said) = chat(&url, &ca, None)?;
    ensure!(!done && said.contains("an API key is required"), "{said}");
    let (done, said) = chat(&url, &["--ca", text(&workers.ca)?], Some(&key))?;
    ensure!(!done && said.contains("UnknownIssuer"), "{said}");

    let config = ClientConfig {
        tls: Some(tls),
        api_key: Some(key.parse::<ApiKey>().map_err(anyhow::Error::msg)?),
        ..ClientConfig::new(coordinator.address("grpc://")?)
    };
    let answer = Client::connect_with(config).await?.generate_whole(GenerateRequest::text("7+5=")).await?;
    ensure!(!answer.tokens.is_empty(), "no answer over gRPC");
    Ok(())
}

#[tokio::test]
async fn a_coordinator_without_the_right_certificate_gets_no_worker_and_says_why() -> Result<()> {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let worker = worker(&ours)?;
    let (foreign, expired) = (theirs.issue("coordinator", &[]), ours.issue_expired("expired", &[]));
    let wrong = theirs.issue("right", &[]);
    let cases = [
        (&ours, None, "worker.internal", "CertificateRequired"),
        (&ours, Some(&foreign), "worker.internal", "UnknownCA"),
        (&ours, Some(&expired), "worker.internal", "CertificateExpired"),
        (&theirs, Some(&wrong), "worker.internal", "UnknownIssuer"),
        (&ours, None, "other.internal", "not valid for name"),
    ];
    for (authority, pair, name, expected) in cases {
        let ca = text(&authority.ca)?;
        let address = worker.address("listening on ")?;
        let mut arguments =
            vec!["coordinator", "--workers", address, "--worker-ca", ca, "--worker-tls-name", name];
        arguments.extend(LISTEN);
        if let Some(Pair { certificate, key }) = pair {
            arguments.extend(["--worker-certificate", text(certificate)?, "--worker-key", text(key)?]);
        }
        let coordinator = Server::windlass(&arguments)?;
        let url = format!("http://{}/ready", coordinator.address("http://")?);
        eventually(expected, || async {
            let page = reqwest::get(&url).await?.text().await?;
            ensure!(page.contains(expected), "{page}");
            Ok(true)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_speaks_tls_or_not_unlike_the_server_is_told_so() -> Result<()> {
    let authority = Authority::new("front");
    let Pair { certificate, key } = authority.issue("front", &["127.0.0.1"]);
    let tls = ["--tls-certificate", text(&certificate)?, "--tls-key", text(&key)?];
    let start = |more: &[&str]| {
        let arguments = ["coordinator", "--workers", "127.0.0.1:9"];
        Server::windlass(&[&arguments[..], &LISTEN, more].concat())
    };
    let (secure, plain) = (start(&tls)?, start(&[])?);
    let commands = [&["jobs", "list"][..], &["workers", "list"]];
    for command in commands {
        let said = |server: &Server, more: &[&str]| -> Result<String> {
            let address = ["--address", server.address("grpc://")?];
            let output = Command::new(binary("windlass")?).args(command).args(address).args(more).output()?;
            ensure!(!output.status.success(), "{output:?}");
            Ok(String::from_utf8(output.stderr)?)
        };
        let without = said(&secure, &[])?;
        ensure!(without.contains("the server speaks TLS, use https:// and set the CA"), "{without}");
        let with = said(&plain, &["--ca", text(&authority.ca)?])?;
        ensure!(with.contains("the server does not speak TLS"), "{with}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_never_show_in_logs_of_any_level() -> Result<()> {
    let authority = Authority::new("log");
    let (key, keys) = key(&authority)?;
    let log = authority.write("log", "");
    let worker =
        Server::windlass(&["worker", "--listen", "127.0.0.1:0", "--model", "demo", "--threads", "1"])?;
    let arguments = ["coordinator", "--workers", worker.address("listening on ")?];
    let arguments = [&arguments[..], &LISTEN, &["--api-keys-file", text(&keys)?]].concat();
    let coordinator = Server::logging(&arguments, "trace", File::create(&log)?)?;
    let url = format!("http://{}", coordinator.address("http://")?);
    for key in [key.as_str(), "wl-mistyped"] {
        let request = reqwest::Client::new().post(format!("{url}/v1/completions")).bearer_auth(key);
        request.json(&json!({"prompt": "7+5=", "max_tokens": 1})).send().await?;
        let api_key = Some(key.parse::<ApiKey>().map_err(anyhow::Error::msg)?);
        let config = ClientConfig { api_key, ..ClientConfig::new(coordinator.address("grpc://")?) };
        let _ = Client::connect_with(config).await?.list_models().await;
    }
    std::fs::write(&keys, format!("[[key]]\nname = 'a'\nsha256 = '{key}'\n"))?;
    eventually("the broken file is reported", || async {
        Ok(std::fs::read_to_string(&log)?.contains("the old keys stay"))
    })
    .await?;
    let written = std::fs::read_to_string(&log)?;
    for secret in [key.as_str(), "wl-mistyped"] {
        let line = written.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "{line:?}");
    }
    Ok(())
}
