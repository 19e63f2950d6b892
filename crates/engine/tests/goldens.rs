//! The engine against numbers recorded from the reference implementation.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use common::{alone, config, cpus, goldens_folder, network, tiny, tiny_on, tiny_on_stages, tiny_ranks};
use windlass_engine::{Engine, Request, TokenOutput};
use windlass_kernels::{Backend, Cpu, CpuConfig, KvRow, KvRows, KvTable, Plain};
use windlass_model::goldens::{Goldens, LOGITS_TOLERANCE, close};
use windlass_model::{Capacity, KvPolicy, Launch, OracleToken, Runner};

fn oracle_token(token: TokenOutput) -> OracleToken {
    let logits = token.logits.unwrap();
    OracleToken { token: token.token, depth: token.depth, exit_values: token.exit_values, logits }
}

/// Runs every recorded generation and returns (tokens that agreed, tokens in all).
fn agreeing_tokens<R: Runner>(mut engine: Engine<R>, every_nth: usize) -> (usize, usize) {
    let goldens = Goldens::open(goldens_folder());
    let (mut agreed, mut all) = (0, 0);
    for case in goldens.cases.iter().step_by(every_nth) {
        let request = Request {
            init_scale: 0.0,
            report_logits: true,
            exit_values: true,
            ..Request::greedy(case.prompt.clone(), case.tokens.len(), case.depth, case.kv)
        };
        let produced: Vec<_> = alone(&mut engine, request).tokens.into_iter().map(oracle_token).collect();
        let same = case.compare(&produced).unwrap();
        if same == case.tokens.len() {
            goldens.check_logits(case, &produced).unwrap();
        }
        agreed += same;
        all += case.tokens.len();
    }
    (agreed, all)
}

#[test]
fn the_engine_generates_what_was_recorded() {
    let (agreed, all) = agreeing_tokens(tiny(config()), 1);
    println!("{agreed} of {all} tokens agreed");
    assert!(agreed * 100 >= all * 99, "only {agreed} of {all} tokens could be compared");
}

#[test]
fn any_number_of_stages_generates_what_was_recorded() {
    for stages in 2..=4 {
        let (agreed, all) = agreeing_tokens(tiny_on_stages(cpus(stages), config()), 5);
        assert!(agreed * 100 >= all * 99, "only {agreed} of {all} tokens could be compared");
    }
}

#[test]
fn the_plain_backend_generates_what_was_recorded() {
    let (agreed, all) = agreeing_tokens(tiny_on(Plain, config()), 11);
    assert!(agreed * 100 >= all * 95, "only {agreed} of {all} tokens could be compared");
}

/// The kernels of a GPU, compiled for this machine.
#[cfg(feature = "cuda-emulator")]
#[test]
fn the_cuda_backend_generates_what_was_recorded() {
    use windlass_kernels::WeightFormat;
    use windlass_kernels::cuda::{Cuda, Emulator};

    let cuda = Cuda::new(Emulator::get(), WeightFormat::F32).unwrap();
    let (agreed, all) = agreeing_tokens(tiny_on(cuda, config()), 17);
    assert!(agreed * 100 >= all * 95, "only {agreed} of {all} tokens could be compared");
}

/// The same kernels on a group of devices.
#[cfg(feature = "cuda-emulator")]
#[test]
fn several_cuda_devices_generate_what_was_recorded() {
    use common::{emulated_group, tiny_group};
    use windlass_kernels::WeightFormat;

    let (agreed, all) = agreeing_tokens(tiny_group(emulated_group(3, WeightFormat::F32), config()), 61);
    assert!(agreed * 100 >= all * 95, "only {agreed} of {all} tokens could be compared");
}

#[test]
fn several_ranks_generate_what_was_recorded() {
    for ranks in [2, 3, 5] {
        let (agreed, all) = agreeing_tokens(tiny_ranks(ranks, CpuConfig::new(2), config()), 3);
        println!("{ranks} ranks: {agreed} of {all} tokens agreed");
        assert!(agreed * 100 >= all * 99, "only {agreed} of {all} tokens could be compared");
    }
}

#[test]
fn several_ranks_take_the_tokens_of_one() {
    let goldens = Goldens::open(goldens_folder());
    let mut one = tiny(config());
    for ranks in [2, 3, 5] {
        let mut several = tiny_ranks(ranks, CpuConfig::new(2), config());
        for case in goldens.cases.iter().step_by(5) {
            let request = Request::greedy(case.prompt.clone(), case.tokens.len(), case.depth, case.kv);
            let of_token = |token: &TokenOutput| (token.token, token.depth);
            let answers = [alone(&mut one, request.clone()), alone(&mut several, request)];
            let [expected, got] =
                answers.map(|answer| answer.tokens.iter().map(of_token).collect::<Vec<_>>());
            assert_eq!(got, expected, "{ranks} ranks, {:?} {:?}", case.depth, case.kv);
        }
    }
}

/// Raw states after each iteration and logits at several depths, from a given and from the zero state.
#[test]
fn forward_states_and_logits_are_those_recorded() {
    let goldens = Goldens::open(goldens_folder());
    let network = network(Cpu::new(1), &goldens.model);
    let ids = goldens.ids("forward.input_ids");
    let (count, hidden) = (ids.len(), network.config().hidden);
    for start in ["zero", "s0"] {
        let initial = if start == "zero" { vec![0.0; count * hidden] } else { goldens.tensor("forward.s0") };
        let mut workspace = network.workspace(Capacity { rows: count, latents: count, blocks: 64 });
        let mut tables = [KvTable::default()];
        let mut block = 0..;
        for slot in 0..=16 {
            for position in (0..count).step_by(windlass_kernels::BLOCK_POSITIONS) {
                tables[0].set_block(slot, position, block.next().unwrap());
            }
        }
        let latents: Vec<u32> = (0..count as u32).collect();
        let rows = |slot| -> Vec<KvRow> {
            (0..count as u32).map(|position| KvRow { table: 0, position, slot }).collect()
        };
        let backend = network.backend();
        let (mut changes, mut report) = (backend.new_report(count), backend.new_report(0));
        let (at_slot_0, mut logits) = (rows(0), Vec::new());
        fn launch<'a>(latents: &'a [u32], rows: &'a [KvRow], tables: &'a [KvTable]) -> Launch<'a> {
            Launch { latents, kv: KvRows { rows, tables } }
        }
        (0..count).for_each(|position| tables[0].set_top_slot(position, 0));
        network.prelude(&mut workspace, &ids, &initial, launch(&latents, &at_slot_0, &tables));
        let states = goldens.tensor(&format!("forward.{start}.states"));
        for depth in 0..16 {
            let slot = KvPolicy::Full.slot(depth) + 1;
            (0..count).for_each(|position| tables[0].set_top_slot(position, slot));
            network.core(&mut workspace, launch(&latents, &rows(slot), &tables), &[], &mut changes);
            if let Some(expected) = states.chunks_exact(count * hidden).nth(depth as usize) {
                close(&network.latents(&workspace, count), expected, LOGITS_TOLERANCE).unwrap();
            }
            if (depth + 1).is_power_of_two() {
                network.coda(&mut workspace, launch(&latents, &at_slot_0, &tables), &latents, &mut report);
                backend.receive(&mut report, &mut logits);
                let expected = goldens.tensor(&format!("forward.{start}.logits.r{}", depth + 1));
                close(&logits, &expected, LOGITS_TOLERANCE).unwrap();
            }
        }
    }
}
