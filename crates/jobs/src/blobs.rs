use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload, parse_url_opts};
use url::Url;
use windlass_transport::install_crypto_provider;

use crate::error::JobsError;

/// A folder, or an object, of an object store.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// The store is this machine's files.
    is_local: bool,
}

type Source = object_store::Error;

impl Blobs {
    /// What a URL names: `file:///…`, `s3://…`, `gs://…`, `az://…`; credentials are those of the environment.
    pub fn at(url: &Url) -> Result<Self, JobsError> {
        let failed = |source| JobsError::Blob { action: "open", object: url.to_string(), source };
        let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|error| failed(error.into()))?;
        if scheme == ObjectStoreScheme::Local {
            // What is accepted must survive more than the process.
            let store = LocalFileSystem::new().with_fsync(true).with_automatic_cleanup(true);
            return Ok(Self { store: Arc::new(store), root: path, is_local: true });
        }
        install_crypto_provider();
        let (store, root) = parse_url_opts(url, std::env::vars()).map_err(failed)?;
        Ok(Self { store: store.into(), root, is_local: false })
    }

    /// All of an object store.
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, root: Path::default(), is_local: false }
    }

    /// What lies below under this name.
    pub(crate) fn below(&self, name: &str) -> Self {
        let name = Path::from(name);
        self.with_root(self.root.parts().chain(name.parts()).collect())
    }

    /// The object's content.
    pub(crate) async fn read(&self) -> Result<Vec<u8>, JobsError> {
        let read = async { self.store.get(&self.root).await?.bytes().await };
        read.await.map(Into::into).map_err(|source| self.failed("read", source))
    }

    /// The object's content as it comes.
    pub(crate) async fn stream(&self) -> Result<BoxStream<'static, Result<Vec<u8>, Source>>, JobsError> {
        let object = self.store.get(&self.root).await.map_err(|source| self.failed("read", source))?;
        Ok(object.into_stream().map_ok(Into::into).boxed())
    }

    /// Writes the object; it is there as a whole or not at all.
    pub(crate) async fn write(&self, content: Vec<u8>) -> Result<(), JobsError> {
        let written = self.store.put(&self.root, PutPayload::from(content)).await;
        written.map(|_| ()).map_err(|source| self.failed("write", source))
    }

    /// Writes the object piece by piece.
    pub(crate) fn writer(&self) -> BufWriter {
        BufWriter::new(Arc::clone(&self.store), self.root.clone())
    }

    /// Whether there is such an object.
    pub(crate) async fn exists(&self) -> Result<bool, JobsError> {
        match self.store.head(&self.root).await {
            Ok(_) => Ok(true),
            Err(Source::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// The objects below whose names end so, in order of names.
    pub(crate) async fn objects(&self, suffix: &str) -> Result<Vec<Self>, JobsError> {
        let listed: Result<Vec<_>, _> = self.store.list(Some(&self.root)).try_collect().await;
        let listed = listed.map_err(|source| self.failed("list", source))?;
        let mut paths: Vec<_> = listed.into_iter().map(|object| object.location).collect();
        paths.retain(|path| path.as_ref().ends_with(suffix));
        paths.sort();
        Ok(paths.into_iter().map(|root| self.with_root(root)).collect())
    }

    /// Deletes the object, if it is there.
    pub(crate) async fn delete(&self) -> Result<(), JobsError> {
        match self.store.delete(&self.root).await {
            Ok(()) | Err(Source::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("delete", source)),
        }
    }

    /// Deletes everything below.
    pub(crate) async fn delete_all(&self) -> Result<(), JobsError> {
        let below = self.store.list(Some(&self.root)).map_ok(|object| object.location).boxed();
        let deleted = self.store.delete_stream(below).filter(|deleted| {
            let gone = matches!(deleted, Err(Source::NotFound { .. }));
            std::future::ready(!gone)
        });
        deleted.try_for_each(|_| async { Ok(()) }).await.map_err(|source| self.failed("delete", source))
    }

    fn with_root(&self, root: Path) -> Self {
        Self { store: Arc::clone(&self.store), root, is_local: self.is_local }
    }

    /// The file that it is on this machine, if it is one.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.is_local.then(|| LocalFileSystem::new().path_to_filesystem(&self.root).ok()).flatten()
    }

    /// Its path, for errors.
    pub(crate) fn name(&self) -> &str {
        self.root.as_ref()
    }

    pub(crate) fn failed(&self, action: &'static str, source: Source) -> JobsError {
        JobsError::Blob { action, object: self.root.to_string(), source }
    }
}
