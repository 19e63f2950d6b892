//! The CUDA backend without a GPU: its kernels compiled for GPUs, and run on this machine's cores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::thread;

use windlass_kernels::cuda::{Cuda, Emulator, EmulatorLink, Gpu, GroupId, Survey, compile};
use windlass_kernels::{
    Backend, CudaError, GpuConfig, KvRow, KvRows, KvShape, KvTable, Plain, Rotation, Rows, Weight,
    WeightFormat, selftest,
};

fn emulated(format: WeightFormat) -> Cuda<Emulator> {
    Cuda::new(Emulator::get(), format).unwrap()
}

fn check(format: WeightFormat) {
    let mut checks = Vec::new();
    selftest::run(&emulated(format), |check| checks.push(check));
    assert!(checks.len() > 10 && checks.iter().all(selftest::Check::is_passed), "{format}: {checks:?}");
}

#[test]
fn every_operation_in_f32_matches_its_twin_in_every_batch() {
    check(WeightFormat::F32);
}

#[test]
fn every_operation_in_bf16_matches_its_twin_in_every_batch() {
    check(WeightFormat::Bf16);
}

#[test]
fn sums_over_ranks_are_in_their_order_and_outputs_side_by_side() {
    for ranks in [1, 2, 3, 5] {
        let group = Emulator::group(ranks).into_iter();
        let group = group.map(|device| Cuda::new(device, WeightFormat::F32).unwrap()).collect();
        let checks = selftest::run_group(group);
        assert_eq!(checks.len(), 2);
        assert!(checks.iter().all(selftest::Check::is_passed), "{ranks} ranks: {checks:?}");
    }
}

#[test]
fn rows_go_from_each_device_to_the_next() {
    let devices = [(); 3].map(|()| emulated(WeightFormat::F32));
    let check = selftest::run_ring(&devices);
    assert!(check.is_passed(), "{check:?}");
    let links = [(); 3].map(|()| EmulatorLink::new());
    for (at, device) in devices.iter().enumerate() {
        device.device().link(Arc::clone(&links[(at + 2) % 3]), Arc::clone(&links[at]));
    }
    let check = selftest::run_links(&devices);
    assert!(check.is_passed(), "{check:?}");
}

/// NCCL names groups without a GPU; where it is not there, its file is named.
#[expect(unsafe_code, reason = "loads a library that only defines functions")]
#[test]
fn a_group_has_an_id_that_other_processes_can_read_or_one_hears_what_is_missing() {
    match GroupId::new() {
        Ok(id) => {
            let bytes = id.to_bytes();
            assert_eq!(GroupId::from_bytes(&bytes).unwrap().to_bytes(), bytes);
            assert_ne!(GroupId::new().unwrap().to_bytes(), bytes);
        }
        Err(error) => {
            assert!(matches!(error, CudaError::NoNccl { file: "libnccl.so.2" }), "{error}");
            assert!(error.to_string().contains("install NCCL 2"), "{error}");
            // SAFETY: it only defines functions.
            assert!(unsafe { libloading::Library::new("libnccl.so.2") }.is_err(), "it is there: {error}");
        }
    }
    let error = GroupId::from_bytes(&[0; 3]).unwrap_err().to_string();
    assert!(error.contains("3 bytes"), "{error}");
}

/// Needs NVRTC, which `make test` installs.
#[test]
fn kernels_compile_for_every_architecture() {
    for architecture in ["sm_80", "sm_90", "sm_100"] {
        let image = compile(architecture).unwrap();
        assert!(image.starts_with(b"\x7fELF"), "{architecture}: no image for a device");
    }
}

/// Norms are handed in by reference; a copy on the device must not outlive what is copied.
#[test]
fn weights_of_a_norm_that_change_in_place_are_seen() {
    let cuda = emulated(WeightFormat::F32);
    let mut x = cuda.buffer(1, 8);
    cuda.upload(&[1.0; 8], &mut x, Rows::First(1));
    let mut weight = [1.0; 8];
    let normed = |weight: &[f32]| {
        let (mut out, mut values) = (cuda.buffer(1, 8), Vec::new());
        cuda.rms_norm(&x, Rows::First(1), weight, 0.0, &mut out);
        cuda.download(&out, 1, &mut values);
        values
    };
    assert_eq!(normed(&weight), [1.0; 8]);
    weight[3] = 2.0;
    assert_eq!(normed(&weight), weight);
}

/// Tables are uploaded once for all layers of a launch; one that has changed must be uploaded again.
#[test]
fn a_table_that_changes_between_two_launches_of_the_same_rows_is_seen() {
    fn values<B: Backend>(backend: &B) -> Vec<f32> {
        let (width, mut table) = (4, KvTable::default());
        for slot in 0..3 {
            table.set_block(slot, 0, slot);
        }
        table.set_top_slot(0, 2);
        table.set_top_slot(1, 2);
        let mut cache = backend.kv_cache(KvShape { blocks: 3, layers: 1, heads: 1, head_dim: width });
        let mut rotary = backend.buffer(2, width);
        backend.upload(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], &mut rotary, Rows::First(2));
        let mut qkv = backend.buffer(2, 3 * width);
        for slot in 1..3 {
            let rows = [0, 1].map(|position| KvRow { table: 0, position, slot });
            let rows = KvRows { rows: &rows, tables: std::slice::from_ref(&table) };
            let all: Vec<f32> = (0..2 * 3 * width).map(|i| (i * slot as usize) as f32 / 32.0).collect();
            backend.upload(&all, &mut qkv, Rows::First(2));
            let rotation = Rotation { bias: None, angles: &rotary };
            backend.rotate_and_store(&mut qkv, rotation, rows, None, 0, &mut cache);
        }
        let mut all = Vec::new();
        for top_slot in [2, 1] {
            table.set_top_slot(0, top_slot);
            let rows = [KvRow { table: 0, position: 1, slot: 2 }];
            let rows = KvRows { rows: &rows, tables: std::slice::from_ref(&table) };
            let (mut out, mut values) = (backend.buffer(1, width), Vec::new());
            backend.attention(&qkv, rows, 0, &cache, &mut out);
            backend.download(&out, 1, &mut values);
            all.extend(values);
        }
        all
    }
    let (twin, emulated) = (values(&Plain), values(&emulated(WeightFormat::F32)));
    assert_ne!(twin[..4], twin[4..], "the other slot holds other values");
    for (a, b) in twin.iter().zip(&emulated) {
        assert!((a - b).abs() < 1e-5, "{twin:?} and {emulated:?}");
    }
}

/// Of a table only what has changed is sent, to a place that is the table's as long as it fits.
#[test]
fn tables_that_grow_change_and_begin_anew_are_read_as_they_are() {
    fn values<B: Backend>(backend: &B) -> Vec<f32> {
        const POSITIONS: usize = 1000;
        let width = 4;
        let (mut tables, mut free): ([KvTable; 3], Vec<u32>) = (Default::default(), (0..900).collect());
        let shape = KvShape { blocks: free.len(), layers: 1, heads: 1, head_dim: width };
        let mut cache = backend.kv_cache(shape);
        let mut rotary = backend.buffer(POSITIONS, width);
        backend.upload(&[1.0, 0.0].repeat(POSITIONS * width / 2), &mut rotary, Rows::First(POSITIONS));
        let (mut qkv, mut out) = (backend.buffer(POSITIONS, 3 * width), backend.buffer(POSITIONS, width));
        let (mut all, mut some, mut state) = (Vec::new(), Vec::new(), 7_u64);
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for step in 0..120 {
            let number = random(3);
            let table = &mut tables[number];
            let known = table.contents().1.len();
            if random(20) == 0 || known + 450 > POSITIONS {
                table.clear(|block| free.push(block));
                continue;
            }
            if known > 0 && random(3) == 0 {
                table.set_top_slot(random(known), 1);
            }
            // Now and then more than a table remembers of its changes.
            let new = if random(20) == 0 { 450 } else { 1 + random(4) };
            // And now and then one that is very deep, so that there is no room for it where tables are.
            if random(40) == 0 && table.block(300, known).is_none() {
                table.set_block(300, known, free.pop().unwrap());
            }
            for position in known..known + new {
                // Of one nobody says anything, so that it has slot 0 alone.
                let is_skipped = position + 2 == known + new && new > 2;
                let top_slot = if is_skipped { 0 } else { 1 + random(3) as u32 };
                for slot in
                    (0..=top_slot).filter(|&slot| table.block(slot, position).is_none()).collect::<Vec<_>>()
                {
                    table.set_block(slot, position, free.pop().unwrap());
                }
                if !is_skipped {
                    table.set_top_slot(position, top_slot);
                }
            }
            for slot in 0..4 {
                let has_slot = |&position: &usize| tables[number].top_slot(position) >= slot;
                let row = |position| KvRow { table: number as u32, position: position as u32, slot };
                let rows = (known + new - new.min(4)..known + new).filter(has_slot).map(row);
                let rows: Vec<KvRow> = rows.collect();
                let rows = KvRows { rows: &rows, tables: &tables };
                if rows.is_empty() {
                    continue;
                }
                let values: Vec<f32> =
                    (0..rows.len() * 3 * width).map(|i| ((i * 7 + step) % 33) as f32 / 32.0).collect();
                backend.upload(&values, &mut qkv, Rows::First(rows.len()));
                let rotation = Rotation { bias: None, angles: &rotary };
                backend.rotate_and_store(&mut qkv, rotation, rows, None, 0, &mut cache);
                backend.attention(&qkv, rows, 0, &cache, &mut out);
                backend.download(&out, rows.len(), &mut some);
                all.append(&mut some);
            }
        }
        all
    }
    let twin = values(&Plain);
    assert!(twin.len() > 1000, "{} values", twin.len());
    for (format, tolerance) in [(WeightFormat::F32, 1e-5), (WeightFormat::Bf16, 1e-2)] {
        for (i, (a, b)) in twin.iter().zip(&values(&emulated(format))).enumerate() {
            assert!((a - b).abs() < tolerance, "{format}: value {i} is {b}, the twin's is {a}");
        }
    }
}

#[test]
fn int8_is_refused_with_what_to_use() {
    let error = Cuda::new(Emulator::get(), WeightFormat::Int8).unwrap_err();
    assert_eq!(error.to_string(), "weights is int8: with backend cuda use f32 or bf16");
}

#[test]
fn without_a_driver_one_hears_which_file_is_missing() {
    let errors = [Gpu::open(0, &GpuConfig::default()).err(), Survey::take().err()];
    for error in errors.into_iter().flatten() {
        if let CudaError::NoDriver { file } = &error {
            assert_eq!(*file, "libcuda.so.1");
            assert!(error.to_string().contains("install the driver"), "{error}");
        }
    }
}

/// The emulator refuses gathers that are in a graph of one rank and in none, or in another one, of another.
#[test]
fn ranks_with_unequal_shares_record_what_they_gather_alike() {
    let rank = |(rank, device): (usize, Emulator)| {
        let backend = Cuda::new(device, WeightFormat::F32).unwrap();
        let inputs = [80, 67][rank];
        let [most, few] =
            [inputs, 8].map(|inputs| backend.matrix(&Weight::of(&vec![0.5; 8 * inputs], inputs)));
        let [x, y] = [inputs, 8].map(|inputs| backend.buffer(40, inputs));
        let mut out = backend.buffer(40, 8);
        for rows in [1, 2, 5, 2, 6, 7, 12, 13, 14, 24, 27, 40, 13] {
            for _ in 0..3 {
                for (x, weight) in [(&y, &few), (&x, &most)] {
                    backend.matmul(x, rows, weight, &mut out);
                    backend.all_reduce(&mut out, rows);
                }
                backend.flush();
            }
        }
        // Nobody leaves before all are done.
        backend
    };
    thread::scope(|scope| {
        let ranks = Emulator::group(2).into_iter().enumerate();
        let ranks: Vec<_> = ranks.map(|device| scope.spawn(move || rank(device))).collect();
        let ranks: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        assert_eq!(ranks.len(), 2);
    });
}
