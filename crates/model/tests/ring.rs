//! A ring of stages of which one is lost.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_kernels::{Cpu, Faulty, KvRow, KvRows, KvTable};
use windlass_model::{Capacity, Launch, ModelFolder, Part, Ring, Runner, Split};

fn faulty(broken: &Arc<AtomicBool>) -> Faulty {
    Faulty { cpu: Cpu::new(1), broken: Arc::clone(broken), stuck: Arc::default() }
}

#[test]
fn a_stage_that_panics_ends_whoever_waits_with_its_number_and_message() {
    let goldens = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/huginn-tiny"));
    let folder = ModelFolder::open(goldens).unwrap();
    let (config, checkpoint) = (folder.config().unwrap(), folder.checkpoint().unwrap());
    for lost in 0..3 {
        let broken: Vec<Arc<AtomicBool>> = (0..3).map(|_| Arc::default()).collect();
        let backends = broken.iter().map(|broken| vec![faulty(broken)]).collect();
        let split = Split::at(backends, vec![0..1, 1..2, 2..4], &config).unwrap();
        let mut ring = Ring::new(split.load(&checkpoint, &config, &mut |_| {}).unwrap());
        ring.allocate(Capacity { rows: 1, latents: 1, blocks: 2 });
        let mut table = KvTable::default();
        (0..2).for_each(|slot| table.set_block(slot, 0, slot));
        table.set_top_slot(0, 1);
        let tables = [table];
        let [ends, core] = [0, 1].map(|slot| [KvRow { table: 0, position: 0, slot }]);
        let launch = |rows| Launch { latents: &[0], kv: KvRows { rows, tables: &tables } };
        let mut iterate = || {
            ring.prelude(&[1], &vec![0.5; config.hidden], launch(&ends));
            ring.start_core(launch(&core), &[]);
            let part = ring.next_done();
            ring.finish_core(&mut Vec::new());
            part
        };
        assert_eq!(iterate(), Part::Core);
        broken[lost].store(true, Ordering::Relaxed);
        let panic = catch_unwind(AssertUnwindSafe(&mut iterate)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert_eq!(*message, format!("stage {lost} of 3: the device is broken"));
        // And whoever asks for more is told again, or is not kept waiting: the ring can be dropped.
    }
}
