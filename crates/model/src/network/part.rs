//! A network cut into parts, each on a device of its own: which layer goes where, and what a part does of an iteration.

use std::ops::Range;

use windlass_kernels::{Backend, Rows, Stop, Weight};

use super::layer::{Finish, Layer};
use super::{Entrance, Exit, Launch, Network, Workspace, ends, rotary_table, upload};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::ranks::{Source, Target};
use crate::reports::Reports;
use crate::shard::Shard;
use crate::weights::{LayerWeights, LoadProgress, Weights};

/// Devices with the core layers that each gets, in order, or a rank's shard of them.
pub(super) struct Parts<B: Backend> {
    devices: Vec<(B, Range<usize>)>,
    shard: Shard,
}

impl<B: Backend> Parts<B> {
    /// One part alone, on one device.
    pub(super) fn one(backend: B, layers: Range<usize>, shard: Shard) -> Self {
        Self { devices: vec![(backend, layers)], shard }
    }

    /// # Panics
    /// If a part has no core layer, or they are not all of them in order.
    pub(super) fn new(devices: Vec<(B, Range<usize>)>, config: &ModelConfig, shard: Shard) -> Self {
        let mut next = 0;
        for (_, core) in &devices {
            assert!(core.start == next && !core.is_empty(), "{core:?} does not go on at core layer {next}");
            next = core.end;
        }
        assert_eq!(next, config.core_layers, "the parts have not all core layers");
        Self { devices, shard }
    }

    /// The device of one of the layers of prelude, core and coda, counted in this order.
    fn device(&self, config: &ModelConfig, layer: usize) -> Option<&B> {
        // Prelude layers go with the first of the core, coda layers with the last.
        let core = layer.saturating_sub(config.prelude_layers).min(config.core_layers - 1);
        self.devices.iter().find(|(_, layers)| layers.contains(&core)).map(|(backend, _)| backend)
    }

    /// Whether a layer is here.
    pub(super) fn has(&self, config: &ModelConfig, layer: usize) -> bool {
        self.device(config, layer).is_some()
    }

    /// Packs the layers that are here, which it is given in order, each onto its device.
    pub(super) fn packer(&self, config: &ModelConfig) -> impl FnMut(LayerWeights<'_>) -> Layer<B> {
        let layers = config.prelude_layers + config.core_layers + config.coda_layers;
        let mut devices = (0..layers).filter_map(|layer| self.device(config, layer));
        move |weights| {
            let backend = devices.next().expect("no more layers than are here");
            Layer::new(backend, weights, config, &self.shard)
        }
    }

    /// Loads what is here.
    pub(super) fn load(
        self,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<Network<B>>, LoadError> {
        let wants = |layer| self.has(config, layer);
        let weights = Weights::load_with(checkpoint, config, progress, wants, self.packer(config))?;
        let networks = self.assemble(config, weights);
        checkpoint.forget("");
        Ok(networks)
    }

    /// The networks of all parts.
    pub(super) fn assemble(self, config: &ModelConfig, weights: Weights<'_, Layer<B>>) -> Vec<Network<B>> {
        let Weights { wte, head, adapter, ln_f, prelude, core, coda } = weights;
        let shard = self.shard;
        let head = head.unwrap_or_else(|| wte.clone()).rows_of_each(1, &shard.vocabulary);
        let (mut prelude, mut core, mut coda) = (Some(prelude), core.into_iter(), Some(coda));
        let mut network = |(backend, layers): (B, Range<usize>)| {
            let (is_first, is_last) = ends(config, &layers);
            let entrance = prelude.take_if(|_| is_first).map(|prelude| Entrance {
                embedding: upload(&backend, &wte),
                prelude,
                adapter: backend.matrix(&adapter),
            });
            let exit = coda.take_if(|_| is_last).map(|coda| Exit {
                final_norm: ln_f.clone(),
                coda,
                head: backend.matrix(&head),
            });
            let core = core.by_ref().take(layers.len()).collect();
            let rotary = upload(&backend, &Weight::of(&rotary_table(config), config.head_dim));
            Network {
                entrance,
                core,
                exit,
                rotary,
                config: config.clone(),
                shard: shard.clone(),
                layers,
                backend,
            }
        };
        self.devices.into_iter().map(&mut network).collect()
    }
}

impl<B: Backend> Network<B> {
    pub(super) fn entrance(&self) -> &Entrance<B> {
        self.entrance.as_ref().expect("the part with the first core layer")
    }

    pub(super) fn exit(&self) -> &Exit<B> {
        self.exit.as_ref().expect("the part with the last core layer")
    }

    /// Sets latents to the rows that come from `source`.
    pub(crate) fn set_latents(&self, workspace: &mut Workspace<B>, source: Source<'_, B>, rows: &[u32]) {
        source.read(&self.backend, &mut workspace.latents, Rows::At(rows));
    }

    /// The core's input, from the rows' latents and embeddings.
    pub(super) fn begin_core(&self, workspace: &mut Workspace<B>, launch: Launch<'_>) {
        let Workspace { latents, embeddings, x, .. } = workspace;
        self.backend.adapter(latents, embeddings, launch.rows(), &self.entrance().adapter, x);
    }

    /// This part's layers of one core iteration. From `source` comes what the part before left; to `target` goes what the one behind
    /// goes on with: behind the last, which reports how far latents moved, that is the new latents. The first part has no need of what comes
    /// before, and the whole in one part of neither.
    pub(crate) fn core_part(
        &self,
        workspace: &mut Workspace<B>,
        launch: Launch<'_>,
        (source, target): (Source<'_, B>, Target<'_, B>),
        stops: &[Stop],
        reports: &mut Reports<B>,
    ) {
        let Reports { changes, moments: [_, began, _], .. } = reports;
        let count = launch.kv.len();
        if self.is_first() {
            self.backend.mark(began);
            if self.is_last() {
                return self.core(workspace, launch, stops, changes);
            }
            self.begin_core(workspace, launch);
        } else {
            source.read(&self.backend, &mut workspace.x, Rows::First(count));
            self.backend.mark(began);
        }
        if self.is_last() {
            self.finish_core(workspace, launch, stops, changes);
            // Rows of a table, times one: the same bits.
            self.backend.embed(&workspace.latents, launch.latents, 1.0, &mut workspace.x);
        } else {
            let Workspace { cache, x, scratch, .. } = workspace;
            Layer::forward_all(&self.core, self, x, scratch, cache, launch.kv, 0, Finish::Keep);
        }
        target.write(&self.backend, &workspace.x, count);
    }
}
