use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use windlass_proto::v1::submit_job_request::Part;
use windlass_proto::v1::{
    CancelJobRequest, GetJobRequest, ItemResult, Job, JobItem, JobSpec, ListJobsRequest,
    StreamResultsRequest, SubmitJobRequest, WatchProgressRequest,
};

use crate::client::Client;
use crate::error::ClientError;

/// Jobs: many prompts, results later.
impl Client {
    /// Submits a job; it is accepted, and will be finished, once this returns. `items` must be empty where the spec has an
    /// `input_uri`.
    pub async fn submit_job(
        &self,
        spec: JobSpec,
        items: impl Stream<Item = JobItem> + Send + 'static,
    ) -> Result<Job, ClientError> {
        let request = |part| SubmitJobRequest { part: Some(part) };
        let first = stream::iter([request(Part::Spec(spec))]);
        let parts = first.chain(items.map(move |item| request(Part::Item(item))));
        job(self.jobs.clone().submit_job(parts).await?.into_inner().job)
    }

    /// A job as it is.
    pub async fn get_job(&self, id: &str) -> Result<Job, ClientError> {
        job(self.jobs.clone().get_job(GetJobRequest { id: id.to_owned() }).await?.into_inner().job)
    }

    /// Jobs, newest first, and the token of the next page; it is empty at the end.
    pub async fn list_jobs(
        &self,
        limit: Option<u32>,
        page_token: &str,
    ) -> Result<(Vec<Job>, String), ClientError> {
        let request = ListJobsRequest { limit, page_token: page_token.to_owned() };
        let response = self.jobs.clone().list_jobs(request).await?.into_inner();
        Ok((response.jobs, response.next_page_token))
    }

    /// Ends a job; what is done of it stays. One that has ended is left as it is.
    pub async fn cancel_job(&self, id: &str) -> Result<Job, ClientError> {
        job(self.jobs.clone().cancel_job(CancelJobRequest { id: id.to_owned() }).await?.into_inner().job)
    }

    /// Results in order of items as they become certain, each with the token to go on behind it; ends with the job.
    pub async fn job_results(
        &self,
        id: &str,
        resume_token: &str,
    ) -> Result<impl Stream<Item = Result<(ItemResult, String), ClientError>> + Send + use<>, ClientError>
    {
        let request = StreamResultsRequest { id: id.to_owned(), resume_token: resume_token.to_owned() };
        let responses = self.jobs.clone().stream_results(request).await?.into_inner();
        Ok(responses.map_err(ClientError::from).and_then(|response| async {
            let result = response.result.ok_or_else(|| missing("result"))?;
            Ok((result, response.resume_token))
        }))
    }

    /// The job at once and after every change, until it has ended.
    pub async fn watch_job(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Job, ClientError>> + Send + use<>, ClientError> {
        let request = WatchProgressRequest { id: id.to_owned() };
        let responses = self.jobs.clone().watch_progress(request).await?.into_inner();
        Ok(responses.map_err(ClientError::from).and_then(|response| async { job(response.job) }))
    }
}

fn job(job: Option<Job>) -> Result<Job, ClientError> {
    job.ok_or_else(|| missing("job"))
}

fn missing(what: &str) -> ClientError {
    let message = format!("the answer has no {what}: the server speaks another API");
    ClientError::Failed { code: "unknown answer".into(), message }
}
