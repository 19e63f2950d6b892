//! Who comes in, and with how much.

mod job_owners;
mod key_limits;
mod keys;
mod request_limits;
mod slow;
mod tls;

use std::path::PathBuf;

use tempfile::TempDir;
use windlass_client::{Client, ClientConfig};
use windlass_coordinator::{CoordinatorConfig, api_key_entry};

use crate::support::{FakeWorker, Front};

/// A file of API keys.
struct KeyFile {
    _folder: TempDir,
    path: PathBuf,
}

impl KeyFile {
    /// With one key, `wl-<name>`, and these further lines of its entry.
    fn with(name: &str, limits: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self { path: folder.path().join("keys.toml"), _folder: folder };
        file.write(&(entry(name, false) + limits));
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).unwrap();
    }
}

fn entry(name: &str, admin: bool) -> String {
    api_key_entry(name, &format!("wl-{name}"), admin).unwrap()
}

async fn front(worker: &FakeWorker, change: impl FnOnce(&mut CoordinatorConfig)) -> Front {
    let front = Front::start_with(vec![worker.address.clone()], change).await;
    front.wait_for_workers(1).await;
    front
}

async fn front_with_keys(worker: &FakeWorker, keys: &KeyFile) -> Front {
    front(worker, |config| config.api_keys_file = Some(keys.path.clone())).await
}

async fn client(front: &Front, key: Option<&str>) -> Client {
    let api_key = key.map(|key| key.parse().unwrap());
    Client::connect_with(ClientConfig { api_key, ..ClientConfig::new(&front.grpc) }).await.unwrap()
}

/// Posts JSON with an API key.
async fn post(front: &Front, key: &str, path: &str, body: &serde_json::Value) -> reqwest::Response {
    let request = reqwest::Client::new().post(format!("{}{path}", front.http)).bearer_auth(key);
    request.json(body).send().await.unwrap()
}
