use std::hash::{DefaultHasher, Hash, Hasher};

use windlass_proto::v1::{ModelInfo, TokenizerResponse};

/// What a worker introduced itself with. Workers of equal identity answer every request alike.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    pub(crate) info: ModelInfo,
    /// Of the tokenizer's files, which are too large to keep for each worker.
    files: u64,
}

impl Identity {
    pub(crate) fn new(info: ModelInfo, files: &TokenizerResponse) -> Self {
        let mut hasher = DefaultHasher::new();
        files.tokenizer_json.hash(&mut hasher);
        files.tokenizer_config_json.hash(&mut hasher);
        Self { info, files: hasher.finish() }
    }

    /// Why a worker of this identity cannot serve beside those of `known`, which has the same name.
    pub(super) fn difference(&self, known: &Self) -> String {
        let (ours, theirs) = (&self.info.fingerprint, &known.info.fingerprint);
        let name = &self.info.name;
        if self.info.simulated != known.info.simulated {
            let (it, others) =
                if self.info.simulated { ("simulates", "compute") } else { ("computes", "simulate") };
            return format!(
                "it {it} model '{name}', and the other workers {others} it; use another name or cluster"
            );
        }
        let difference = if ours == theirs {
            let what = self.differing(known).join(", ");
            format!("for model '{name}' these differ from those of the other workers: {what}")
        } else {
            format!(
                "its model '{name}' has fingerprint {ours}, that of the other workers {theirs}: weights, config, arithmetic, tp, latent seed, prefill segment or build differ"
            )
        };
        format!("{difference}; serve the same model folder with the same settings, or use another name")
    }

    /// What is another than in `known`, besides the fingerprint, with both values where they are short.
    fn differing(&self, known: &Self) -> Vec<String> {
        let (ours, theirs) = (&self.info, &known.info);
        let numbers = [
            ("max_depth", ours.max_depth, theirs.max_depth),
            ("context_length", ours.context_length, theirs.context_length),
            ("default_depth", ours.default_depth, theirs.default_depth),
        ];
        let numbers = numbers.into_iter().filter(|(_, ours, theirs)| ours != theirs);
        let mut what: Vec<_> =
            numbers.map(|(name, ours, theirs)| format!("{name} {ours}, not {theirs}")).collect();
        if (&ours.efforts, &ours.default_effort) != (&theirs.efforts, &theirs.default_effort) {
            what.push("the efforts".into());
        }
        if self.files != known.files {
            what.push("the tokenizer's files".into());
        }
        if what.is_empty() {
            what.push("what its Info says".into());
        }
        what
    }
}

/// The identity that most of these have; of several, the one that comes first.
pub(super) fn most_common<'a>(identities: &[&'a Identity]) -> Option<&'a Identity> {
    let count = |identity: &Identity| identities.iter().filter(|other| **other == identity).count();
    // `max_by_key` takes the last of equals.
    identities.iter().rev().max_by_key(|identity| count(identity)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(fingerprint: &str, files: u8) -> Identity {
        let info = ModelInfo { fingerprint: fingerprint.into(), ..ModelInfo::default() };
        Identity::new(
            info,
            &TokenizerResponse { tokenizer_json: vec![files], ..TokenizerResponse::default() },
        )
    }

    #[test]
    fn the_first_of_the_most_common_leads() {
        let (a, b, c) = (identity("a", 0), identity("b", 0), identity("c", 0));
        assert_eq!(most_common(&[]), None);
        assert_eq!(most_common(&[&a, &b, &c]), Some(&a));
        assert_eq!(most_common(&[&a, &b, &c, &b]), Some(&b));
        assert_eq!(most_common(&[&c, &b, &b, &c]), Some(&c));
    }

    #[test]
    fn a_difference_names_both_fingerprints_or_what_else_differs() {
        let (a, b) = (identity("a", 0), identity("b", 0));
        assert!(
            b.difference(&a).contains("fingerprint b, that of the other workers a"),
            "{}",
            b.difference(&a)
        );
        assert!(b.difference(&a).contains("weights, config, arithmetic"));
        let tokenizer = identity("a", 1).difference(&a);
        assert!(tokenizer.contains("the other workers: the tokenizer's files;"), "{tokenizer}");
        let mut simulated = identity("simulated-a", 0);
        simulated.info.simulated = true;
        assert!(
            simulated.difference(&a).starts_with("it simulates model '', and the other workers compute it")
        );
        let mut deeper = identity("a", 0);
        deeper.info.max_depth = 9;
        let limits = deeper.difference(&a);
        assert!(limits.contains("the other workers: max_depth 9, not 0;"), "{limits}");
        assert_ne!(identity("a", 1), a);
    }
}
