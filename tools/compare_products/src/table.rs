//! Results as Markdown: one table for each weight, type and number of threads, M by M.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// The order of columns; whoever else there is comes after.
const ORDER: [&str; 9] =
    ["windlass", "onednn", "mkl", "openblas", "faer", "gemm", "candle", "torch", "torch-packed"];

/// Contestants whose bar is lower where M is above 16.
const LENIENT: [&str; 1] = ["onednn"];
/// Contestants that are shown but are in no bar.
const FOR_INFORMATION: [&str; 1] = ["torch-packed"];

type Group = (String, u64, u64, u64, u64);

/// Markdown of result lines; of several lines for one thing the median counts.
pub fn markdown(lines: &[Value]) -> String {
    let mut groups: BTreeMap<Group, BTreeMap<u64, BTreeMap<String, Vec<f64>>>> = BTreeMap::new();
    let mut details: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for line in lines {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| line[field].as_u64().unwrap_or_default();
        let Some(gops) = line["gops"].as_f64() else { continue };
        let group = (
            text("kind"),
            number("inputs"),
            number("outputs"),
            number("threads"),
            u64::from(number("copies") > 1),
        );
        let cells = groups.entry(group).or_default().entry(number("rows")).or_default();
        cells.entry(text("contestant")).or_default().push(gops);
        let seen = details.entry((text("kind"), text("contestant"))).or_default();
        if !seen.contains(&text("detail")) {
            seen.push(text("detail"));
        }
    }
    let mut out = String::new();
    let mut misses: Vec<(f64, String)> = Vec::new();
    let mut bars = 0;
    for ((kind, inputs, outputs, threads, many), rows) in &groups {
        let state = if *many == 1 { "weights beyond L2" } else { "one weight, again and again" };
        let plural = if *threads == 1 { "thread" } else { "threads" };
        let mut names: Vec<&String> = Vec::new();
        rows.values().for_each(|cells| names.extend(cells.keys()));
        let place = |name: &&String| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len());
        names.sort_by_key(|name| (place(name), (*name).clone()));
        names.dedup();
        let title = format!("{outputs}×{inputs}, {kind}, {threads} {plural}");
        let _ = writeln!(out, "\n{title} ({state})\n");
        let _ = writeln!(out, "| M | {} |", names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(" | "));
        let _ = writeln!(out, "|---|{}", "---|".repeat(names.len()));
        for (m, cells) in rows {
            let windlass = cells.get("windlass").map(|values| median(values));
            let _ = write!(out, "| {m} |");
            for name in &names {
                let Some(gops) = cells.get(*name).map(|values| median(values)) else {
                    let _ = write!(out, " |");
                    continue;
                };
                let _ = write!(out, " {}", figure(gops));
                match windlass {
                    Some(windlass) if *name != "windlass" => {
                        let ratio = windlass / gops;
                        let bar = if LENIENT.contains(&name.as_str()) && *m > 16 { 0.95 } else { 1.0 };
                        let counts = !FOR_INFORMATION.contains(&name.as_str());
                        let met = ratio >= bar || !counts;
                        bars += usize::from(counts);
                        if !met {
                            misses.push((ratio / bar, format!("{title}, M = {m}, {name}: {ratio:.2}")));
                        }
                        let mark = if met { "" } else { " ✗" };
                        let _ = write!(out, " ({ratio:.2}{mark}) |");
                    }
                    _ => {
                        let gb = gops / (2.0 * *m as f64) * if kind == "bf16" { 2.0 } else { 4.0 };
                        let _ = write!(out, " ({} GB/s) |", figure(gb));
                    }
                }
            }
            out.push('\n');
        }
    }
    misses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let _ = writeln!(out, "\n{} of {bars} ratios meet their bar.", bars - misses.len());
    for (_, miss) in misses.iter().take(12) {
        let _ = writeln!(out, "- {miss}");
    }
    let _ = writeln!(out, "\nWhat each did:\n");
    for ((kind, name), seen) in &details {
        let _ = writeln!(out, "- {name}, {kind}: {}", seen.join("; "));
    }
    out
}

fn figure(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
