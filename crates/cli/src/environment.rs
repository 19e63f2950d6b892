//! Environment variables that look like settings and are none.

use std::env;

use anyhow::{Result, bail};
use clap::error::{ContextKind, ContextValue};

const PREFIX: &str = "WINDLASS_";
/// Variables that are read without being a setting of the command line.
const OTHERS: [&str; 5] = [
    "WINDLASS_LOG",
    "WINDLASS_TEST_PYTHON",
    "WINDLASS_TEST_ETCD_AWAY_S",
    "WINDLASS_SCHEDULES",
    "WINDLASS_FIRST_SCHEDULE",
];
/// How much a variable must resemble a known one to be taken for it, from 0 to 1.
const RESEMBLANCE: f64 = 0.8;
/// Most known variables that are proposed.
const PROPOSALS: usize = 3;

/// Says from which variable a value comes that the command line refuses, if it is that of one.
pub(crate) fn origin(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return None };
    let holds = |(name, set): &(String, String)| name.starts_with(PREFIX) && set == value;
    let set =
        env::vars_os().filter_map(|(name, set)| Some((name.into_string().ok()?, set.into_string().ok()?)));
    let names: Vec<_> = set.filter(holds).map(|(name, _)| name).collect();
    (!names.is_empty())
        .then(|| format!("'{value}' is the value of {} in the environment.", names.join(" and of ")))
}

/// Refuses variables that no command reads, as one that is misspelt.
pub(crate) fn check(command: &clap::Command) -> Result<()> {
    let set: Vec<_> = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    check_names(set.iter().map(String::as_str), &known(command))
}

fn check_names<'a>(set: impl Iterator<Item = &'a str>, known: &[String]) -> Result<()> {
    for name in set.filter(|name| name.starts_with(PREFIX)) {
        if !known.iter().any(|known| known == name) {
            bail!("the environment variable {name} is not known: {}", remedy(name, known));
        }
    }
    Ok(())
}

fn remedy(name: &str, known: &[String]) -> String {
    // What all have in common says nothing.
    let rest = |name: &str| name.trim_start_matches(PREFIX).to_owned();
    let resemblance = |known: &str| strsim::jaro_winkler(&rest(name), &rest(known));
    let mut close: Vec<_> = known.iter().map(|known| (resemblance(known), known.as_str())).collect();
    close.retain(|(resemblance, _)| *resemblance >= RESEMBLANCE);
    close.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<_> = close.into_iter().take(PROPOSALS).map(|(_, name)| name).collect();
    match names.as_slice() {
        [] => "unset it, --help lists those that are".to_owned(),
        names => format!("did you mean {}?", names.join(" or ")),
    }
}

/// The variables of a command and of all its subcommands.
fn known(command: &clap::Command) -> Vec<String> {
    let of_arguments = command.get_arguments().filter_map(clap::Arg::get_env);
    let mut names: Vec<_> = of_arguments.map(|name| name.to_string_lossy().into_owned()).collect();
    names.extend(command.get_subcommands().flat_map(known));
    names.extend(OTHERS.map(str::to_owned));
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        check_names([name].into_iter(), &known(&crate::command_line()))
            .map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn every_setting_is_known_and_so_is_what_is_none_of_ours() {
        for name in ["WINDLASS_MAX_LANES", "WINDLASS_WORKERS", "WINDLASS_LOG", "WINDLASS_LOG_FORMAT", "PATH"]
        {
            assert_eq!(message(name), "");
        }
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_closest_known_ones() {
        let lanes = message("WINDLASS_MAX_LANE");
        let expected =
            "the environment variable WINDLASS_MAX_LANE is not known: did you mean WINDLASS_MAX_LANES";
        assert!(lanes.starts_with(expected) && lanes.ends_with('?'), "{lanes}");
        let far = message("WINDLASS_QQQ");
        assert_eq!(
            far,
            "the environment variable WINDLASS_QQQ is not known: unset it, --help lists those that are"
        );
    }
}
