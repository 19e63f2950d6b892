use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use windlass_jobs::{Jobs, JobsError};
use windlass_proto::v1::jobs_server;
use windlass_proto::v1::submit_job_request::Part;
use windlass_proto::v1::{
    CancelJobRequest, CancelJobResponse, GetJobRequest, GetJobResponse, JobItem, JobSpec, ListJobsRequest,
    ListJobsResponse, StreamResultsRequest, StreamResultsResponse, SubmitJobRequest, SubmitJobResponse,
    WatchProgressRequest, WatchProgressResponse,
};

use super::job_status::job_status;
use super::status::status;
use crate::generation::{GenerationError, Generator};
use crate::security::Caller;

/// The service of jobs; all it does is refused where none are kept.
pub(crate) struct JobsService {
    pub(crate) generator: Arc<Generator>,
    pub(crate) jobs: Option<Jobs>,
    pub(crate) stop: watch::Receiver<bool>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl jobs_server::Jobs for JobsService {
    type StreamResultsStream = Responses<StreamResultsResponse>;
    type WatchProgressStream = Responses<WatchProgressResponse>;

    async fn submit_job(
        &self,
        request: Request<Streaming<SubmitJobRequest>>,
    ) -> Result<Response<SubmitJobResponse>, Status> {
        let jobs = self.jobs(&request)?;
        let mut parts = request.into_inner();
        let Some(SubmitJobRequest { part: Some(Part::Spec(spec)) }) = parts.message().await? else {
            let message = "the first message must be the spec";
            return Err(job_status(JobsError::invalid("spec", message)));
        };
        let spec = self.with_model(spec).await.map_err(status)?;
        let submitted = jobs.submit(spec, parts.map(item));
        let job = tokio::select! {
            job = submitted => job.map_err(job_status)?,
            () = stopped(self.stop.clone()) => return Err(shutting_down()),
        };
        Ok(Response::new(SubmitJobResponse { job: Some(job) }))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        let jobs = self.jobs(&request)?;
        let job = jobs.get(&request.into_inner().id).await.map_err(job_status)?;
        Ok(Response::new(GetJobResponse { job: Some(job) }))
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let jobs = self.jobs(&request)?;
        let ListJobsRequest { limit, page_token } = request.into_inner();
        let (jobs, next_page_token) = jobs.list(limit, &page_token).await.map_err(job_status)?;
        Ok(Response::new(ListJobsResponse { jobs, next_page_token }))
    }

    async fn cancel_job(
        &self,
        request: Request<CancelJobRequest>,
    ) -> Result<Response<CancelJobResponse>, Status> {
        let jobs = self.jobs(&request)?;
        let job = jobs.cancel(&request.into_inner().id).await.map_err(job_status)?;
        Ok(Response::new(CancelJobResponse { job: Some(job) }))
    }

    async fn stream_results(
        &self,
        request: Request<StreamResultsRequest>,
    ) -> Result<Response<Self::StreamResultsStream>, Status> {
        let jobs = self.jobs(&request)?;
        let StreamResultsRequest { id, resume_token } = request.into_inner();
        // What does not exist is said at once.
        jobs.get(&id).await.map_err(job_status)?;
        let results = jobs.results(&id, &resume_token).map_err(job_status)?;
        let responses = results.map(|result| {
            let result = result.map_err(job_status)?;
            let resume_token = Jobs::resume_token(&result);
            Ok(StreamResultsResponse { result: Some(result), resume_token })
        });
        Ok(Response::new(self.until_stop(responses)))
    }

    async fn watch_progress(
        &self,
        request: Request<WatchProgressRequest>,
    ) -> Result<Response<Self::WatchProgressStream>, Status> {
        let jobs = self.jobs(&request)?;
        let id = request.into_inner().id;
        jobs.get(&id).await.map_err(job_status)?;
        let progress = jobs.watch(&id).map_err(job_status)?;
        let responses =
            progress.map(|job| job.map(|job| WatchProgressResponse { job: Some(job) }).map_err(job_status));
        Ok(Response::new(self.until_stop(responses)))
    }
}

impl JobsService {
    /// The jobs as the caller sees them.
    fn jobs<T>(&self, request: &Request<T>) -> Result<Jobs, Status> {
        let message = "this server keeps no jobs: set jobs_dir to a folder for them, or with etcd jobs_url";
        let jobs = self.jobs.as_ref().ok_or_else(|| Status::failed_precondition(message))?;
        Ok(jobs.seen_by(Caller::of(request.extensions()).party()))
    }

    /// The spec for one model, whatever comes to be served beside it. One whose workers are away is waited for.
    async fn with_model(&self, spec: JobSpec) -> Result<JobSpec, GenerationError> {
        match self.generator.model(&spec.model) {
            Ok(model) => {
                let parameters = spec.parameters.clone().unwrap_or_default();
                self.generator.check_parameters(&model, &parameters, &spec.stop).await?;
                Ok(JobSpec { model: model.info.name.clone(), ..spec })
            }
            Err(GenerationError::Unavailable { .. }) if !spec.model.is_empty() => Ok(spec),
            Err(error) => Err(error),
        }
    }

    /// The stream, which breaks off when the server ends.
    fn until_stop<T: Send + 'static>(
        &self,
        responses: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Responses<T> {
        let state = Some((Box::pin(responses), self.stop.clone()));
        Box::pin(stream::unfold(state, |state| async move {
            let (mut responses, stop) = state?;
            tokio::select! {
                response = responses.next() => response.map(|response| (response, Some((responses, stop)))),
                () = stopped(stop.clone()) => Some((Err(shutting_down()), None)),
            }
        }))
    }
}

/// An item of a submission.
fn item(part: Result<SubmitJobRequest, Status>) -> Result<JobItem, JobsError> {
    match part {
        Ok(SubmitJobRequest { part: Some(Part::Item(item)) }) => Ok(item),
        Ok(_) => Err(JobsError::invalid("item", "a message has none: send items only behind the spec")),
        Err(status) => Err(JobsError::BrokenOff { reason: status.message().to_owned() }),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the coordinator is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn shutting_down() -> Status {
    Status::unavailable("the server is shutting down: ask again, accepted jobs are kept")
}
