//! A rank that joins a group led by another process.

use std::error::Error;
use std::thread;
use std::time::Duration;

use futures::stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use windlass_kernels::group::{Exchange, Loss};
use windlass_kernels::{Backend, Cpu, CpuConfig, GpuConfig, WeightFormat};
use windlass_model::ranks::{Device, Follower, Order, UNREAD};
use windlass_model::{LoadProgress, ModelConfig, ModelFolder, Network};
use windlass_proto::v1::ranks_client::RanksClient;
use windlass_proto::v1::to_rank::Message;
use windlass_proto::v1::{FromRank, RankHello, RankReady, RankValues, ToRank, from_rank};
use windlass_transport::{ClientTls, ClientTlsFiles, TlsFault};

use super::place::Place;
use super::process::ProcessRank;
use super::{MAX_MESSAGE_BYTES, QUEUE, RANK_TIMEOUT, RankError, WINDOW_BYTES, fingerprint, wire};
use crate::error::WorkerError;

/// Between two tries to reach rank 0.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How one rank computes, and where it joins. [`RankConfig::new`] gives defaults.
#[derive(Debug, Clone)]
pub struct RankConfig {
    /// `host:port` where rank 0 lets others join.
    pub join: String,
    /// This rank, from 1 on.
    pub rank: usize,
    /// The model, the same as rank 0's.
    pub model: ModelFolder,
    /// Threads of this rank.
    pub threads: usize,
    /// How weights are stored, as rank 0 does.
    pub weights: WeightFormat,
    /// The GPU that computes, one; without it the processor does.
    pub gpu: Option<GpuConfig>,
    /// How to know rank 0, and to be known; without it in plain text.
    pub tls: Option<ClientTlsFiles>,
    /// How long rank 0 may be silent before it is lost.
    pub rank_timeout: Duration,
    /// How long rank 0 may go on after this rank was told to end.
    pub drain_deadline: Duration,
}

impl RankConfig {
    /// Defaults.
    pub fn new(join: String, rank: usize, model: ModelFolder) -> Self {
        Self {
            join,
            rank,
            model,
            threads: 1,
            weights: WeightFormat::default(),
            gpu: None,
            tls: None,
            rank_timeout: RANK_TIMEOUT,
            drain_deadline: Duration::from_secs(30),
        }
    }

    fn endpoint(&self) -> Result<Endpoint, RankError> {
        let address = |reason: String| RankError::Address { join: self.join.clone(), reason };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.join))
            .map_err(|error| address(error.to_string()))?
            .connect_timeout(self.rank_timeout)
            .http2_keep_alive_interval(self.rank_timeout / 2)
            .keep_alive_timeout(self.rank_timeout / 2)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .tcp_nodelay(true);
        match &self.tls {
            None => Ok(endpoint),
            Some(files) => {
                let tls = ClientTls::load(files)?.for_grpc();
                endpoint.tls_config(tls).map_err(|error| address(error.to_string()))
            }
        }
    }
}

/// Joins the group and obeys until rank 0 ends it. `shutdown` asks to end: rank 0 is waited for, up to the drain deadline.
/// Waits for a rank 0 that is not there yet; `progress` hears of loading.
pub async fn serve_rank(
    config: RankConfig,
    progress: impl FnMut(LoadProgress) + Send + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RankError> {
    if config.rank == 0 {
        return Err(RankError::Rank { rank: 0 });
    }
    match &config.gpu {
        None => {
            let cpu = Cpu::with(CpuConfig { weights: config.weights, ..CpuConfig::new(config.threads) });
            let kv = config.weights.kv();
            let fits = move |model: &_, place: &_| super::fits_machine(model, place, kv);
            serve_on(cpu, config, fits, progress, shutdown).await
        }
        #[cfg(feature = "cuda")]
        Some(gpu) => {
            let (gpu, device) = super::process::open(gpu, config.weights).map_err(WorkerError::from)?;
            let weights = config.weights;
            let fits = move |model: &_, place: &_| super::fits_gpu(model, place, weights, device);
            serve_on(gpu, config, fits, progress, shutdown).await
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(WorkerError::from(windlass_kernels::CudaError::NotBuilt).into()),
    }
}

/// The same on a backend, once `check` has found that this rank's part fits.
pub(super) async fn serve_on<B: ProcessRank>(
    backend: B,
    config: RankConfig,
    check: impl FnOnce(&ModelConfig, &Place) -> Result<(), WorkerError> + Send + 'static,
    progress: impl FnMut(LoadProgress) + Send + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RankError> {
    let deadline = config.drain_deadline;
    tokio::pin!(shutdown);
    let joined = tokio::select! {
        joined = join(backend, &config) => joined?,
        () = &mut shutdown => return Ok(()),
    };
    let life = take_part(config, joined, check, progress);
    tokio::pin!(life);
    tokio::select! {
        ended = &mut life => return ended,
        () = &mut shutdown => {}
    }
    tracing::info!(?deadline, "told to end: waiting for rank 0 to end the group");
    timeout(deadline, life).await.unwrap_or(Err(RankError::NotEnded { deadline }))
}

/// A rank with a place in its group.
struct Joined<B> {
    backend: B,
    outbox: mpsc::Sender<from_rank::Message>,
    incoming: Streaming<ToRank>,
    place: Place,
}

/// Joins as soon as rank 0 is there.
async fn join<B: ProcessRank>(backend: B, config: &RankConfig) -> Result<Joined<B>, RankError> {
    let endpoint = config.endpoint()?;
    let (model, arithmetic) = (config.model.clone(), backend.arithmetic());
    let fingerprint = spawn_blocking(move || fingerprint(&model, arithmetic));
    let fingerprint = fingerprint.await.map_err(|_| RankError::Stopped)??;
    let hello = RankHello { rank: config.rank as u32, fingerprint };
    let mut was_told = false;
    loop {
        let status = match say_hello(endpoint.connect_lazy(), hello.clone()).await {
            Ok((outbox, incoming, place)) => {
                let Place { ranks, shard, layers, .. } = &place;
                tracing::info!(rank = config.rank, join = config.join, shard, of = ranks, core_layers = ?layers, "joined the group");
                return Ok(Joined { backend, outbox, incoming, place });
            }
            Err(status) => status,
        };
        if let Some(reason) = never_to_be_trusted(&status) {
            return Err(RankError::Address { join: config.join.clone(), reason });
        }
        // A status with a source was made on this side, of a connection that broke.
        if status.code() != Code::Unavailable && status.source().is_none() {
            return Err(refused(&config.join, &status));
        }
        if !was_told {
            tracing::info!(reason = status.message(), "rank 0 cannot be reached yet: trying again");
            was_told = true;
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// What TLS has against it, which will not change.
fn never_to_be_trusted(status: &Status) -> Option<String> {
    Some(match TlsFault::of(status.source()?)? {
        TlsFault::PlainText => "rank 0 does not speak TLS: set no join_ca".into(),
        TlsFault::PeerCertificate(reason) => format!(
            "rank 0's certificate is not accepted ({reason}): join_ca must be its authority, and join_tls_name a name it carries if its address is none"
        ),
        TlsFault::OwnCertificate(alert) => format!(
            "rank 0 asks for another certificate ({alert}): set join_certificate and join_key to one of its tls_client_ca"
        ),
    })
}

/// Why this rank cannot join. Only a group's own refusals are told as they are.
fn refused(join: &str, status: &Status) -> RankError {
    match status.code() {
        Code::FailedPrecondition | Code::AlreadyExists | Code::DeadlineExceeded => {
            RankError::Refused { reason: status.message().to_owned() }
        }
        code => RankError::Address {
            join: join.to_owned(),
            reason: format!("what listens there takes no ranks ({code}): name the worker's tp_listen"),
        },
    }
}

type Welcomed = (mpsc::Sender<from_rank::Message>, Streaming<ToRank>, Place);

async fn say_hello(channel: Channel, hello: RankHello) -> Result<Welcomed, Status> {
    let mut client = RanksClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (outbox, messages) = mpsc::channel(QUEUE);
    let closed = |_| Status::internal("the way to rank 0 is closed");
    outbox.send(from_rank::Message::Hello(hello)).await.map_err(closed)?;
    let outgoing = stream::unfold(messages, |mut messages| async {
        let message = messages.recv().await;
        Some((FromRank { message: Some(message?) }, messages))
    });
    let mut incoming = client.join(outgoing).await?.into_inner();
    match incoming.message().await?.and_then(|first| first.message) {
        Some(Message::Welcome(welcome)) => {
            let place = Place::welcomed(&welcome).ok_or(Status::internal("rank 0 is of another build"))?;
            Ok((outbox, incoming, place))
        }
        _ => Err(Status::internal("rank 0 gives no welcome")),
    }
}

/// Loads the rank's part of the model, and obeys until the group is over.
async fn take_part<B: ProcessRank>(
    config: RankConfig,
    Joined { backend, outbox, incoming, place }: Joined<B>,
    check: impl FnOnce(&ModelConfig, &Place) -> Result<(), WorkerError> + Send + 'static,
    progress: impl FnMut(LoadProgress) + Send + 'static,
) -> Result<(), RankError> {
    let (sums_sender, sums) = mpsc::channel(QUEUE);
    let (spoke, loss) = (Spoke { to: outbox.clone(), sums }, Loss::default());
    let (orders_sender, orders) = mpsc::channel(QUEUE);
    let told = loss.clone();
    // Also while the model is loaded, since what its devices wait for may be lost. Once the group has ended nothing more comes either.
    let hearing = async {
        let heard = hear(incoming, orders_sender, sums_sender).await;
        told.tell();
        heard
    };
    let living = async {
        let loading = spawn_blocking(move || {
            check(&config.model.config()?, &place)?;
            load(&config, backend, &place, (spoke, loss), progress)
        });
        let member = loading.await.map_err(|_| RankError::Stopped)??;
        let ready = outbox.send(from_rank::Message::Ready(RankReady {})).await;
        ready.map_err(|_| RankError::Lost { reason: "rank 0 is lost".to_owned() })?;
        let obeying = spawn_blocking(move || member.obey(orders, &outbox));
        obeying.await.map_err(|_| RankError::Stopped)
    };
    tokio::pin!(hearing, living);
    // A rank that waited in vain for a sum or for rows has failed because the group is over, and not the other way round.
    tokio::select! {
        heard = &mut hearing => {
            let _: Result<(), RankError> = living.await;
            heard
        }
        lived = &mut living => match lived {
            Ok(()) | Err(RankError::Stopped) => hearing.await,
            error => error,
        }
    }
}

fn load<B: ProcessRank>(
    config: &RankConfig,
    backend: B,
    place: &Place,
    (spoke, loss): (Spoke, Loss),
    mut progress: impl FnMut(LoadProgress),
) -> Result<Member<B>, RankError> {
    let model = config.model.config()?;
    let (checkpoint, part) = (config.model.checkpoint()?, place.part(&model)?);
    let backend = backend.connected(place, spoke, &loss).map_err(WorkerError::from)?;
    let network = Network::load_part(backend, &checkpoint, &model, part, &mut progress)?;
    Ok(if place.speaks() {
        Member::Speaker(Device::in_ring(network, place.stages))
    } else {
        Member::Follower(Follower::new(Device::in_ring(network, place.stages)))
    })
}

/// What this process has of the model.
enum Member<B: Backend> {
    /// A rank whose outcomes another one has as well, but for its part of the head.
    Follower(Follower<B>),
    /// The first rank of a stage other than the first.
    Speaker(Device<B>),
}

impl<B: Backend> Member<B> {
    /// Obeys all orders until there are no more. Of what is answered rank 0 may have gone.
    fn obey(self, mut orders: mpsc::Receiver<Order>, outbox: &mpsc::Sender<from_rank::Message>) {
        match self {
            Self::Follower(mut follower) => {
                while let Some(order) = orders.blocking_recv() {
                    if let Some(part) = follower.obey(&order) {
                        let part = from_rank::Message::HeadPart(wire::head_part_message(&part));
                        let _ = outbox.blocking_send(part);
                    }
                }
            }
            Self::Speaker(mut device) => {
                while let Some(order) = next_order(&mut device, &mut orders, outbox) {
                    device.obey(&order);
                }
            }
        }
    }
}

/// The next order, if there will be one. Meanwhile answers as soon as it can; until then the next may be obeyed, so that the device need
/// not wait for this thread.
fn next_order<B: Backend>(
    device: &mut Device<B>,
    orders: &mut mpsc::Receiver<Order>,
    outbox: &mpsc::Sender<from_rank::Message>,
) -> Option<Order> {
    loop {
        if device.unread() == UNREAD || (device.unread() > 0 && device.is_done()) {
            let outcome = from_rank::Message::Outcome(wire::outcome_message(device.outcome()));
            let _ = outbox.blocking_send(outcome);
        } else if device.unread() == 0 && !device.is_computing() {
            return orders.blocking_recv();
        } else {
            match orders.try_recv() {
                Ok(order) => return Some(order),
                Err(TryRecvError::Empty) => thread::yield_now(),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }
}

/// Takes in what rank 0 says until it ends the group or the group is lost.
async fn hear(
    mut incoming: Streaming<ToRank>,
    orders: mpsc::Sender<Order>,
    sums: mpsc::Sender<RankValues>,
) -> Result<(), RankError> {
    let lost = |reason: String| RankError::Lost { reason };
    loop {
        let message = match incoming.message().await {
            Ok(Some(message)) => message.message,
            Ok(None) => return Ok(()),
            Err(status) if status.code() == Code::Aborted => return Err(lost(status.message().to_owned())),
            Err(status) => return Err(lost(format!("rank 0 is lost: {}", status.message()))),
        };
        let taken = match message {
            Some(Message::Order(message)) => {
                let order = wire::order(&message).map_err(|error| lost(error.to_string()))?;
                orders.send(order).await.is_ok()
            }
            Some(Message::Sum(sum)) => sums.send(sum).await.is_ok(),
            Some(Message::Welcome(_)) | None => {
                return Err(lost("rank 0 says what is not understood".to_owned()));
            }
        };
        if !taken {
            return Err(RankError::Stopped);
        }
    }
}

/// The way to rank 0, which adds up.
struct Spoke {
    to: mpsc::Sender<from_rank::Message>,
    sums: mpsc::Receiver<RankValues>,
}

impl Exchange for Spoke {
    fn all_reduce(&mut self, values: &mut [f32]) {
        let summand = from_rank::Message::Summand(wire::values_message(values));
        let sent = self.to.blocking_send(summand).is_ok();
        let sum = sent.then(|| self.sums.blocking_recv()).flatten();
        let sum = sum.unwrap_or_else(|| panic!("rank 0 is lost, and with it the group"));
        let sum = wire::values(&sum).unwrap_or_else(|error| panic!("rank 0: {error}"));
        assert_eq!(sum.len(), values.len(), "ranks differ in what they add up");
        values.iter_mut().zip(sum).for_each(|(value, sum)| *value = sum);
    }
}
