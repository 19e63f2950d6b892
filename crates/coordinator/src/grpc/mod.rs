//! The gRPC front: the public services `Inference` and `Cluster`, health and reflection.

mod cluster;
mod deadline;
mod health;
mod inference;
mod status;

pub(crate) use cluster::ClusterService;
pub(crate) use health::follow_readiness;
pub(crate) use inference::InferenceService;
