//! `windlass bench`: measurements on this machine, without a server.

mod cluster;
mod depths;
mod engine;
mod measure;
mod memory;
mod mode;
mod outcome;
mod pipeline;
mod progress;
mod rates;
mod report;
mod shape;
mod show;
mod trace;
mod work;
mod workload;

use anyhow::Result;
use clap::{Args, Subcommand};

use cluster::ClusterArguments;
use engine::EngineArguments;
pub(crate) use memory::free_memory;
use pipeline::PipelineArguments;

/// Measures this machine, without a server
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    Engine(Box<EngineArguments>),
    Cluster(ClusterArguments),
    Pipeline(Box<PipelineArguments>),
}

/// Runs the command.
pub(crate) fn run(arguments: &BenchArguments) -> Result<()> {
    match &arguments.command {
        BenchCommand::Engine(arguments) => engine::run(arguments),
        BenchCommand::Pipeline(arguments) => pipeline::run(arguments),
        BenchCommand::Cluster(arguments) => crate::on_runtime(cluster::run(arguments)),
    }
}
