//! The `windlass.v1.Ranks` service of rank 0: who has joined, and what became of the group.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use windlass_kernels::group::Loss;
use windlass_model::ranks::{HeadPart, Outcome};
use windlass_proto::v1::from_rank::Message;
use windlass_proto::v1::ranks_server::{Ranks, RanksServer};
use windlass_proto::v1::{FromRank, RankHello, RankValues, ToRank, to_rank};
use windlass_transport::{Incoming, ServerTls};

use super::place::Place;
use super::{MAX_MESSAGE_BYTES, QUEUE, WINDOW_BYTES, wire};
use crate::error::WorkerError;

/// How long whoever connects may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How long ranks may take to leave a group that has ended.
const GRACE: Duration = Duration::from_secs(1);
/// More than there are ranks.
const MAX_CONNECTIONS: usize = 1024;

/// Rank 0's end of a group of processes.
#[derive(Debug)]
pub(crate) struct Host {
    group: Arc<Group>,
    server: JoinHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Group {
    /// By rank.
    places: Vec<Place>,
    rank_timeout: Duration,
    fingerprint: String,
    /// By rank: whether it has been here.
    taken: Mutex<Vec<bool>>,
    joined: mpsc::Sender<Joined>,
    fate: watch::Sender<Option<Fate>>,
    connected: watch::Sender<usize>,
}

/// What became of the group. The first word is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Rank 0 needs it no more.
    Ended,
    /// A rank is lost, and why.
    Lost(String),
}

/// A rank that has joined.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) rank: usize,
    pub(super) to: mpsc::Sender<ToRank>,
    pub(super) summands: mpsc::Receiver<RankValues>,
    pub(super) parts: mpsc::Receiver<HeadPart>,
    pub(super) outcomes: mpsc::Receiver<Outcome>,
    pub(super) ready: oneshot::Receiver<()>,
}

/// Where what a rank says goes.
struct Outlets {
    ready: Option<oneshot::Sender<()>>,
    summands: mpsc::Sender<RankValues>,
    parts: mpsc::Sender<HeadPart>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Host {
    /// Lets ranks with the same `fingerprint` join from now on, and waits until all have: returns them by rank. `places` are those
    /// of all ranks, of rank 0 too. Must be called inside a tokio runtime.
    pub(super) async fn gather(
        listener: TcpListener,
        tls: Option<ServerTls>,
        places: Vec<Place>,
        fingerprint: String,
        rank_timeout: Duration,
    ) -> Result<(Self, Vec<Joined>), WorkerError> {
        let ranks = places.len();
        let (joined, mut arrivals) = mpsc::channel(ranks);
        let group = Arc::new(Group {
            places,
            rank_timeout,
            fingerprint,
            taken: Mutex::new(vec![false; ranks]),
            joined,
            fate: watch::Sender::new(None),
            connected: watch::Sender::new(0),
        });
        let service = RanksServer::new(Service(Arc::clone(&group)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let serving = Server::builder()
            .http2_keepalive_interval(Some(rank_timeout / 2))
            .http2_keepalive_timeout(Some(rank_timeout / 2))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .add_service(service)
            .serve_with_incoming(Incoming::new(listener, tls, MAX_CONNECTIONS));
        let server = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the ranks' server failed");
            }
        });
        let host = Self { group, server };
        let mut members = Vec::new();
        while members.len() + 1 < ranks {
            tokio::select! {
                member = arrivals.recv() => members.extend(member),
                reason = host.lost() => return Err(WorkerError::RankLost { reason }),
            }
        }
        members.sort_by_key(|member: &Joined| member.rank);
        Ok((host, members))
    }

    /// What all connections share.
    pub(super) fn group(&self) -> Arc<Group> {
        Arc::clone(&self.group)
    }

    /// Waits until all members have loaded their part of the model.
    pub(super) async fn ready(&self, ready: Vec<oneshot::Receiver<()>>) -> Result<(), WorkerError> {
        let all = futures::future::try_join_all(ready);
        tokio::select! {
            ready = all => match ready {
                Ok(_) => Ok(()),
                Err(_) => Err(WorkerError::RankLost { reason: self.lost().await }),
            },
            reason = self.lost() => Err(WorkerError::RankLost { reason }),
        }
    }

    /// Returns, with the reason, if a rank is lost; else never.
    pub(crate) async fn lost(&self) -> String {
        let mut fate = self.group.fate.subscribe();
        match fate.wait_for(Option::is_some).await.map(|fate| fate.clone()) {
            Ok(Some(Fate::Lost(reason))) => reason,
            _ => std::future::pending().await,
        }
    }

    /// Is told when a rank is lost.
    pub(super) fn loss(&self) -> Loss {
        let (loss, mut fate) = (Loss::default(), self.group.fate.subscribe());
        let teller = loss.clone();
        tokio::spawn(async move {
            // A group that has ended needs it no more.
            if fate.wait_for(|fate| matches!(fate, Some(Fate::Lost(_)))).await.is_ok() {
                teller.tell();
            }
        });
        loss
    }

    /// Waits until the members of a group that is over have left, as long as that may take. An engine that still has to end, in order or
    /// because it has failed, is not waited for as long.
    pub(crate) async fn end(self, has_failed: bool) {
        let mut connected = self.group.connected.subscribe();
        if timeout(GRACE, connected.wait_for(|connected| *connected == 0)).await.is_ok() {
            return;
        }
        if has_failed {
            self.group.lose(0, "it failed");
        } else {
            self.group.end();
        }
        let _ = timeout(GRACE, connected.wait_for(|connected| *connected == 0)).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Group {
    /// The group is over, unless it was before.
    fn settle(&self, fate: Fate) {
        self.fate.send_if_modified(|settled| {
            let is_first = settled.is_none();
            settled.get_or_insert(fate);
            is_first
        });
    }

    /// A rank has no further part in the group.
    pub(super) fn lose(&self, rank: usize, reason: &str) {
        self.settle(Fate::Lost(format!("rank {rank} is lost: {reason}")));
    }

    /// Rank 0 needs the group no more.
    pub(super) fn end(&self) {
        self.settle(Fate::Ended);
    }

    /// What to say of a rank that is not there.
    pub(super) fn reason(&self, rank: usize) -> String {
        match &*self.fate.borrow() {
            Some(Fate::Lost(reason)) => reason.clone(),
            _ => format!("rank {rank} is lost"),
        }
    }

    /// Gives whoever says hello its place.
    fn admit(&self, hello: &RankHello) -> Result<usize, Status> {
        let (rank, ranks) = (hello.rank as usize, self.places.len());
        if rank == 0 || rank >= ranks {
            let most = ranks - 1;
            return Err(Status::failed_precondition(format!("rank is {rank}: use 1 to {most}")));
        }
        if hello.fingerprint != self.fingerprint {
            return Err(Status::failed_precondition(
                "its model, weights, arithmetic or build of windlass differ from those of rank 0: use the same model \
                 folder, the same --weights, machines of one kind and one build",
            ));
        }
        if let Some(Fate::Lost(reason)) = &*self.fate.borrow() {
            let message = format!("{reason}, and with it the group: start rank 0 anew");
            return Err(Status::failed_precondition(message));
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut taken[rank], true) {
            return Err(Status::already_exists(format!("rank {rank} is taken: give each rank its own")));
        }
        Ok(rank)
    }

    /// What is sent to a rank: what comes out of `outbox` until the group is over, and how it ended if not in order.
    fn outgoing(
        self: Arc<Self>,
        outbox: mpsc::Receiver<ToRank>,
    ) -> BoxStream<'static, Result<ToRank, Status>> {
        let fate = self.fate.subscribe();
        let messages = stream::unfold((outbox, fate), |(mut outbox, mut fate)| async {
            let message = tokio::select! {
                biased;
                message = outbox.recv() => message?,
                _ = fate.wait_for(Option::is_some) => return None,
            };
            Some((Ok(message), (outbox, fate)))
        });
        let end = stream::once(async move {
            match &*self.fate.borrow() {
                Some(Fate::Lost(reason)) => Some(Err(Status::aborted(reason.clone()))),
                _ => None,
            }
        });
        messages.chain(end.filter_map(std::future::ready)).boxed()
    }

    /// Takes in what a rank says until it is lost or leaves, or another is lost.
    async fn listen(self: Arc<Self>, rank: usize, mut incoming: Streaming<FromRank>, mut outlets: Outlets) {
        self.connected.send_modify(|connected| *connected += 1);
        let mut fate = self.fate.subscribe();
        let is_lost = |fate: &Option<Fate>| matches!(fate, Some(Fate::Lost(_)));
        tokio::select! {
            reason = outlets.hear(&mut incoming, self.rank_timeout) => self.lose(rank, &reason),
            _ = fate.wait_for(is_lost) => {}
        }
        // Now that there is a reason, whoever waits for something of this rank finds the outlets closed.
        drop(outlets);
        while let Ok(Some(_)) = incoming.message().await {}
        self.connected.send_modify(|connected| *connected -= 1);
    }
}

impl Outlets {
    /// Takes in what a rank says until it is lost or leaves; returns why.
    async fn hear(&mut self, incoming: &mut Streaming<FromRank>, rank_timeout: Duration) -> String {
        loop {
            match incoming.message().await {
                Ok(Some(FromRank { message: Some(message) })) => {
                    if let Err(reason) = self.take(message).await {
                        return reason;
                    }
                }
                Ok(Some(FromRank { message: None })) => return "it says what is not understood".to_owned(),
                Ok(None) => return format!("it left, or was silent for {} ms", rank_timeout.as_millis()),
                Err(status) => return status.message().to_owned(),
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), String> {
        // Whoever is not there any more needs nothing.
        match message {
            Message::Hello(_) => return Err("it said hello twice".to_owned()),
            Message::Ready(_) => drop(self.ready.take().map(|ready| ready.send(()))),
            Message::Summand(values) => drop(self.summands.send(values).await),
            Message::HeadPart(part) => {
                let part = wire::head_part(&part).map_err(|error| error.to_string())?;
                drop(self.parts.send(part).await);
            }
            Message::Outcome(outcome) => {
                let outcome = wire::outcome(&outcome).map_err(|error| error.to_string())?;
                drop(self.outcomes.send(outcome).await);
            }
        }
        Ok(())
    }
}

struct Service(Arc<Group>);

#[tonic::async_trait]
impl Ranks for Service {
    type JoinStream = BoxStream<'static, Result<ToRank, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<FromRank>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let group = &self.0;
        let mut incoming = request.into_inner();
        let first = timeout(HELLO_LIMIT, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("a rank says hello first"));
        };
        let rank = group.admit(&hello)?;
        tracing::info!(rank, ranks = group.places.len(), "a rank has joined");
        let (to, outbox) = mpsc::channel(QUEUE);
        let (ready_sender, ready) = oneshot::channel();
        let (summands_sender, summands) = mpsc::channel(QUEUE);
        let (parts_sender, parts) = mpsc::channel(QUEUE);
        let (outcomes_sender, outcomes) = mpsc::channel(QUEUE);
        let welcome = ToRank { message: Some(to_rank::Message::Welcome(group.places[rank].welcome())) };
        let outlets = Outlets {
            ready: Some(ready_sender),
            summands: summands_sender,
            parts: parts_sender,
            outcomes: outcomes_sender,
        };
        let gone = |_| Status::failed_precondition("the group is over");
        to.send(welcome).await.map_err(|_| Status::internal("the way to the rank is closed"))?;
        group.joined.send(Joined { rank, to, summands, parts, outcomes, ready }).await.map_err(gone)?;
        tokio::spawn(Arc::clone(group).listen(rank, incoming, outlets));
        Ok(Response::new(Arc::clone(group).outgoing(outbox)))
    }
}
