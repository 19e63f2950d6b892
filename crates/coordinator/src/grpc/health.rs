use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use windlass_proto::v1::inference_server::SERVICE_NAME;

/// Says "serving", of the server and of its service, while a worker is ready.
///
/// Once `stop` turns true the statuses are withdrawn, which ends the streams of those who watch them.
pub(crate) async fn follow_readiness(
    mut reporter: HealthReporter,
    mut ready: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let serving = *ready.borrow_and_update();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", SERVICE_NAME] {
            reporter.set_service_status(service, status).await;
        }
        tokio::select! {
            changed = ready.changed() => if changed.is_err() { break },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    for service in ["", SERVICE_NAME] {
        reporter.clear_service_status(service).await;
    }
}
