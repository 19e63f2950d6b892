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
            let _ = self.told.send(format!("{} begins", self.stage));
            self.gate.iter().for_each(|gate| gate.recv().unwrap());
            let _ = self.told.send(format!("{} is done", self.stage));
        }
    }

    fn outcome(&mut self, _: &Order, _: &mut Outcome) {}
}

impl Drop for Telling {
    fn drop(&mut self) {
        let _ = self.told.send(format!("{} ends", self.stage));
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

/// Ranks that go on computing when they have obeyed.
struct Lasting {
    told: Sender<&'static str>,
    ends: Receiver<()>,
    /// How many cores have ended whose outcome was not asked for.
    ended: usize,
}

impl StageRanks for Lasting {
    fn obey(&mut self, order: &Order) {
        if order.step == Step::Core {
            self.told.send("begins").unwrap();
        }
    }

    fn is_done(&mut self) -> bool {
        self.ended += self.ends.try_iter().count();
        self.ended > 0
    }

    fn outcome(&mut self, _: &Order, _: &mut Outcome) {
        while !self.is_done() {
            thread::yield_now();
        }
        self.ended -= 1;
    }
}

#[test]
fn a_device_has_its_next_launch_before_the_last_is_done() {
    let (told, heard) = channel();
    let (end, ends) = channel();
    let stages: Vec<Box<dyn StageRanks>> = vec![
        Box::new(Telling { stage: 0, told: channel().0, gate: None }),
        Box::new(Lasting { told, ends, ended: 0 }),
    ];
    let config = ModelFolder::demo().config().unwrap();
    let mut ring = Ring::of(config, Cpu::new(1).arithmetic(), 1, stages, true);
    ring.allocate(Capacity { rows: 1, latents: 1, blocks: 1 });
    let launch = Launch { latents: &[], kv: KvRows { rows: &[], tables: &[] } };
    (0..2).for_each(|_| ring.start_core(launch, &[]));
    let begins: Vec<_> = (0..2).map(|_| heard.recv_timeout(Duration::from_secs(30))).collect();
    for _ in 0..2 {
        end.send(()).unwrap();
        assert_eq!(ring.next_done(), Part::Core);
        ring.finish_core(&mut Vec::new());
    }
    assert_eq!(begins, [Ok("begins"), Ok("begins")]);
}
