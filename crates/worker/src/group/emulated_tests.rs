//! Groups of processes whose ranks are GPUs: emulated ones, in one process, over connections as between several.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use windlass_engine::{Engine, Event, MonotonicClock, Request, RequestId};
use windlass_kernels::cuda::{Cuda, Emulator, EmulatorLink};
use windlass_kernels::group::{Exchange, Loss, Seat, seats};
use windlass_kernels::{CudaError, WeightFormat};
use windlass_model::{DepthPolicy, KvPolicy, ModelFolder, Runner, Split, split};

use super::member::serve_on;
use super::{Host, Place, ProcessRank, RankConfig, RankError, lead_on};
use crate::config::WorkerConfig;

/// What ids stand for.
#[derive(Default)]
struct Meetings {
    seats: HashMap<Vec<u8>, Vec<Option<Seat>>>,
    links: HashMap<Vec<u8>, Arc<EmulatorLink>>,
}

static MEETINGS: LazyLock<Mutex<Meetings>> = LazyLock::new(Mutex::default);

impl ProcessRank for Cuda<Emulator> {
    const BY_MESSAGES: bool = false;

    fn new_id() -> Result<Vec<u8>, CudaError> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Ok(IDS.fetch_add(1, Ordering::Relaxed).to_le_bytes().to_vec())
    }

    fn in_group(self, place: &Place, _: impl Exchange + 'static, _: &Loss) -> Result<Self, CudaError> {
        let mut meetings = MEETINGS.lock().unwrap();
        let new = || seats(place.ranks).into_iter().map(Some).collect();
        let seats = meetings.seats.entry(place.group_id.clone()).or_insert_with(new);
        self.device().join(seats[place.shard].take().unwrap());
        Ok(self.anew())
    }

    fn linked(self, place: &Place, _: &Loss) -> Result<Self, CudaError> {
        let mut meetings = MEETINGS.lock().unwrap();
        let [before, next] = place
            .link_ids
            .each_ref()
            .map(|id| Arc::clone(meetings.links.entry(id.clone()).or_insert_with(EmulatorLink::new)));
        self.device().link(before, next);
        Ok(self)
    }
}

fn device() -> Cuda<Emulator> {
    Cuda::new(Emulator::get(), WeightFormat::F32).unwrap()
}

fn config((stages, tp): (usize, usize)) -> WorkerConfig {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/huginn-tiny"));
    let mut config = WorkerConfig::new(ModelFolder::open(folder).unwrap()).unwrap();
    (config.stages, config.tp, config.threads) = (stages, tp, 1);
    config.engine.kv_bytes = 4 << 20;
    (config.engine.max_lanes, config.engine.max_rows) = (4, 16);
    config
}

/// A group, of which rank 0 is led by this.
struct Group {
    runner: Box<dyn Runner>,
    host: Host,
    others: Vec<JoinHandle<Result<(), RankError>>>,
    /// Kept, since a rank whose sender is gone is told to end.
    shutdowns: Vec<oneshot::Sender<()>>,
}

impl Group {
    async fn start(config: &WorkerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mut others, mut shutdowns) = (Vec::new(), Vec::new());
        for rank in 1..config.stages * config.tp {
            let rank = RankConfig::new(address.clone(), rank, config.model.clone());
            let (shutdown, told) = oneshot::channel();
            let told = async move { drop(told.await) };
            others.push(tokio::spawn(serve_on(device(), rank, |_, _| Ok(()), |_| {}, told)));
            shutdowns.push(shutdown);
        }
        let config = config.clone();
        let lead = move || lead_on(device(), &config, (listener, None), &mut |_| {}, |_, _| Ok(()));
        let (runner, host) = spawn_blocking(lead).await.unwrap().unwrap();
        Self { runner, host, others, shutdowns }
    }
}

const PROMPTS: [&[u32]; 4] = [&[5], &[7, 8, 9], &[1, 2], &[3, 4, 5, 6]];

/// An engine that has been asked for some answers.
fn engine(runner: Box<dyn Runner>, config: &WorkerConfig) -> Engine<Box<dyn Runner>> {
    let clock = Box::new(MonotonicClock::start());
    let mut engine = Engine::new(runner, config.engine.clone(), clock).unwrap();
    for (id, prompt) in (0..).zip(PROMPTS) {
        let depth = DepthPolicy::Fixed(1 + id as u32);
        let request = Request::greedy(prompt.to_vec(), 3, depth, KvPolicy::Full);
        let request = Request { ignore_model_stops: true, report_logits: id % 2 == 0, ..request };
        engine.submit(RequestId(id), request).unwrap();
    }
    engine
}

/// What it answers: of each request its tokens with their depths and logits.
fn answers(runner: Box<dyn Runner>, config: &WorkerConfig) -> Vec<Vec<(u32, u32, Vec<u32>)>> {
    let mut engine = engine(runner, config);
    let (mut answers, mut events) = (vec![Vec::new(); PROMPTS.len()], Vec::new());
    while !engine.is_idle() {
        engine.tick(&mut events);
        for event in events.drain(..) {
            if let Event::Token(RequestId(id), token) = event {
                let bits = token.logits.iter().flatten().map(|logit| logit.to_bits()).collect();
                answers[id as usize].push((token.token, token.depth, bits));
            }
        }
    }
    answers
}

/// The same in one process.
fn answers_of_one_process(config: &WorkerConfig) -> Vec<Vec<(u32, u32, Vec<u32>)>> {
    let model = config.model.config().unwrap();
    let group = || {
        let devices = Emulator::group(config.tp).into_iter();
        devices.map(|device| Cuda::new(device, WeightFormat::F32).unwrap()).collect()
    };
    let split = Split::new(vec![group()], &model).unwrap();
    let networks = split.load(&config.model.checkpoint().unwrap(), &model, &mut |_| {}).unwrap();
    answers(split::runner(networks), config)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_several_processes_hand_each_other_rows_and_sums() {
    for split in [(2, 1), (2, 2)] {
        let config = config(split);
        let Group { runner, host, others, shutdowns } = Group::start(&config).await;
        let of_group = config.clone();
        let got = spawn_blocking(move || answers(runner, &of_group)).await.unwrap();
        host.end(false).await;
        for rank in others {
            assert!(rank.await.unwrap().is_ok());
        }
        drop(shutdowns);
        let expected = spawn_blocking(move || answers_of_one_process(&config)).await.unwrap();
        assert!(expected.iter().all(|answer| answer.len() == 3));
        assert_eq!(got, expected, "{split:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_ends_in_order_while_launches_are_under_way() {
    for (split, ticks) in [((2, 1), 1), ((2, 1), 3), ((2, 2), 2)] {
        let config = config(split);
        let Group { runner, host, others, shutdowns } = Group::start(&config).await;
        let of_group = config.clone();
        let some_ticks = move || {
            let mut engine = engine(runner, &of_group);
            (0..ticks).for_each(|_| engine.tick(&mut Vec::new()));
            assert!(!engine.is_idle());
        };
        spawn_blocking(some_ticks).await.unwrap();
        host.end(false).await;
        for rank in others {
            let ended = rank.await.unwrap();
            assert!(ended.is_ok(), "{split:?} after {ticks} ticks: {ended:?}");
        }
        drop(shutdowns);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_lost_takes_those_with_it_that_wait_for_its_device() {
    let config = config((2, 1));
    let Group { runner, host, mut others, shutdowns } = Group::start(&config).await;
    others.remove(0).abort();
    let failed = spawn_blocking(move || answers(runner, &config)).await;
    assert!(failed.is_err_and(|failed| failed.is_panic()));
    assert!(host.lost().await.contains("rank 1 is lost"));
    drop(shutdowns);
}
