//! A number for what was submitted, so that the same can be told from another under one idempotency key.

use std::collections::BTreeMap;
use std::mem::take;

use prost::Message;
use windlass_proto::v1::{GenerationParameters, JobItem, JobSpec};
use xxhash_rust::xxh3::Xxh3;

/// Takes in a spec and its items one by one.
pub(crate) struct Content(Xxh3);

impl Content {
    pub(crate) fn of(mut spec: JobSpec) -> Self {
        let mut content = Self(Xxh3::new());
        content.bias(spec.parameters.as_mut());
        content.bytes(&spec.encode_to_vec());
        content
    }

    pub(crate) fn add(&mut self, mut item: JobItem) {
        self.bias(item.parameters.as_mut());
        self.bytes(&item.encode_to_vec());
    }

    pub(crate) fn finish(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }

    /// Takes the only map out of the message: its order is another each time.
    fn bias(&mut self, parameters: Option<&mut GenerationParameters>) {
        let Some(sampling) = parameters.and_then(|parameters| parameters.sampling.as_mut()) else { return };
        let sorted: BTreeMap<_, _> = take(&mut sampling.logit_bias).into_iter().collect();
        for (token, bias) in sorted {
            self.0.update(&token.to_le_bytes());
            self.0.update(&bias.to_le_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_proto::v1::Sampling;

    fn of(ids: &[&str], bias: &[u32]) -> String {
        let logit_bias = bias.iter().map(|token| (*token, 1.0)).collect();
        let sampling = Some(Sampling { logit_bias, ..Sampling::default() });
        let parameters = Some(GenerationParameters { sampling, ..GenerationParameters::default() });
        let mut content = Content::of(JobSpec { parameters, ..JobSpec::default() });
        for id in ids {
            content.add(JobItem { id: (*id).into(), ..JobItem::default() });
        }
        content.finish()
    }

    #[test]
    fn equal_content_has_equal_numbers_and_other_content_others() {
        let first = of(&["a", "b"], &[1, 2, 3, 4, 5]);
        assert_eq!(first, of(&["a", "b"], &[5, 4, 3, 2, 1]));
        assert_ne!(first, of(&["b", "a"], &[1, 2, 3, 4, 5]));
        assert_ne!(first, of(&["ab"], &[1, 2, 3, 4, 5]));
        assert_ne!(first, of(&["a", "b"], &[1, 2, 3, 4]));
    }
}
