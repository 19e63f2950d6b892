//! Checkpoints as they come: whole, sharded, in half precision, and broken in every way that has a message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use windlass_model::{Checkpoint, LoadError, LoadProgress, ModelConfig, ModelFolder, Weights};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/model.safetensors");
const ADAPTER: &str = "transformer.adapter.weight";
const WTE: &str = "transformer.wte.weight";

type Tensors = HashMap<String, Tensor>;

fn config() -> ModelConfig {
    ModelFolder::demo().config().unwrap()
}

fn demo_tensors() -> Tensors {
    candle_core::safetensors::load(DEMO, &Device::Cpu).unwrap()
}

fn save(tensors: &Tensors, folder: &Path, name: &str) {
    candle_core::safetensors::save(tensors, folder.join(name)).unwrap();
}

/// The demo's tensors, changed, as one file.
fn checkpoint_with(change: impl FnOnce(&mut Tensors)) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = demo_tensors();
    change(&mut tensors);
    save(&tensors, folder.path(), "model.safetensors");
    Checkpoint::open(folder.path()).unwrap()
}

/// The demo's tensors in two shards, and their index.
fn save_shards(folder: &Path) {
    let (first, second): (Tensors, Tensors) =
        demo_tensors().into_iter().partition(|(name, _)| name.contains("core_block"));
    let mut places = Vec::new();
    for (shard, tensors) in
        [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)]
    {
        save(&tensors, folder, shard);
        places.extend(tensors.into_keys().map(|name| format!("{name:?}: {shard:?}")));
    }
    let index = format!(r#"{{"metadata": {{"total_size": 1}}, "weight_map": {{{}}}}}"#, places.join(", "));
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

fn all_values(checkpoint: &Checkpoint) -> Vec<(String, Vec<f32>)> {
    checkpoint.verify(&config()).unwrap();
    let tensors = config().tensors().into_iter();
    tensors.map(|(name, shape)| (name.clone(), checkpoint.tensor(&name, &shape).unwrap())).collect()
}

fn verify_message(checkpoint: &Checkpoint, config: &ModelConfig) -> String {
    let error = checkpoint.verify(config).unwrap_err();
    assert_eq!(Weights::load(checkpoint, config, &mut |_| {}).unwrap_err().to_string(), error.to_string());
    error.to_string()
}

#[test]
fn shards_hold_what_the_whole_file_holds() {
    let folder = tempfile::tempdir().unwrap();
    save_shards(folder.path());
    let sharded = Checkpoint::open(folder.path()).unwrap();
    let whole = ModelFolder::demo().checkpoint().unwrap();
    assert_eq!(sharded.total_bytes(), whole.total_bytes());
    assert_eq!(all_values(&sharded), all_values(&whole));
    sharded.forget("");
    assert_eq!(all_values(&sharded), all_values(&whole), "once its memory was given back");
    assert_eq!(sharded.fingerprint(), whole.fingerprint());
}

#[test]
fn one_changed_weight_changes_the_fingerprint() {
    let same = checkpoint_with(|_| {});
    let changed = checkpoint_with(|tensors| {
        let norm = tensors.get_mut("transformer.ln_f.weight").unwrap();
        let mut values: Vec<f32> = norm.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
        values[7] *= 1.01;
        *norm = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(norm.dtype()).unwrap();
    });
    assert_eq!(same.fingerprint(), ModelFolder::demo().checkpoint().unwrap().fingerprint());
    assert_ne!(same.fingerprint(), changed.fingerprint());
}

#[test]
fn half_precision_is_widened_without_loss() {
    for dtype in [DType::BF16, DType::F16] {
        let checkpoint = checkpoint_with(|tensors| {
            tensors.values_mut().for_each(|tensor| *tensor = tensor.to_dtype(dtype).unwrap());
        });
        let rounded = checkpoint_with(|tensors| {
            tensors.values_mut().for_each(|tensor| {
                *tensor = tensor.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
            });
        });
        assert_eq!(all_values(&checkpoint), all_values(&rounded));
    }
}

#[test]
fn progress_ends_at_the_total() {
    let checkpoint = ModelFolder::demo().checkpoint().unwrap();
    let mut reports: Vec<LoadProgress> = Vec::new();
    let weights = Weights::load(&checkpoint, &config(), &mut |progress| reports.push(progress)).unwrap();
    assert_eq!((weights.prelude.len(), weights.core.len(), weights.coda.len()), (1, 2, 1));
    assert!(reports.is_sorted_by_key(|progress| progress.loaded_bytes));
    let last = reports.last().unwrap();
    assert_eq!((last.loaded_bytes, last.total_bytes), (2 * config().parameters(), checkpoint.total_bytes()));
}

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    let checkpoint = checkpoint_with(|tensors| drop(tensors.remove(ADAPTER)));
    let expected =
        "model.safetensors has no tensor transformer.adapter.weight, expected with shape [128, 256]";
    assert!(verify_message(&checkpoint, &config()).ends_with(expected));
}

#[test]
fn a_wrong_shape_is_named_with_the_right_one() {
    let checkpoint = checkpoint_with(|tensors| {
        let turned = tensors[ADAPTER].t().unwrap().contiguous().unwrap();
        tensors.insert(ADAPTER.to_owned(), turned);
    });
    let expected = "model.safetensors: tensor transformer.adapter.weight has shape [256, 128], \
                    but the config asks for [128, 256]";
    assert!(verify_message(&checkpoint, &config()).ends_with(expected));
}

#[test]
fn an_unreadable_type_is_named_with_a_remedy() {
    let checkpoint = checkpoint_with(|tensors| {
        let wide = tensors[ADAPTER].to_dtype(DType::F64).unwrap();
        tensors.insert(ADAPTER.to_owned(), wide);
    });
    let message = verify_message(&checkpoint, &config());
    let expected = format!("/model.safetensors: tensor {ADAPTER} is F64: convert it to F32, F16 or BF16");
    assert!(message.starts_with('/') && message.ends_with(&expected), "{message}");
}

#[test]
fn a_number_that_is_not_finite_is_named_with_its_place() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let checkpoint = checkpoint_with(|tensors| {
                let widened = tensors[ADAPTER].to_dtype(DType::F32).unwrap();
                let mut values = widened.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values[300] = value;
                let broken = Tensor::from_vec(values, (128, 256), &Device::Cpu).unwrap();
                tensors.insert(ADAPTER.to_owned(), broken.to_dtype(dtype).unwrap());
            });
            checkpoint.verify(&config()).unwrap();
            let error = Weights::load(&checkpoint, &config(), &mut |_| {}).unwrap_err();
            let expected = format!("model.safetensors: tensor {ADAPTER} holds {shown} at index 300: ");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}

#[test]
fn a_tensor_without_a_place_is_refused() {
    let checkpoint = checkpoint_with(|tensors| {
        tensors.insert("transformer.gate.weight".to_owned(), tensors[ADAPTER].clone());
    });
    assert!(verify_message(&checkpoint, &config()).contains("tensor transformer.gate.weight has no place"));
    let without_bias = ModelConfig { qk_bias: false, ..config() };
    let demo = ModelFolder::demo().checkpoint().unwrap();
    assert!(verify_message(&demo, &without_bias).contains("attn.qk_bias has no place"));
}

#[test]
fn a_tied_head_may_be_stored_again_only_if_equal() {
    let twice = checkpoint_with(|tensors| {
        tensors.insert("lm_head.weight".to_owned(), tensors[WTE].clone());
    });
    twice.verify(&config()).unwrap();
    let untied = checkpoint_with(|tensors| {
        let other = (&tensors[WTE] * 2.0).unwrap();
        tensors.insert("lm_head.weight".to_owned(), other);
    });
    assert!(matches!(untied.verify(&config()), Err(LoadError::UntiedHead { .. })));
    let weights = Weights::load(&untied, &ModelConfig { tied: false, ..config() }, &mut |_| {}).unwrap();
    let (head, wte) = (weights.head.unwrap().to_vec(), weights.wte.to_vec());
    assert!(head.iter().zip(&wte).all(|(head, wte)| *head == 2.0 * wte));
}

#[test]
fn an_untied_model_needs_its_head() {
    let checkpoint = ModelFolder::demo().checkpoint().unwrap();
    let message = verify_message(&checkpoint, &ModelConfig { tied: false, ..config() });
    assert_eq!(message, "model.safetensors has no tensor lm_head.weight, expected with shape [64, 128]");
}

#[test]
fn a_file_cut_short_anywhere_is_named_with_its_size_and_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(DEMO).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let wanted = |length: usize, wanted: usize| {
        format!("{} has {length} bytes and its header asks for {wanted}: copy or download", path.display())
    };
    let broken = |length: usize| format!("{} ({length} bytes) is cut short or damaged: ", path.display());
    let cases = [
        (1, broken(1)),
        (7, broken(7)),
        (100, wanted(100, header)),
        (header + 9, wanted(header + 9, whole.len())),
        (whole.len() - 1, wanted(whole.len() - 1, whole.len())),
    ];
    for (length, expected) in cases {
        fs::write(&path, &whole[..length]).unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(message.starts_with(&expected), "{message}");
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.starts_with(&wanted(whole.len() + 4, whole.len())), "{message}");
}

#[test]
fn what_is_no_weights_at_all_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let cases = [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
            "is a pointer of Git LFS in the place of the weights: run `git lfs pull` in its folder",
        ),
        (
            "<!doctype html>\n<p>",
            "is text, beginning with '<!doctype html>', and no weights: download it again",
        ),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert_eq!(message, format!("{} {expected}", path.display()));
    }
}

#[test]
fn an_absent_shard_is_named() {
    let folder = tempfile::tempdir().unwrap();
    save_shards(folder.path());
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.starts_with('/'), "{message}");
    assert!(
        message.ends_with(
        "/model.safetensors.index.json lists shard model-00002-of-00002.safetensors, which is not in the folder: \
         copy all shards")
    );
}

#[test]
fn an_index_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    save_shards(folder.path());
    let path = folder.path().join("model.safetensors.index.json");
    let cases = [
        (r#"{"weight_map": {"x": "../x.safetensors"}}"#, "must be the plain name of a file"),
        (r#"{"weight_map": {"x": "model-00001-of-00002.safetensors"}}"#, "tensor x is not in"),
        ("{}", "weight_map is missing"),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    save_shards(folder.path());
    save(&demo_tensors(), folder.path(), "model-00001-of-00002.safetensors");
    assert!(matches!(Checkpoint::open(folder.path()), Err(LoadError::Duplicate { .. })));
}

#[test]
fn a_folder_without_weights_is_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.ends_with("it has no model.safetensors or model.safetensors.index.json"), "{message}");
}
