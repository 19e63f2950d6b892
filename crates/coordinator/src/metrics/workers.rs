use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;

use windlass_proto::v1::LoadResponse;

use crate::registry::{Worker, WorkerState};

/// The workers' last reports in Prometheus' text format.
///
/// The numbers are the workers' own and can begin anew, and their histogram is complete already; so they are written
/// out here and do not pass through the recorder.
pub(crate) fn render_workers(workers: &[Arc<Worker>]) -> String {
    let reports: Vec<_> = workers.iter().filter_map(|worker| Report::of(worker)).collect();
    let mut page = Page::default();
    workers_by_state(&mut page, workers);
    models(&mut page, &reports);
    counters(&mut page, &reports);
    histogram(&mut page, &reports);
    page.text
}

/// What a worker whose heart beats reported last.
struct Report {
    worker: String,
    model: String,
    load: LoadResponse,
}

impl Report {
    fn of(worker: &Worker) -> Option<Self> {
        match worker.state() {
            WorkerState::Ready { model }
            | WorkerState::Draining { model }
            | WorkerState::Suspended { model } => {
                Some(Self { worker: worker.id.to_string(), model, load: worker.load() })
            }
            WorkerState::Unready { .. } => None,
        }
    }
}

fn workers_by_state(page: &mut Page, workers: &[Arc<Worker>]) {
    page.family("windlass_workers", "gauge", "Workers, by state");
    let states: Vec<_> = workers.iter().map(|worker| worker.state().name()).collect();
    for name in ["ready", "draining", "suspended", "unready"] {
        let count = states.iter().filter(|state| **state == name).count();
        page.sample("windlass_workers", &[("state", name)], count);
    }
}

fn models(page: &mut Page, reports: &[Report]) {
    let mut models: BTreeMap<&str, LoadResponse> = BTreeMap::new();
    for Report { model, load, .. } in reports {
        let sum = models.entry(model).or_default();
        sum.running += load.running;
        sum.waiting += load.waiting;
        sum.blocks_used += load.blocks_used;
        sum.blocks_total += load.blocks_total;
        sum.blocks_cached += load.blocks_cached;
    }
    let mut gauge = |name: &str, help: &str, value: fn(&LoadResponse) -> f64| {
        page.family(name, "gauge", help);
        for (model, load) in &models {
            page.sample(name, &[("model", model)], value(load));
        }
    };
    gauge("windlass_num_requests_running", "Requests in the workers' engines", |load| load.running.into());
    gauge("windlass_num_requests_waiting", "Requests in the workers' queues", |load| load.waiting.into());
    gauge("windlass_kv_cache_usage_perc", "Part of the K/V blocks in use, 1 for all", |load| {
        f64::from(load.blocks_used) / f64::from(load.blocks_total.max(1))
    });
    gauge(
        "windlass_kv_cache_blocks_cached",
        "K/V blocks that only keep prefixes for later requests",
        |load| load.blocks_cached.into(),
    );
}

fn counters(page: &mut Page, reports: &[Report]) {
    let mut counter = |name: &str, help: &str, value: fn(&LoadResponse) -> u64| {
        page.family(name, "counter", help);
        for Report { worker, load, .. } in reports {
            page.sample(name, &[("worker", worker)], value(load));
        }
    };
    counter("windlass_worker_ticks_total", "Ticks of the worker's engine", |load| load.ticks_total);
    counter("windlass_preemptions_total", "Requests put back to free memory, to go on later", |load| {
        load.preemptions_total
    });
    counter(
        "windlass_prefix_cache_queries_total",
        "Prompt positions looked up in the prefix cache",
        |load| load.prefix_query_positions_total,
    );
    counter("windlass_prefix_cache_hits_total", "Prompt positions found in the prefix cache", |load| {
        load.prefix_hit_positions_total
    });
    counter("windlass_drafts_total", "Positions that began on a guess of the token that they read", |load| {
        load.drafts_total
    });
    counter("windlass_drafts_kept_total", "Drafts that had read the token that came", |load| {
        load.drafts_kept_total
    });
    let name = "windlass_worker_rows_total";
    page.family(name, "counter", "Rows the worker ran, by phase of the tick");
    for Report { worker, load, .. } in reports {
        let phases = [
            ("prelude", load.prelude_rows_total),
            ("core", load.core_rows_total),
            ("coda", load.coda_rows_total),
        ];
        for (phase, rows) in phases {
            page.sample(name, &[("worker", worker), ("phase", phase)], rows);
        }
    }
}

fn histogram(page: &mut Page, reports: &[Report]) {
    let name = "windlass_core_rows_per_tick";
    page.family(name, "histogram", "Rows in one core launch");
    for Report { worker, load, .. } in reports {
        let mut count = 0;
        let bounds = load.core_rows_bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, ticks) in bounds.zip(&load.core_rows_histogram) {
            count += ticks;
            page.sample(&format!("{name}_bucket"), &[("worker", worker), ("le", &bound)], count);
        }
        page.sample(&format!("{name}_sum"), &[("worker", worker)], load.core_rows_total);
        page.sample(&format!("{name}_count"), &[("worker", worker)], count);
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes any text");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_with_all_ticks() {
        let load = LoadResponse {
            core_rows_bounds: vec![1, 8],
            core_rows_histogram: vec![2, 3, 4],
            core_rows_total: 60,
            ..LoadResponse::default()
        };
        let report = Report { worker: "a:1".into(), model: "m".into(), load };
        let mut page = Page::default();
        histogram(&mut page, &[report]);
        let samples: Vec<_> = page.text.lines().skip(2).collect();
        assert_eq!(
            samples,
            [
                r#"windlass_core_rows_per_tick_bucket{worker="a:1",le="1"} 2"#,
                r#"windlass_core_rows_per_tick_bucket{worker="a:1",le="8"} 5"#,
                r#"windlass_core_rows_per_tick_bucket{worker="a:1",le="+Inf"} 9"#,
                r#"windlass_core_rows_per_tick_sum{worker="a:1"} 60"#,
                r#"windlass_core_rows_per_tick_count{worker="a:1"} 9"#,
            ]
        );
    }

    #[test]
    fn what_the_workers_count_is_written_out_by_worker_or_model() {
        let load = LoadResponse {
            blocks_cached: 7,
            preemptions_total: 3,
            prefix_query_positions_total: 50,
            prefix_hit_positions_total: 20,
            drafts_total: 9,
            drafts_kept_total: 8,
            ..LoadResponse::default()
        };
        let report = |worker: &str| Report { worker: worker.into(), model: "m".into(), load: load.clone() };
        let mut page = Page::default();
        models(&mut page, &[report("a:1"), report("b:2")]);
        counters(&mut page, &[report("a:1")]);
        for sample in [
            r#"windlass_kv_cache_blocks_cached{model="m"} 14"#,
            r#"windlass_preemptions_total{worker="a:1"} 3"#,
            r#"windlass_prefix_cache_queries_total{worker="a:1"} 50"#,
            r#"windlass_prefix_cache_hits_total{worker="a:1"} 20"#,
            r#"windlass_drafts_total{worker="a:1"} 9"#,
            r#"windlass_drafts_kept_total{worker="a:1"} 8"#,
        ] {
            assert!(page.text.lines().any(|line| line == sample), "no {sample} in {}", page.text);
        }
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escape("a\"b\\c\n"), "a\\\"b\\\\c\\n");
    }
}
