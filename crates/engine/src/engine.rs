//! The engine: plan, run, apply, tick after tick.

use std::collections::VecDeque;

use windlass_kernels::{Backend, KvRow, KvRows, KvTable, LatentChange};
use windlass_model::exit::log_softmax;
use windlass_model::latent::initial_latent;
use windlass_model::{Capacity, Launch, Network, Workspace};

use crate::config::{EngineConfig, EngineConfigError};
use crate::event::{Event, FinishReason, TokenOutput};
use crate::exit::Verdict;
use crate::lane::{Lane, Span, Stage};
use crate::load::Load;
use crate::pool::Pool;
use crate::request::{InvalidRequest, Request, RequestId, RequestLimits};
use crate::scheduler::Scheduler;

/// Why a request was not accepted. Nothing of it stays behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It can never be served.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// It could be served later.
    #[error("the queue is full: {limit} requests wait already, try again later")]
    QueueFull {
        /// The configured limit.
        limit: usize,
    },
}

/// Serves many sequences on one network.
pub struct Engine<B: Backend> {
    network: Network<B>,
    workspace: Workspace<B>,
    config: EngineConfig,
    scheduler: Scheduler,
    waiting: VecDeque<(RequestId, Request)>,
    /// In order of admission.
    lanes: Vec<Lane>,
    /// Block tables, `[max_lanes]`.
    tables: Vec<KvTable>,
    blocks: Pool,
    latents: Pool,
    counters: Load,
}

/// Rows on their way through the coda.
#[derive(Debug, Clone, Copy)]
struct Departure {
    span: Span,
    /// Whether the span's last row needs logits; other rows only leave coda K/V behind.
    wants_logits: bool,
}

impl<B: Backend> Engine<B> {
    /// An engine with all its memory.
    pub fn new(network: Network<B>, config: EngineConfig) -> Result<Self, EngineConfigError> {
        config.validate(network.config())?;
        let capacity @ Capacity { latents, blocks, .. } = config.capacity(network.config());
        let workspace = network.workspace(capacity);
        Ok(Self {
            scheduler: Scheduler::new(&config),
            waiting: VecDeque::new(),
            lanes: Vec::new(),
            tables: vec![KvTable::default(); config.max_lanes],
            blocks: Pool::new(blocks),
            latents: Pool::new(latents),
            counters: Load::default(),
            network,
            workspace,
            config,
        })
    }

    /// What requests are checked against.
    pub fn limits(&self) -> RequestLimits<'_> {
        RequestLimits {
            model: self.network.config(),
            max_depth: self.config.max_depth,
            max_prompt: self.config.prefill_positions,
        }
    }

    /// Accepts a request, or says why not. Its events come from later ticks under `id`, which must not be in use.
    pub fn submit(&mut self, id: RequestId, request: Request) -> Result<(), SubmitError> {
        request.validate(self.limits())?;
        let (needed, total) = (request.kv_blocks(), self.blocks.total());
        if needed > total {
            let reason = format!(
                "prompt, max_tokens and depth need {needed} K/V blocks and there are {total}: ask for fewer tokens, \
                 a smaller depth or kv ring"
            );
            return Err(InvalidRequest::new("max_tokens", reason).into());
        }
        if self.waiting.len() >= self.config.max_waiting {
            return Err(SubmitError::QueueFull { limit: self.config.max_waiting });
        }
        self.waiting.push_back((id, request));
        Ok(())
    }

    /// Forgets a request and frees all it holds. One that is unknown or over is left alone.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        if let Some(index) = self.lanes.iter().position(|lane| lane.id == id) {
            self.close(index);
        }
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.waiting.is_empty()
    }

    /// Advances every row in flight by one core iteration and returns what came of it.
    pub fn tick(&mut self) -> Vec<Event> {
        self.admit();
        let plan = self.scheduler.plan(&self.lanes);
        let changes = self.run_core(&plan);
        let departures = self.advance(&plan, &changes);
        let logits = self.run_coda(&departures);
        let events = self.apply(&departures, &logits);
        if self.lanes.is_empty() {
            assert!(
                self.blocks.is_whole() && self.latents.is_whole(),
                "memory leaked from lanes that are gone"
            );
        }
        events
    }

    /// How busy the engine is.
    pub fn load(&self) -> Load {
        let waiting = self.waiting.iter().map(|(_, request)| request.core_iterations_limit());
        let running = self.lanes.iter().map(Lane::owed_core_iterations);
        Load {
            running: self.lanes.len(),
            waiting: self.waiting.len(),
            rows: self.latents.used(),
            blocks_used: self.blocks.used(),
            blocks_total: self.blocks.total(),
            queued_core_iterations: waiting.chain(running).sum(),
            ..self.counters.clone()
        }
    }

    /// Opens lanes in order of arrival, as long as the next one fits.
    fn admit(&mut self) {
        let Self { lanes, blocks, latents, waiting, .. } = self;
        while lanes.len() < self.config.max_lanes
            && let Some((id, request)) =
                waiting.pop_front_if(|(_, request)| Lane::fits(request, blocks, latents))
        {
            let is_free = |table: &usize| lanes.iter().all(|lane| lane.table != *table);
            let table = (0..).find(is_free).expect("a table per lane");
            lanes.push(Lane::open(id, request, table, blocks, latents));
        }
    }

    /// Prelude for the rows that enter, then one core iteration for all.
    fn run_core(&mut self, plan: &[Span]) -> Vec<LatentChange> {
        if plan.is_empty() {
            return Vec::new();
        }
        for span in plan {
            let lane = &mut self.lanes[span.lane];
            lane.prepare(*span, &mut self.tables[lane.table], &mut self.blocks);
        }
        let Self { network, workspace, lanes, tables, counters, .. } = self;
        let entering: Vec<Span> = plan.iter().copied().filter(|span| lanes[span.lane].depth() == 0).collect();
        if !entering.is_empty() {
            let hidden = network.config().hidden;
            let (mut tokens, mut initial) = (Vec::new(), Vec::new());
            for span in &entering {
                let Lane { tokens: all, request, .. } = &lanes[span.lane];
                tokens.extend_from_slice(&all[span.positions()]);
                for position in span.positions() {
                    let (seed, scale) = (request.latent_seed, request.init_scale);
                    initial.extend(initial_latent(seed, position as u32, scale, hidden));
                }
            }
            counters.prelude_rows_total += tokens.len() as u64;
            let rows = LaunchRows::new(lanes, &entering, |_| 0);
            network.prelude(workspace, &tokens, &initial, rows.launch(tables));
        }
        let rows = LaunchRows::new(lanes, plan, Lane::core_slot);
        counters.count_core_rows(rows.latents.len());
        let mut changes = Vec::new();
        network.core(workspace, rows.launch(tables), &mut changes);
        changes
    }

    /// Counts the iteration and decides who goes through the coda now.
    fn advance(&mut self, plan: &[Span], changes: &[LatentChange]) -> Vec<Departure> {
        let mut departures = Vec::new();
        let mut changes = changes.iter();
        for &span in plan {
            let lane = &mut self.lanes[span.lane];
            let (prompt, last_depth) = (lane.request.prompt.len(), lane.request.depth.max());
            let change = changes.by_ref().take(span.count).last().expect("a change per row");
            match &mut lane.stage {
                Stage::Prefill { depth, next } => {
                    *next += span.count;
                    if *depth + 1 == last_depth {
                        departures.push(Departure { span, wants_logits: *next == prompt });
                    } else if *next == prompt {
                        (*depth, *next) = (*depth + 1, 0);
                    }
                }
                Stage::Decode { depth, exit, leaving } => {
                    *depth += 1;
                    match exit.after_core(*depth, change) {
                        Verdict::Iterate => {}
                        Verdict::Probe => departures.push(Departure { span, wants_logits: true }),
                        Verdict::Leave => *leaving = true,
                    }
                }
            }
        }
        let leaving = self.scheduler.leaving(&self.lanes);
        departures.extend(leaving.into_iter().map(|span| Departure { span, wants_logits: true }));
        departures
    }

    /// Coda for the departing rows. Returns logits, `[rows that want them, vocabulary]`.
    fn run_coda(&mut self, departures: &[Departure]) -> Vec<f32> {
        if departures.is_empty() {
            return Vec::new();
        }
        let spans: Vec<Span> = departures.iter().map(|departure| departure.span).collect();
        let mut wanted = Vec::new();
        let mut rows = 0;
        for departure in departures {
            rows += departure.span.count as u32;
            wanted.extend(departure.wants_logits.then_some(rows - 1));
        }
        self.counters.coda_rows_total += u64::from(rows);
        let rows = LaunchRows::new(&self.lanes, &spans, |_| 0);
        let mut logits = Vec::new();
        self.network.coda(&mut self.workspace, rows.launch(&self.tables), &wanted, &mut logits);
        logits
    }

    /// Settles probes, draws tokens, ends what is done.
    fn apply(&mut self, departures: &[Departure], logits: &[f32]) -> Vec<Event> {
        let vocabulary = self.network.config().vocabulary;
        let mut events = Vec::new();
        let mut finished = Vec::new();
        let wanting = departures.iter().filter(|departure| departure.wants_logits);
        for (departure, logits) in wanting.zip(logits.chunks_exact(vocabulary)) {
            let index = departure.span.lane;
            if self.lanes[index].settle_probe(logits) {
                let token = self.emit(index, logits);
                let id = self.lanes[index].id;
                let reason = self.finish_reason(index, &token);
                events.push(Event::Token(id, token));
                if let Some(reason) = reason {
                    events.push(Event::Finished(id, reason, self.lanes[index].usage()));
                    finished.push(id);
                }
            }
        }
        for id in finished {
            self.cancel(id);
        }
        events
    }

    /// Draws the lane's next token.
    fn emit(&mut self, index: usize, logits: &[f32]) -> TokenOutput {
        let Self { network, lanes, latents, .. } = self;
        let lane = &mut lanes[index];
        let token = lane.sampler.sample(logits, lane.tokens.len() as u32);
        let (depth, exit_values) = lane.exit_record();
        let mut output = TokenOutput { token, depth, exit_values, ..TokenOutput::default() };
        if let Some(count) = lane.request.logprobs {
            (output.logprob, output.top_logprobs) = logprobs(logits, token, count);
        }
        output.logits = lane.request.report_logits.then(|| logits.to_vec());
        output.is_stop = lane.request.stop_tokens.contains(&token)
            || (!lane.request.ignore_model_stops && network.config().stop_tokens.contains(&token));
        lane.push(token, depth, logits.len(), latents);
        output
    }

    fn finish_reason(&self, index: usize, token: &TokenOutput) -> Option<FinishReason> {
        let lane = &self.lanes[index];
        if token.is_stop {
            return Some(FinishReason::Stop);
        }
        (lane.generated() == lane.request.max_tokens).then_some(FinishReason::Length)
    }

    fn close(&mut self, index: usize) {
        let mut lane = self.lanes.remove(index);
        lane.close(&mut self.tables[lane.table], &mut self.blocks, &mut self.latents);
    }
}

/// The rows of some spans, as a network wants them.
struct LaunchRows {
    latents: Vec<u32>,
    kv: Vec<KvRow>,
}

impl LaunchRows {
    fn new(lanes: &[Lane], spans: &[Span], slot: impl Fn(&Lane) -> u32) -> Self {
        let (mut latents, mut kv) = (Vec::new(), Vec::new());
        for span in spans {
            let lane = &lanes[span.lane];
            let slot = slot(lane);
            for position in span.positions() {
                latents.push(lane.latent(position));
                kv.push(KvRow { table: lane.table as u32, position: position as u32, slot });
            }
        }
        Self { latents, kv }
    }

    fn launch<'a>(&'a self, tables: &'a [KvTable]) -> Launch<'a> {
        Launch { latents: &self.latents, kv: KvRows { rows: &self.kv, tables } }
    }
}

/// The log-probability of `token` and the `count` most likely tokens with theirs.
fn logprobs(logits: &[f32], token: u32, count: usize) -> (Option<f32>, Vec<(u32, f32)>) {
    let all = log_softmax(logits);
    let mut order: Vec<u32> = (0..all.len() as u32).collect();
    let by_likelihood = |a: &u32, b: &u32| all[*b as usize].total_cmp(&all[*a as usize]).then(a.cmp(b));
    if count > 0 && count < order.len() {
        order.select_nth_unstable_by(count - 1, by_likelihood);
    }
    order.truncate(count);
    order.sort_unstable_by(by_likelihood);
    let top = order.into_iter().map(|token| (token, all[token as usize] as f32)).collect();
    (Some(all[token as usize] as f32), top)
}
