use std::collections::BTreeMap;

/// After this many tokens the mean follows the newer ones.
const MEAN_TOKENS: f64 = 10_000.0;
/// Policies learned at most; clients choose thresholds as they like.
const POLICIES: usize = 256;

/// An adaptive depth policy: which exits are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DepthPolicyKey {
    pub(crate) criterion: i32,
    /// As bits, or `None` for the criterion's own.
    pub(crate) threshold: Option<u64>,
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) every: u32,
}

/// Mean depth at which tokens stopped, by adaptive policy.
#[derive(Debug, Default)]
pub(crate) struct DepthEstimates {
    means: BTreeMap<DepthPolicyKey, Mean>,
}

#[derive(Debug)]
struct Mean {
    value: f64,
    weight: f64,
}

impl DepthEstimates {
    /// The mean so far; the maximum before the first token.
    pub(crate) fn expected(&self, policy: DepthPolicyKey) -> f64 {
        self.means.get(&policy).map_or(f64::from(policy.max), |mean| mean.value)
    }

    /// Takes note of `tokens` tokens that took `core_iterations` in all.
    pub(crate) fn observe(&mut self, policy: DepthPolicyKey, tokens: u32, core_iterations: u64) {
        if tokens == 0 {
            return;
        }
        if self.means.len() >= POLICIES && !self.means.contains_key(&policy) {
            self.forget_the_rarest();
        }
        let mean = self.means.entry(policy).or_insert(Mean { value: f64::from(policy.max), weight: 1.0 });
        let tokens = f64::from(tokens);
        mean.value = (mean.value * mean.weight + core_iterations as f64) / (mean.weight + tokens);
        mean.weight = (mean.weight + tokens).min(MEAN_TOKENS);
    }

    fn forget_the_rarest(&mut self) {
        let rarest =
            self.means.iter().min_by(|a, b| a.1.weight.total_cmp(&b.1.weight)).map(|(policy, _)| *policy);
        if let Some(policy) = rarest {
            self.means.remove(&policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max: u32) -> DepthPolicyKey {
        DepthPolicyKey { criterion: 1, threshold: None, min: 1, max, every: 1 }
    }

    #[test]
    fn expected_depth_starts_at_the_maximum_and_approaches_what_is_seen() {
        let mut depths = DepthEstimates::default();
        assert_eq!(depths.expected(policy(32)), 32.0);
        depths.observe(policy(32), 31, 31 * 8);
        assert_eq!(depths.expected(policy(32)), (32.0 + 31.0 * 8.0) / 32.0);
        depths.observe(policy(32), 1_000_000, 4_000_000);
        assert!((depths.expected(policy(32)) - 4.0).abs() < 0.1);
    }

    #[test]
    fn each_policy_is_learned_by_itself() {
        let mut depths = DepthEstimates::default();
        depths.observe(policy(32), 1000, 4000);
        let stricter = DepthPolicyKey { threshold: Some(0.001_f64.to_bits()), ..policy(32) };
        let other = DepthPolicyKey { criterion: 2, ..policy(32) };
        for unseen in [stricter, other, DepthPolicyKey { every: 4, ..policy(32) }] {
            assert_eq!(depths.expected(unseen), 32.0);
        }
    }

    #[test]
    fn ever_new_policies_do_not_take_ever_more_memory() {
        let mut depths = DepthEstimates::default();
        depths.observe(policy(32), 1000, 4000);
        for threshold in 0..1000 {
            depths.observe(DepthPolicyKey { threshold: Some(threshold), ..policy(32) }, 1, 2);
        }
        assert_eq!(depths.means.len(), POLICIES);
        assert!(depths.expected(policy(32)) < 5.0, "what is seen often is kept");
    }
}
