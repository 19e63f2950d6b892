//! `windlass keys`: API keys for coordinators.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use windlass_coordinator::api_key_entry;

/// Random bytes of a key: beyond guessing.
const KEY_BYTES: usize = 32;

/// Makes API keys for coordinators
#[derive(Debug, Args)]
pub(crate) struct KeysArguments {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    Generate(GenerateArguments),
}

/// Makes a key and shows it once, with what to add to the coordinator's file of keys
///
/// Nothing is stored: the file holds the key's SHA-256 only.
#[derive(Debug, Args)]
struct GenerateArguments {
    /// Whose key it is, for metrics and messages; each key of a file has its own
    #[arg(long, value_name = "NAME")]
    name: String,
    /// May drain workers too, and sees and ends everyone's jobs
    #[arg(long)]
    admin: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &KeysArguments) -> Result<()> {
    let KeysCommand::Generate(GenerateArguments { name, admin }) = &arguments.command;
    let key = random_key()?;
    let entry = api_key_entry(name, &key, *admin)?;
    writeln!(
        stdout(),
        "API key of {name}, shown only here: {key}\n\nAdd to the file that api_keys_file names:\n\n{entry}"
    )?;
    Ok(())
}

fn random_key() -> Result<String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    let mut key = "wl-".to_owned();
    for byte in bytes {
        write!(key, "{byte:02x}")?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_the_same() {
        let (one, other) = (random_key().unwrap(), random_key().unwrap());
        assert!(one.starts_with("wl-") && one.len() == 67 && one != other);
    }
}
