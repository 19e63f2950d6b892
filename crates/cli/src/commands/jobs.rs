//! `windlass jobs`: many prompts, results later.

mod results;
mod show;
mod submit;
mod watch;

use std::io::{Write, stdout};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use windlass_client::Client;

use crate::connection_options::ConnectionOptions;
use show::{job_json, show, table};
use submit::SubmitArguments;

/// Submits jobs of many prompts to a coordinator, watches them and fetches their results
///
/// A job that was accepted is finished, whoever dies. Exit status: 0 if what was asked for was done; 1 if not, and where a job
/// is waited for (submit --wait, watch) also if it failed, was cancelled or has items with errors.
#[derive(Debug, Args)]
pub(crate) struct JobsArguments {
    /// Address of the coordinator's gRPC service
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8001",
        env = "WINDLASS_ADDRESS"
    )]
    address: String,
    /// Write JSON: one object per job, or one per result
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionOptions,
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    Submit(SubmitArguments),
    /// Lists jobs, newest first
    List {
        /// Most jobs to list
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Shows one job
    Get {
        /// The job
        id: String,
    },
    /// Ends a job; what is done of it stays
    Cancel {
        /// The job
        id: String,
    },
    /// Writes the results as JSON lines in input order, as they come; ends with the job
    Results {
        /// The job
        id: String,
        /// Go on behind this item: the index of a result that was read before
        #[arg(long, value_name = "TOKEN", default_value = "")]
        resume: String,
        /// File to write to, which is replaced [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
    /// Shows how a job goes on, until it has ended
    Watch {
        /// The job
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(arguments: JobsArguments) -> Result<()> {
    let JobsArguments { address, json, connection, command } = arguments;
    let client = connection.grpc_client(&address).await?;
    match command {
        JobsCommand::Submit(submission) => submit::run(&client, submission, json).await,
        JobsCommand::List { limit } => list(&client, limit, json).await,
        JobsCommand::Get { id } => show(&client.get_job(&id).await?, json),
        JobsCommand::Cancel { id } => show(&client.cancel_job(&id).await?, json),
        JobsCommand::Results { id, resume, output } => {
            results::fetch(&client, &id, &resume, output.as_deref()).await
        }
        JobsCommand::Watch { id } => watch::to_the_end(&client, &id, json).await,
    }
}

async fn list(client: &Client, limit: u32, json: bool) -> Result<()> {
    let (jobs, _) = client.list_jobs(Some(limit), "").await?;
    if json {
        for job in &jobs {
            writeln!(stdout(), "{}", job_json(job))?;
        }
    } else if jobs.is_empty() {
        bail!("there are no jobs");
    } else {
        writeln!(stdout(), "{}", table(&jobs))?;
    }
    Ok(())
}
