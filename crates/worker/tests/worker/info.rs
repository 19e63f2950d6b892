//! What a worker says of itself, and what it refuses to start with.

use tonic::Code;
use windlass_kernels::WeightFormat;
use windlass_model::ModelFolder;
use windlass_proto::v1::{
    GenerateTaskRequest, GenerationParameters, HealthRequest, InfoRequest, Sampling, TokenizerRequest,
    depth_policy,
};
use windlass_worker::{Worker, WorkerConfig};

use crate::server::{Server, collect, config, task};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_its_model_its_kv_plan_and_its_tokenizer() {
    let server = Server::start(&config()).await;
    let info = server.client().info(InfoRequest {}).await.unwrap().into_inner();
    let model = info.model.unwrap();
    assert_eq!((model.name.as_str(), model.context_length, model.vocabulary), ("demo", 256, 64));
    assert_eq!((model.default_depth, model.max_depth, model.default_effort.as_str()), (16, 64, "medium"));
    let efforts = model.efforts.iter().map(|effort| match effort.depth.unwrap().policy.unwrap() {
        depth_policy::Policy::Adaptive(depth) => (effort.name.as_str(), depth.max.unwrap()),
        depth_policy::Policy::Fixed(_) => panic!("the demo's efforts are adaptive"),
    });
    assert_eq!(efforts.collect::<Vec<_>>(), [("low", 8), ("medium", 16), ("high", 32)]);
    let kv = info.kv.unwrap();
    assert_eq!((kv.block_positions, u64::from(kv.blocks) * kv.block_bytes), (16, 64 << 20));
    assert_eq!(server.load().await.blocks_total, kv.blocks);
    server.client().health(HealthRequest {}).await.unwrap();

    let files = server.client().tokenizer(TokenizerRequest {}).await.unwrap().into_inner();
    let file = |name| ModelFolder::demo().text_file(name).unwrap().unwrap();
    assert_eq!(files.tokenizer_json, file("tokenizer.json"));
    assert_eq!(files.tokenizer_config_json, file("tokenizer_config.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fingerprint_names_all_that_answers_depend_on_and_nothing_else() {
    let mut fingerprints = Vec::new();
    let changes: [Spoil; 5] = [
        |_| {},
        |config| (config.threads, config.engine.max_lanes, config.engine.prefix_cache) = (2, 3, false),
        |config| config.latent_seed = 1,
        |config| config.weights = WeightFormat::Bf16,
        |config| config.engine.prefill_segment = Some(16),
    ];
    for change in changes {
        let mut config = config();
        change(&mut config);
        let info = Server::start(&config).await.client().info(InfoRequest {}).await.unwrap().into_inner();
        fingerprints.push(info.model.unwrap().fingerprint);
    }
    assert_eq!(fingerprints.remove(1), fingerprints[0], "threads and limits change no answer");
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_any_number_of_stages_serve_one_model_and_give_one_answer() {
    let answers = [(1, 1), (2, 2), (2, 3)].map(async |(stages, threads)| {
        let server = Server::start(&WorkerConfig { stages, threads, ..config() }).await;
        let info = server.client().info(InfoRequest {}).await.unwrap().into_inner();
        let sampling = Some(Sampling { seed: Some(3), ..Sampling::default() });
        let parameters = GenerationParameters { sampling, ..GenerationParameters::default() };
        let stream = server.client().generate(task(parameters)).await.unwrap().into_inner();
        (info, collect(stream).await)
    });
    let [whole, two, uneven] = futures::future::join_all(answers).await.try_into().unwrap();
    assert!(two == whole && uneven == whole, "{whole:?} {two:?} {uneven:?}");
}

type Spoil = fn(&mut WorkerConfig);

#[test]
fn a_worker_does_not_start_with_limits_that_make_no_sense() {
    let cases: [(Spoil, &str); 6] = [
        (|config| config.threads = 0, "threads is 0: use at least 1"),
        (|config| config.inbox = 0, "inbox is 0: use at least 1"),
        (|config| config.engine.max_lanes = 0, "max_lanes is 0: use at least 1"),
        (
            |config| config.engine.kv_bytes = 40_000,
            "kv_bytes 40000 holds no request: two K/V blocks take 65536 bytes, use at least that",
        ),
        (
            |config| config.engine.max_lanes = 1 << 40,
            "kv_bytes, max_lanes, max_rows and prefill_positions need",
        ),
        (
            |config| config.engine.max_depth = 16,
            "max_depth 16 is less than the model's effort 'high' needs: use at least 32",
        ),
    ];
    for (spoil, expected) in cases {
        let mut config = config();
        spoil(&mut config);
        let error = Worker::load(&config, &mut |_| {}).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_another_model_is_sent_on() {
    let other = WorkerConfig { latent_seed: 9, ..config() };
    let [server, other] = [Server::start(&config()).await, Server::start(&other).await];
    let [own, foreign] = [&server, &other].map(|server| async {
        let info = server.client().info(InfoRequest {}).await.unwrap().into_inner();
        info.model.unwrap().fingerprint
    });
    let task = |fingerprint| GenerateTaskRequest { fingerprint, ..task(GenerationParameters::default()) };
    server.client().generate(task(own.await)).await.unwrap();
    let status = server.client().generate(task(foreign.await)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}
