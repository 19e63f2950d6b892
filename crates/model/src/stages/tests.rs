//! How a ring ends.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use windlass_kernels::{Backend, Cpu, KvRows};

use super::*;
use crate::ModelFolder;
use crate::ranks::{Order, Outcome};

/// Ranks that tell what becomes of them.
struct Telling {
    stage: usize,
    told: Sender<String>,
    /// What a core waits for.
    gate: Option<Receiver<()>>,
}

impl StageRanks for Telling {
    fn obey(&mut self, order: &Order) {
        if order.step == Step::Core {
            self.told.send(format!("{} begins", self.stage)).unwrap();
            self.gate.iter().for_each(|gate| gate.recv().unwrap());
            self.told.send(format!("{} is done", self.stage)).unwrap();
        }
    }

    fn outcome(&mut self, _: &Order, _: &mut Outcome) {}
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.told.send(format!("{} ends", self.stage)).unwrap();
    }
}

#[test]
fn no_stage_ends_while_another_has_a_launch_of_its_rows() {
    let (told, heard) = channel();
    let (open, gate) = channel();
    let stage =
        |stage, gate| -> Box<dyn StageRanks> { Box::new(Telling { stage, told: told.clone(), gate }) };
    let config = ModelFolder::demo().config().unwrap();
    let stages = vec![stage(0, None), stage(1, Some(gate))];
    let mut ring = Ring::of(config, Cpu::new(1).arithmetic(), 1, stages, true);
    ring.allocate(Capacity { rows: 1, latents: 1, blocks: 1 });
    ring.start_core(Launch { latents: &[], kv: KvRows { rows: &[], tables: &[] } }, &[]);
    let before: Vec<_> = heard.iter().take(3).collect();
    let ending = thread::spawn(move || drop(ring));
    // Long enough for a stage that would not wait for the other.
    thread::sleep(Duration::from_millis(100));
    open.send(()).unwrap();
    ending.join().unwrap();
    assert_eq!(before, ["0 begins", "0 is done", "1 begins"]);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["1 is done", "1 ends", "0 ends"]);
}
