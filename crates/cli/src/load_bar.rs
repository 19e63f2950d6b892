//! A progress bar for loading a large checkpoint.

use indicatif::{ProgressBar, ProgressStyle};
use windlass_model::LoadProgress;

/// Checkpoints up to this size load in a moment.
const LARGE_BYTES: u64 = 256 << 20;

/// Shows how far loading has come, on standard error where that is a terminal.
#[derive(Default)]
pub(crate) struct LoadBar {
    bar: Option<ProgressBar>,
}

impl LoadBar {
    /// Shows progress of a large checkpoint, and nothing of a small one.
    pub(crate) fn update(&mut self, progress: LoadProgress) {
        let LoadProgress { loaded_bytes, total_bytes } = progress;
        if total_bytes <= LARGE_BYTES {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let template = "loading {wide_bar} {bytes} of {total_bytes}, {eta} left";
            let style = ProgressStyle::with_template(template).expect("the template is well-formed");
            ProgressBar::new(total_bytes).with_style(style)
        });
        bar.set_position(loaded_bytes);
        if loaded_bytes >= total_bytes {
            bar.finish_and_clear();
        }
    }
}
