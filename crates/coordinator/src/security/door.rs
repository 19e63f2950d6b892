//! The door of the gRPC front.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use std::future::{Ready, ready};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::{Caller, Keyring};
use crate::metrics;

/// Services that anyone may ask.
const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];
/// Calls that change what workers do.
const ADMIN: [&str; 2] = ["/windlass.v1.Cluster/DrainWorker", "/windlass.v1.Cluster/UndrainWorker"];

/// Lets in those who bring a key, and tells services who they are. Without a keyring everyone comes in.
#[derive(Clone)]
pub(crate) struct GrpcDoor {
    pub(crate) keyring: Option<Arc<Keyring>>,
}

impl GrpcDoor {
    fn caller<B>(&self, request: &Request<B>) -> Result<Caller, Status> {
        let path = request.uri().path();
        let Some(keyring) = &self.keyring else { return Ok(Caller::anyone()) };
        if OPEN.iter().any(|service| path.starts_with(service)) {
            return Ok(Caller::anyone());
        }
        let caller = keyring.caller(request.headers()).map_err(|error| {
            metrics::failure("invalid_api_key");
            Status::unauthenticated(error.to_string())
        })?;
        if ADMIN.contains(&path) && !caller.is_admin() {
            metrics::failure("permission_denied");
            return Err(Status::permission_denied("this needs an API key with admin = true"));
        }
        Ok(caller)
    }
}

impl<S> Layer<S> for GrpcDoor {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { door: self.clone(), inner }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    door: GrpcDoor,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.door.caller(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
