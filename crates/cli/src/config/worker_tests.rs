//! What is taken and refused of a worker's settings.

use windlass_engine::{Coalesce, Draft};
use windlass_kernels::GpuConfig;

use super::*;

fn demo() -> WorkerOptions {
    WorkerOptions { model: Some("demo".to_owned()), ..WorkerOptions::default() }
}

fn error(options: WorkerOptions) -> String {
    options.settings("127.0.0.1:8002").unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_help() {
    let WorkerSettings { listen, config, .. } = demo().settings("127.0.0.1:8002").unwrap();
    let engine = config.engine;
    assert_eq!((listen.as_str(), config.latent_seed), ("127.0.0.1:8002", 0));
    assert_eq!((config.drain_deadline.as_secs(), config.stuck_after.as_millis()), (30, 10_000));
    assert_eq!((engine.max_lanes, engine.max_rows, engine.prefill_chunk), (64, 256, 128));
    assert_eq!((engine.coalesce, engine.draft), (Coalesce::Auto, Draft::Auto));
    assert_eq!((engine.prefill_positions, engine.max_waiting, engine.kv_bytes), (4096, 1024, 1 << 30));
}

#[test]
fn drafts_are_as_they_are_set() {
    let draft = |text: &str| WorkerOptions { draft: Some(text.into()), ..demo() };
    let draft = |text| draft(text).settings("127.0.0.1:8002").unwrap().config.engine.draft;
    assert_eq!(["off", "auto", "4"].map(draft), [Draft::Off, Draft::Auto, Draft::Every(4)]);
}

#[test]
fn a_simulated_worker_needs_no_model_and_has_its_costs() {
    let simulated = || WorkerOptions { backend: Some("simulated".to_owned()), ..WorkerOptions::default() };
    let backend = |options: WorkerOptions| options.settings("127.0.0.1:8002").unwrap().config.backend;
    let costs = |tick, row| WorkerBackend::Simulated(SimulatedCost { tick, row });
    let micros = Duration::from_micros;
    assert_eq!(backend(simulated()), costs(micros(1000), micros(10)));
    let options = WorkerOptions { simulated_tick_us: Some(70), simulated_row_us: Some(3), ..simulated() };
    assert_eq!(backend(options), costs(micros(70), micros(3)));
    assert_eq!(backend(demo()), WorkerBackend::Cpu);
}

#[test]
fn a_gpu_is_named_by_its_number_and_needs_a_model() {
    let cuda = |model| WorkerOptions {
        backend: Some("cuda".to_owned()),
        cuda_devices: Some(vec![3]),
        cuda_kernel_cache: Some("/kernels".into()),
        model,
        ..WorkerOptions::default()
    };
    let settings = cuda(Some("demo".to_owned())).settings("127.0.0.1:8002").unwrap();
    let gpu = GpuConfig { devices: vec![3], kernel_cache: Some("/kernels".into()) };
    assert_eq!(settings.config.backend, WorkerBackend::Cuda(gpu));
    assert!(error(cuda(None)).starts_with("model is not set"));
}

#[test]
fn every_rank_of_every_stage_has_a_gpu_of_its_own() {
    let gpus = |devices: Option<&[usize]>| WorkerOptions {
        backend: Some("cuda".to_owned()),
        cuda_devices: devices.map(<[usize]>::to_vec),
        tp: Some(2),
        stages: Some(2),
        ..demo()
    };
    let devices = |options: WorkerOptions| match options.settings("127.0.0.1:8002").unwrap().config.backend {
        WorkerBackend::Cuda(GpuConfig { devices, .. }) => devices,
        backend => panic!("{backend:?}"),
    };
    assert_eq!(devices(gpus(None)), [0, 1, 2, 3]);
    assert_eq!(devices(gpus(Some(&[5, 4, 1, 0]))), [5, 4, 1, 0]);
    let in_processes = WorkerOptions { tp_listen: Some("127.0.0.1:0".to_owned()), ..gpus(None) };
    assert_eq!(devices(in_processes), [0]);
    let few = error(gpus(Some(&[0, 1, 2])));
    assert!(few.starts_with("cuda_devices names 3 GPUs and this process has 4 ranks"), "{few}");
    let twice = error(gpus(Some(&[0, 1, 2, 1])));
    assert!(twice.starts_with("cuda_devices has 1 twice: give each rank a GPU of its own"), "{twice}");
}

#[test]
fn a_worker_registers_where_etcd_has_endpoints_unless_told_otherwise() {
    let etcd = EtcdOptions { endpoints: Some(vec!["http://e:1".into()]), ..EtcdOptions::default() };
    let registers = |registry: Option<&str>, etcd: &EtcdOptions| {
        let options = WorkerOptions { registry: registry.map(str::to_owned), ..demo() };
        options.with_etcd(etcd).settings("127.0.0.1:8002").unwrap().registration.is_some()
    };
    assert!(registers(None, &etcd) && registers(Some("etcd"), &etcd) && !registers(Some("none"), &etcd));
    assert!(!registers(None, &EtcdOptions::default()));
}

#[test]
fn flags_go_before_the_file() {
    let flags = WorkerOptions { max_lanes: Some(3), ..demo() };
    let file = WorkerOptions { max_lanes: Some(4), max_rows: Some(5), ..WorkerOptions::default() };
    let engine = flags.or(file).settings("127.0.0.1:8002").unwrap().config.engine;
    assert_eq!((engine.max_lanes, engine.max_rows), (3, 5));
}

#[test]
fn wrong_values_are_named_with_a_remedy() {
    let listen = |listen: &str| WorkerOptions { listen: Some(listen.to_owned()), ..demo() };
    let cases = [
        (listen("8002"), "listen is '8002': use HOST:PORT"),
        (listen("a:70000"), "listen is 'a:70000': use HOST:PORT"),
        (listen("http://a:1"), "listen is 'http://a:1': use HOST:PORT"),
        (WorkerOptions::default(), "model is not set: name its folder"),
        (WorkerOptions { model: Some(String::new()), ..demo() }, "model is empty: name its folder"),
        (
            WorkerOptions { tls_key: Some("k".into()), ..demo() },
            "tls_certificate is not set, but tls_key is: set both or none",
        ),
        (WorkerOptions { registry: Some("x".into()), ..demo() }, "registry is 'x': use none or etcd"),
        (
            WorkerOptions { registry: Some("etcd".into()), ..listen("0.0.0.0:1") },
            "listen is 0.0.0.0:1, which is no address to be reached at: set advertise",
        ),
        (
            WorkerOptions { registry: Some("etcd".into()), lease_ttl_s: Some(1), ..demo() },
            "lease_ttl_s is 1: use 2 to 3600",
        ),
        (
            WorkerOptions { advertise: Some("a:1".into()), ..demo() },
            "advertise is set, and the worker registers nowhere: set etcd_endpoints",
        ),
        (WorkerOptions { lease_ttl_s: Some(5), ..demo() }, "lease_ttl_s is set, and the worker registers"),
        (WorkerOptions { worker_id: Some("w".into()), ..demo() }, "worker_id is set, and the worker"),
        (
            WorkerOptions { simulated_row_us: Some(5), ..demo() },
            "simulated_row_us is set, and backend is not simulated: set backend to simulated",
        ),
        (
            WorkerOptions { coalesce: Some("off".into()), coalesce_limit: Some(3), ..demo() },
            "coalesce_limit is set, and coalesce is off: leave it out",
        ),
        (WorkerOptions { threads: Some(0), ..demo() }, "threads is 0: use 1 to 1024"),
        (
            WorkerOptions { stages: Some(2), threads: Some(1), ..demo() },
            "threads is 1: use at least stages, which is 2",
        ),
        (
            WorkerOptions { stages: Some(2), backend: Some("simulated".into()), ..demo() },
            "stages is 2, but backend is simulated, which computes nothing: leave stages out",
        ),
        (WorkerOptions { stages: Some(0), ..demo() }, "stages is 0: use 1 to"),
        (WorkerOptions { stages: Some(99), ..demo() }, "stages is 99: use 1 to"),
        (WorkerOptions { tp: Some(0), ..demo() }, "tp is 0: use 1 to 4,"),
        (WorkerOptions { tp: Some(5), ..demo() }, "tp is 5: use 1 to 4,"),
        (
            WorkerOptions { tp_listen: Some("a:1".into()), ..demo() },
            "tp_listen is set, and tp and stages are 1: set one of them",
        ),
        (
            WorkerOptions { tp: Some(2), tp_listen: Some("a".into()), ..demo() },
            "tp_listen is 'a': use HOST:PORT",
        ),
        (
            WorkerOptions { rank_timeout_ms: Some(500), ..demo() },
            "rank_timeout_ms is set and tp_listen is not: leave it out",
        ),
        (
            WorkerOptions { tp: Some(2), tp_listen: Some("a:1".into()), rank_timeout_ms: Some(9), ..demo() },
            "rank_timeout_ms is 9: use 100 to 3600000",
        ),
        (
            WorkerOptions { tp: Some(2), backend: Some("simulated".into()), ..demo() },
            "tp is 2, but backend is simulated",
        ),
        (WorkerOptions { max_waiting: Some(0), ..demo() }, "max_waiting is 0: use at least 1"),
        (
            WorkerOptions { prefill_positions: Some(127), ..demo() },
            "prefill_positions is 127: use at least prefill_chunk, which is 128",
        ),
        (WorkerOptions { max_depth: Some(10_001), ..demo() }, "max_depth is 10001: use 1 to 10000"),
        (WorkerOptions { kv_bytes: Some(9), ..demo() }, "kv_bytes 9 holds no request"),
        (WorkerOptions { weights: Some("f16".into()), ..demo() }, "weights is 'f16': use f32, bf16 or int8"),
        (
            WorkerOptions { backend: Some("gpu".into()), ..demo() },
            "backend is 'gpu': use cpu, cuda or simulated",
        ),
        (WorkerOptions { stuck_after_ms: Some(0), ..demo() }, "stuck_after_ms is 0: use at least 1"),
        (WorkerOptions { coalesce: Some("on".into()), ..demo() }, "coalesce is 'on': use off, auto or"),
        (WorkerOptions { coalesce_limit: Some(0), ..demo() }, "coalesce_limit is 0: use at least 1"),
        (WorkerOptions { draft: Some("0".into()), ..demo() }, "draft is '0': use off, auto or a number of"),
        (
            WorkerOptions { draft: Some("64".into()), max_depth: Some(64), ..demo() },
            "draft is 64: use less than max_depth, which is 64, or off",
        ),
        (WorkerOptions { prefill_segment: Some(20), ..demo() }, "prefill_segment 20 is not a multiple of 16"),
    ];
    for (options, expected) in cases {
        let message = error(options);
        assert!(message.starts_with(expected), "{message}");
    }
}
