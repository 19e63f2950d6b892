//! `windlass demo`: a small cluster on this machine, and what it makes of some puzzles.

mod cluster;
mod run;

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use clap::Args;
use windlass_client::Depth;
use windlass_coordinator::text::Tokenizer;
use windlass_model::ModelFolder;

use crate::counted::counted;
use crate::depth_strip::DepthStrip;
use crate::process::shutdown_signal;
use crate::puzzles::mixed;
use crate::report::{Outcome, PolicyReport, Report};
use crate::table;
use crate::text_files::tokenizer;
use cluster::Cluster;
use run::Runner;

/// Workers of the cluster, of one thread each.
const WORKERS: usize = 2;

/// Starts a coordinator and two workers on this machine and has them solve puzzles at several depths
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// How many puzzles to solve at each depth
    #[arg(long, value_name = "N", default_value_t = 364, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    puzzles: u32,
    /// Seed of the puzzles
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Write the tables as one JSON object, and nothing else
    #[arg(long)]
    json: bool,
    /// Go on serving until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    keep: bool,
}

/// Runs the command.
pub(crate) async fn run(arguments: DemoArguments) -> Result<()> {
    let cluster = Cluster::start(WORKERS).await?;
    let client = cluster.client().await?;
    let model = client.list_models().await?.into_iter().next().context("the cluster serves no model")?;
    let full = model.default_depth;
    let puzzles = mixed(arguments.seed, arguments.puzzles);
    let policies = [
        ("adaptive".to_owned(), Depth::Effort(model.default_effort.clone())),
        ("depth 1".to_owned(), Depth::Fixed(1)),
        ("depth 4".to_owned(), Depth::Fixed(4)),
        (format!("full ({full})"), Depth::Fixed(full)),
    ];
    let runner = Runner::new(client, puzzles, policies.len());
    let (mut reports, mut samples) = (Vec::new(), Vec::new());
    for (name, depth) in policies {
        let (outcomes, seconds) = runner.solve(&name, depth).await?;
        reports.push(PolicyReport::new(name, &outcomes, seconds, full));
        if samples.is_empty() {
            samples = outcomes;
        }
    }
    runner.finish();
    let puzzles = samples.len();
    let report = Report {
        model: model.name,
        workers: WORKERS,
        puzzles,
        seed: arguments.seed,
        full_depth: full,
        policies: reports,
    };
    if arguments.json {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        show(&report, &samples)?;
    }
    if arguments.keep {
        keep(&cluster).await?;
    }
    cluster.stop().await
}

fn show(report: &Report, samples: &[Outcome]) -> Result<()> {
    let mut stdout = stdout();
    let Report { model, workers, puzzles, seed, full_depth, .. } = report;
    writeln!(
        stdout,
        "{} (seed {seed}) by model {model} on {workers} workers, whole answers right:\n",
        counted(*puzzles, "puzzle")
    )?;
    writeln!(stdout, "{}\n", table::by_size(report))?;
    writeln!(stdout, "{}\n", table::by_policy(report))?;
    writeln!(
        stdout,
        "Depth: core iterations per generated token. Prompt positions always run to the policy's maximum, and with\n\
         them an answer's first token. Saved: of the iterations these tokens take at depth {full_depth}.\n"
    )?;
    let folder = ModelFolder::demo();
    let tokenizer = tokenizer(&folder)?.context("the demo model has no tokenizer")?;
    let strip = DepthStrip::new(&stdout, *full_depth);
    for outcome in chosen(samples) {
        writeln!(stdout, "{}", sample(outcome, &tokenizer, strip))?;
    }
    Ok(())
}

/// The longest answer of every third size.
fn chosen(outcomes: &[Outcome]) -> Vec<&Outcome> {
    let mut best: Vec<&Outcome> = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.puzzle.size % 3 == 1) {
        let size = |outcome: &Outcome| (outcome.puzzle.kind, outcome.puzzle.size);
        match best.iter_mut().find(|other| size(other) == size(outcome)) {
            Some(other) if other.tokens.len() < outcome.tokens.len() => *other = outcome,
            Some(_) => {}
            None => best.push(outcome),
        }
    }
    best
}

/// One line: the puzzle, its answer token by token, and whether that is right.
fn sample(outcome: &Outcome, tokenizer: &Tokenizer, strip: DepthStrip) -> String {
    let text = |id| if tokenizer.is_special(id) { "end".to_owned() } else { tokenizer.token_text(id) };
    let texts: Vec<String> = outcome.tokens.iter().map(|(id, _)| text(*id)).collect();
    let cells =
        strip.strip(texts.iter().map(String::as_str).zip(outcome.tokens.iter().map(|(_, depth)| *depth)));
    let verdict = if outcome.is_correct() {
        "right".to_owned()
    } else {
        format!("wrong, the answer is {}", outcome.puzzle.answer)
    };
    format!("{} {cells} {verdict}", outcome.puzzle.prompt)
}

/// Serves until Ctrl-C.
async fn keep(cluster: &Cluster) -> Result<()> {
    let body = r#"{"prompt": "7+5-3*2=", "max_tokens": 4, "temperature": 0, "return_depths": true}"#;
    let mut stdout = stdout();
    writeln!(stdout, "\nserving until Ctrl-C, gRPC at {}; try:\n", cluster.grpc())?;
    writeln!(
        stdout,
        "curl -s http://{}/v1/completions -H 'content-type: application/json' -d '{body}'",
        cluster.http()
    )?;
    stdout.flush()?;
    shutdown_signal(false)?.await;
    Ok(())
}
