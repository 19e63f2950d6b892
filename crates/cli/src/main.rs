//! The program `windlass`: serves recurrent-depth language models, and talks to servers of them.
//!
//! Reads arguments and settings, starts what the other crates offer, and shows results. Knows nothing of how a
//! request is served.

mod commands;
mod config;
mod connection_options;
mod counted;
mod depth_strip;
mod device_options;
mod environment;
mod load_bar;
mod logging;
mod policy_argument;
mod process;
mod puzzles;
mod report;
mod split;
mod table;
mod text_files;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use commands::bench::BenchArguments;
use commands::chat::ChatArguments;
use commands::coordinator::CoordinatorArguments;
use commands::demo::DemoArguments;
use commands::doctor::DoctorArguments;
use commands::generate::GenerateArguments;
use commands::jobs::JobsArguments;
use commands::keys::KeysArguments;
use commands::rank::RankArguments;
use commands::serve::ServeArguments;
use commands::worker::WorkerArguments;
use commands::workers::WorkersArguments;
use logging::LogFormat;

/// Serves recurrent-depth language models: every token takes as many core iterations as it needs.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    after_help = "The environment variable WINDLASS_LOG says what to log, such as debug or \
                  info,windlass_worker=debug [default: info for servers, warn otherwise]. NO_COLOR turns colours off."
)]
struct Arguments {
    /// How lines of the log look, on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "WINDLASS_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(DemoArguments),
    Serve(Box<ServeArguments>),
    Worker(Box<WorkerArguments>),
    Rank(Box<RankArguments>),
    Coordinator(Box<CoordinatorArguments>),
    Workers(WorkersArguments),
    Generate(GenerateArguments),
    Chat(ChatArguments),
    Keys(KeysArguments),
    Jobs(JobsArguments),
    Bench(BenchArguments),
    Doctor(DoctorArguments),
}

fn main() -> ExitCode {
    #[cfg(feature = "cuda")]
    windlass_kernels::cuda::prepare();
    let matches = command_line().try_get_matches().unwrap_or_else(|error| refuse(&error));
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| refuse(&error));
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed too; the exit status still says it.
            let _ = writeln!(io::stderr(), "error: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// The command line, on which `-1` after an option is its value, so that an error names the option.
/// Shows what is wrong with the command line, or the help that was asked for, and exits.
fn refuse(error: &clap::Error) -> ! {
    // Standard error may be closed; the exit status still says it.
    let _ = error.print();
    if let Some(note) = environment::origin(error) {
        let _ = writeln!(io::stderr(), "{note}");
    }
    std::process::exit(error.exit_code())
}

fn command_line() -> clap::Command {
    with_negatives(Arguments::command())
}

fn with_negatives(command: clap::Command) -> clap::Command {
    let argument_with_negatives = |argument: Arg| {
        let takes_values = argument.get_action().takes_values();
        argument.allow_negative_numbers(takes_values)
    };
    command.mut_args(argument_with_negatives).mut_subcommands(with_negatives)
}

fn run(arguments: Arguments) -> Result<()> {
    let is_server = matches!(
        arguments.command,
        Command::Serve(_) | Command::Worker(_) | Command::Rank(_) | Command::Coordinator(_)
    );
    if is_server {
        environment::check(&command_line())?;
    }
    logging::start(arguments.log_format, if is_server { "info" } else { "warn" })?;
    let result = match arguments.command {
        Command::Demo(arguments) => on_runtime(commands::demo::run(arguments)),
        Command::Serve(arguments) => on_runtime(commands::serve::run(*arguments)),
        Command::Worker(arguments) => on_runtime(commands::worker::run(*arguments)),
        Command::Rank(arguments) => on_runtime(commands::rank::run(*arguments)),
        Command::Coordinator(arguments) => on_runtime(commands::coordinator::run(*arguments)),
        Command::Workers(arguments) => on_runtime(commands::workers::run(arguments)),
        Command::Generate(arguments) => commands::generate::run(&arguments),
        Command::Chat(arguments) => on_runtime(commands::chat::run(arguments)),
        Command::Keys(arguments) => commands::keys::run(&arguments),
        Command::Jobs(arguments) => on_runtime(commands::jobs::run(arguments)),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
    };
    match result {
        // Whoever read the output has had enough.
        Err(error) if !is_server && is_closed_pipe(&error) => Ok(()),
        result => result,
    }
}

/// Whether the command's own output was closed; a broken connection lies deeper in the chain of causes.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn on_runtime(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(command);
    // What still blocks, such as a read from a terminal, ends with the process.
    runtime.shutdown_background();
    result
}

/// The error and its causes, each unless the one before said it already.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !last.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
            last = cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command_line().debug_assert();
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let inner = std::io::Error::other("no such file");
        let error =
            anyhow::Error::new(inner).context("a cannot be read: no such file").context("cannot start");
        assert_eq!(with_causes(&error), "cannot start: a cannot be read: no such file");
    }
}
