//! The gRPC front: the public `Inference` service, health and reflection.

mod health;
mod inference;
mod status;

pub(crate) use health::follow_readiness;
pub(crate) use inference::InferenceService;
