//! What can be wrong with a model folder.

use std::io;
use std::path::PathBuf;

use windlass_wording::plain;

use crate::depth::DepthError;
use crate::shard::RanksError;
use crate::stages::TooManyStages;

/// A JSON file of the model that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field missing.
    #[error("{file} cannot be read: {}", plain(&source.to_string()))]
    Json {
        /// The file's name.
        file: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A field of the wrong type, or one that is not known.
    #[error("{file}: {field}: {}", plain(&source.to_string()))]
    Field {
        /// The file's name.
        file: &'static str,
        /// The field, dotted where nested.
        field: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A value that is impossible, or that asks for something not implemented.
    #[error("{file}: {field} is {value}: {remedy}")]
    Value {
        /// The file's name.
        file: &'static str,
        /// The field, dotted where nested.
        field: String,
        /// The value found.
        value: String,
        /// What would be right.
        remedy: String,
    },
    /// An effort whose depth policy cannot be run.
    #[error("generation_config.json: windlass.efforts.{effort}{}: {source}", source.field().trim_start_matches("depth"))]
    Effort {
        /// The effort's name.
        effort: String,
        /// What is wrong with its policy.
        source: DepthError,
    },
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A config file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be split over so many ranks.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// It cannot be cut into so many stages.
    #[error(transparent)]
    Stages(#[from] TooManyStages),
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder is not a model's.
    #[error("{} is not a model folder: it has no {missing}", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
        /// The file or files it lacks.
        missing: &'static str,
    },
    /// The shard index is not valid.
    #[error("{}: {reason}", file.display())]
    Index {
        /// The index file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index names a shard that is not there.
    #[error("{} lists shard {shard}, which is not in the folder: copy all shards", index.display())]
    AbsentShard {
        /// The index file.
        index: PathBuf,
        /// The shard.
        shard: String,
    },
    /// A weight file is shorter or longer than its header says.
    #[error("{} has {found} bytes and its header asks for {wanted}: copy or download it again", file.display())]
    Size {
        /// The weight file.
        file: PathBuf,
        /// Its size.
        found: u64,
        /// The size that its header asks for; at least that where the header itself is cut short.
        wanted: u64,
    },
    /// What Git leaves in the place of a large file that was not fetched.
    #[error("{} is a pointer of Git LFS in the place of the weights: run `git lfs pull` in its folder", file.display())]
    LfsPointer {
        /// The weight file.
        file: PathBuf,
    },
    /// A web page or the like in the place of weights.
    #[error("{} is text, beginning with '{beginning}', and no weights: download it again", file.display())]
    Text {
        /// The weight file.
        file: PathBuf,
        /// Its first line, shortened.
        beginning: String,
    },
    /// A weight file is damaged in another way.
    #[error("{} ({found} bytes) is cut short or damaged: {source}", file.display())]
    Damaged {
        /// The weight file.
        file: PathBuf,
        /// Its size.
        found: u64,
        /// What the parser said.
        source: safetensors::SafeTensorError,
    },
    /// Two files hold one tensor.
    #[error("tensor {tensor} is in both {} and {}: keep one", first.display(), second.display())]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The config asks for a tensor that the checkpoint has not.
    #[error("{} has no tensor {tensor}, expected with shape {expected:?}", file.display())]
    MissingTensor {
        /// The weight file or index.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape the config asks for.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the config says.
    #[error("{}: tensor {tensor} has shape {found:?}, but the config asks for {expected:?}", file.display())]
    Shape {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape the config asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that is not read.
    #[error("{}: tensor {tensor} is {found}: convert it to F32, F16 or BF16", file.display())]
    Dtype {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// The checkpoint holds a tensor that the config gives no place.
    #[error(
        "{}: tensor {tensor} has no place in this config, and would be ignored: is it another model's?", file.display())]
    UnknownTensor {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The config ties head and embedding, the checkpoint does not.
    #[error(
        "{}: lm_head.weight differs from transformer.wte.weight though tie_embeddings is true: set it to false", file.display())]
    UntiedHead {
        /// The weight file.
        file: PathBuf,
    },
    /// A tensor holds a number that nothing can be computed with.
    #[error("{}: tensor {tensor} holds {value} at index {index}: export or download the weights again", file.display())]
    NotFinite {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// NaN or an infinity.
        value: f32,
        /// Where it is first found, row-major.
        index: usize,
    },
}
