//! What can be wrong with a model folder.

use std::io;
use std::path::PathBuf;

use crate::depth::DepthError;

/// A JSON file of the model that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field missing.
    #[error("{file} cannot be read: {source}")]
    Json {
        /// The file's name.
        file: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A field of the wrong type, or one that is not known.
    #[error("{file}: {field}: {source}")]
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
    #[error("generation_config.json: windlass.efforts.{effort}: {source}")]
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
    #[error("{file}: {reason}")]
    Index {
        /// The index file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The index names a shard that is not there.
    #[error("{index} lists shard {shard}, which is not in the folder: copy all shards")]
    AbsentShard {
        /// The index file.
        index: String,
        /// The shard.
        shard: String,
    },
    /// A weight file is damaged, or shorter or longer than its header says.
    #[error("{file} ({bytes} bytes) is cut short or damaged: {source}")]
    Damaged {
        /// The weight file.
        file: String,
        /// Its size.
        bytes: usize,
        /// What the parser said.
        source: safetensors::SafeTensorError,
    },
    /// Two files hold one tensor.
    #[error("tensor {tensor} is in both {first} and {second}: keep one")]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// The config asks for a tensor that the checkpoint has not.
    #[error("{file} has no tensor {tensor}, expected with shape {expected:?}")]
    MissingTensor {
        /// The weight file or index.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape the config asks for.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the config says.
    #[error("{file}: tensor {tensor} has shape {found:?}, but the config asks for {expected:?}")]
    Shape {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape the config asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that is not read.
    #[error("{file}: tensor {tensor} is {found}: convert it to F32, F16 or BF16")]
    Dtype {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// The checkpoint holds a tensor that the config gives no place.
    #[error(
        "{file}: tensor {tensor} has no place in this config, and would be ignored: is it another model's?"
    )]
    UnknownTensor {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// The config ties head and embedding, the checkpoint does not.
    #[error(
        "{file}: lm_head.weight differs from transformer.wte.weight though tie_embeddings is true: set it to false"
    )]
    UntiedHead {
        /// The weight file.
        file: String,
    },
    /// A tensor's numbers could not be converted.
    #[error("{file}: tensor {tensor} cannot be converted to f32: {source}")]
    Convert {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What the converter said.
        source: Box<candle_core::Error>,
    },
    /// A tensor holds a number that nothing can be computed with.
    #[error("{file}: tensor {tensor} holds {value} at index {index}: export or download the weights again")]
    NotFinite {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// NaN or an infinity.
        value: f32,
        /// Where it is first found, row-major.
        index: usize,
    },
}
