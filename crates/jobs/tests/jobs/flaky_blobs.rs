use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::dice::Dice;

/// An object store that takes its time, and sometimes fails to read or write.
#[derive(Debug)]
pub(crate) struct FlakyBlobs {
    pub(crate) blobs: Arc<InMemory>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) fault_percent: u64,
    /// Nothing may be read.
    pub(crate) denies: Arc<AtomicBool>,
}

impl FlakyBlobs {
    async fn fail_sometimes(&self) -> Result<()> {
        self.dice.wait(10).await;
        if self.dice.happens(self.fault_percent) {
            return Err(Error::Generic { store: "flaky", source: "a fault".into() });
        }
        Ok(())
    }
}

impl fmt::Display for FlakyBlobs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("flaky")
    }
}

#[async_trait]
impl ObjectStore for FlakyBlobs {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.fail_sometimes().await?;
        let put = self.blobs.put_opts(path, payload, options).await?;
        self.fail_sometimes().await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.blobs.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.fail_sometimes().await?;
        if self.denies.load(Ordering::SeqCst) {
            return Err(Error::PermissionDenied { path: path.to_string(), source: "403".into() });
        }
        self.blobs.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.blobs.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.blobs.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.fail_sometimes().await?;
        self.blobs.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.blobs.copy_opts(from, to, options).await
    }
}
