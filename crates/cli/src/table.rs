//! Tables, and a demo report as tables.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use crate::report::{PolicyReport, Report, SizeReport};

/// A line above, below and under the header.
const STYLE: TableStyle = TableStyle::new().top_border(LINE).header_separator(LINE).bottom_border(LINE);
const LINE: LineStyle = LineStyle::none().fill('─').junction('─');

/// Accuracy by kind and size, a column per policy. The first policy's depth is shown too: the others' is fixed.
pub(crate) fn by_size(report: &Report) -> Table {
    let [first, others @ ..] = report.policies.as_slice() else { return Table::new() };
    let mut header =
        vec!["puzzle".into(), "size".into(), "count".into(), first.policy.clone(), "mean depth".into()];
    header.extend(others.iter().map(|policy| policy.policy.clone()));
    let mut table = table(header);
    for (row, size) in first.sizes.iter().enumerate() {
        let SizeReport { kind, size, puzzles, accuracy, mean_depth, .. } = size;
        let mut cells = vec![
            (*kind).to_owned(),
            size.to_string(),
            puzzles.to_string(),
            percent(*accuracy),
            format!("{mean_depth:.1}"),
        ];
        cells.extend(others.iter().map(|policy| percent(policy.sizes[row].accuracy)));
        table.add_row(cells);
    }
    align(&mut table);
    table
}

/// What each policy cost.
pub(crate) fn by_policy(report: &Report) -> Table {
    let header = ["policy", "accuracy", "mean depth", "tokens/s", "core iterations", "saved"];
    let mut table = table(header.map(str::to_owned).to_vec());
    for policy in &report.policies {
        let PolicyReport { accuracy, mean_depth, tokens_per_second, core_iterations, .. } = policy;
        let full = policy.core_iterations as i64 + policy.core_iterations_saved;
        table.add_row([
            policy.policy.clone(),
            percent(*accuracy),
            format!("{mean_depth:.1}"),
            format!("{tokens_per_second:.0}"),
            core_iterations.to_string(),
            percent(policy.core_iterations_saved as f64 / full.max(1) as f64),
        ]);
    }
    align(&mut table);
    table
}

/// An empty table in the program's style.
pub(crate) fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    table
}

/// Numbers to the right, names to the left.
pub(crate) fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.0} %", 100.0 * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, accuracy: f64) -> PolicyReport {
        let size =
            SizeReport { kind: "chain", size: 3, puzzles: 20, correct: 19, accuracy, mean_depth: 7.25 };
        PolicyReport {
            policy: name.to_owned(),
            accuracy,
            mean_depth: 7.25,
            tokens: 40,
            seconds: 0.5,
            tokens_per_second: 80.0,
            core_iterations: 290,
            core_iterations_saved: 350,
            sizes: vec![size],
        }
    }

    #[test]
    fn every_policy_has_its_column_and_its_row() {
        let policies = vec![policy("adaptive", 0.95), policy("depth 1", 0.1)];
        let report =
            Report { model: "demo".into(), workers: 2, puzzles: 20, seed: 1, full_depth: 16, policies };
        let sizes = by_size(&report).to_string();
        assert!(
            sizes.contains("chain")
                && sizes.contains("95 %")
                && sizes.contains("10 %")
                && sizes.contains("7.2")
        );
        let policies = by_policy(&report).to_string();
        assert!(
            policies.contains("depth 1") && policies.contains("55 %") && policies.contains("290"),
            "{policies}"
        );
    }
}
