//! The gRPC front: the public `Inference` and `Jobs` services, health and reflection.

mod health;
mod inference;
mod job_status;
mod jobs;
mod status;

pub(crate) use health::follow_readiness;
pub(crate) use inference::InferenceService;
pub(crate) use jobs::JobsService;
