//! The gRPC front: the public services `Inference`, `Jobs` and `Cluster`, health and reflection.

mod cluster;
mod deadline;
mod health;
mod inference;
mod job_status;
mod jobs;
mod status;

pub(crate) use cluster::ClusterService;
pub(crate) use health::follow_readiness;
pub(crate) use inference::InferenceService;
pub(crate) use jobs::JobsService;
