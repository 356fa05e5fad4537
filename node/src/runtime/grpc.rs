//! The gRPC port: all services of a node, and what `grpc.health.v1` says of them.

use std::sync::Arc;
use std::time::Duration;

use dtm_administration::{AdminDoor, BackupDoor, JoinDoor};
use dtm_doors::http::{LiveStatus, Readiness};
use dtm_doors::telemetry::ContainCalls;
use dtm_doors::{
    IngestServer, Live, NodeDoor, RecordsDoor, Shared, TellTooLarge, metered, reflection,
};
use dtm_proto::admin::admin_service_server::AdminServiceServer;
use dtm_proto::admin::backup_service_server::BackupServiceServer;
use dtm_proto::admin::join_service_server::JoinServiceServer;
use dtm_proto::admin::node_service_server::NodeServiceServer;
use dtm_proto::records::records_service_server::RecordsServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::util::{MapRequestLayer, MapResponseLayer};

use super::settings::LEAVE_WITHIN;
use crate::tls;

/// Largest request of administration: a data set's definition of 1 MiB. It is decoded before anybody
/// knows who asks.
const ADMIN_BYTES_MAX: usize = (1 << 20) + BESIDE_BYTES_MAX;
/// What stands beside the largest part of a request: names, positions, reasons.
const BESIDE_BYTES_MAX: usize = 64 << 10;
/// How often the health of intake is looked at.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Serves until the node stops; what is open then is cut off after a while.
pub(super) async fn serve_grpc(
    shared: Arc<Shared>,
    listener: tls::Listener,
    shutdown: CancellationToken,
) {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<RecordsServiceServer<RecordsDoor>>().await;
    health_reporter.set_serving::<AdminServiceServer<AdminDoor>>().await;
    let health_of_intake = tell_health(&health_reporter, Live { shared: Arc::clone(&shared) });
    let reflection = reflection(&shared);
    let ingest = IngestServer::new(Arc::clone(&shared));
    // A refused record is sent again whole.
    let record_bytes_max = shared.config.limits.record_bytes_max;
    let records_bytes_max =
        usize::try_from(record_bytes_max).unwrap_or(usize::MAX).saturating_add(BESIDE_BYTES_MAX);
    let records = RecordsServiceServer::new(RecordsDoor(Arc::clone(&shared)))
        .max_decoding_message_size(records_bytes_max)
        .max_encoding_message_size(usize::MAX);
    let admin = AdminServiceServer::new(AdminDoor(Arc::clone(&shared)))
        .max_decoding_message_size(ADMIN_BYTES_MAX);
    let nodes = NodeServiceServer::new(NodeDoor(Arc::clone(&shared)));
    let backups = BackupServiceServer::new(BackupDoor(Arc::clone(&shared)));
    let arriving = Arc::clone(&shared);
    let join = JoinServiceServer::new(JoinDoor(shared));
    let served = tls::grpc_server()
        .layer(ContainCalls)
        .layer(TellTooLarge)
        .layer(MapResponseLayer::new(metered))
        .layer(MapRequestLayer::new(move |request| of_stranger(&arriving, request)))
        .add_service(health)
        .add_service(reflection)
        .add_service(ingest)
        .add_service(records)
        .add_service(admin)
        .add_service(nodes)
        .add_service(backups)
        .add_service(join)
        .serve_with_incoming_shutdown(listener.run(shutdown.clone()), shutdown.cancelled());
    let ended = tokio::select! {
        ended = served => ended,
        () = health_of_intake => Ok(()),
        // Streams that live for months do not end by themselves.
        () = async { shutdown.cancelled().await; tokio::time::sleep(LEAVE_WITHIN * 2).await } => Ok(()),
    };
    if let Err(error) = ended {
        tracing::error!(%error, "the gRPC port ended");
    }
}

/// Bounds what is read of a request before it is known who asks. `Publish` knows that first.
fn of_stranger(shared: &Shared, request: http::Request<Body>) -> http::Request<Body> {
    if request.uri().path() == IngestServer::PUBLISH {
        return request;
    }
    shared.room.arrivals.of_address(request)
}

/// `dtm.ingest.v1.IngestService` is SERVING while `/readyz` says so: a client that asks for health
/// before it connects finds a node that can commit. Reading and administration are served longer.
async fn tell_health(reporter: &HealthReporter, live: Live) {
    reporter.set_not_serving::<IngestServer>().await;
    let mut told = ServingStatus::NotServing;
    // Ends with the port.
    loop {
        let status = match live.readiness().await {
            Readiness::Ready | Readiness::Degraded { .. } => ServingStatus::Serving,
            Readiness::NotReady { .. } => ServingStatus::NotServing,
        };
        if told != status {
            told = status;
            reporter.set_service_status(IngestServer::NAME, status).await;
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}
