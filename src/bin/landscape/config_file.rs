//! Configuration files in TOML: each key is a flag without its dashes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Parser};
use loss_landscape::Error;
use loss_landscape::serde::{Serialize, Serializer};
use toml::{Table, Value};

use crate::output::write_text;

/// The parsed command line, and the flags given on it.
pub struct Parsed<C> {
    pub cli: C,
    /// Names of the flags on the command line, without those in the file.
    pub given: Vec<String>,
}

/// Parses the command line. Flags from the configuration file are inserted before the others, which override them.
pub fn parse<C: Parser>(
    command: &str,
    config: impl Fn(&C) -> Option<&Path>,
) -> Result<Parsed<C>, Error> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = C::command().get_matches_from(&arguments);
    let parsed =
        C::from_arg_matches(&matches).unwrap_or_else(|e| e.format(&mut C::command()).exit());
    let known = C::command();
    let given = given(&known, &matches);
    let Some(path) = config(&parsed) else {
        return Ok(Parsed { cli: parsed, given });
    };
    let wrong = |problem: String| Error::Invalid(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let table: Table = text.parse().map_err(|e| wrong(format!("{e}")))?;
    let at = arguments.iter().position(|argument| argument == command);
    let (before, after) = arguments.split_at(at.map_or(arguments.len(), |at| at + 1));
    let known = known.find_subcommand(command);
    let flags = flags(&table, known).map_err(wrong)?;
    let all = flags.iter().map(|(_, flag)| flag.clone());
    let file = [OsString::from("file"), command.into()].into_iter();
    // Parsed separately, so that an error names the file.
    if let Err(error) = C::try_parse_from(file.chain(all)) {
        let error = error.to_string();
        let error = error.split("\n\nFor more").next().unwrap_or_default();
        return Err(wrong(error.trim_start_matches("error: ").trim_end().into()));
    }
    let flags = flags
        .into_iter()
        .filter(|(key, _)| !is_overridden(known, key, &given));
    let flags: Vec<_> = flags.map(|(_, flag)| flag).collect();
    Ok(Parsed {
        cli: C::parse_from([before, &flags[..], after].concat()),
        given,
    })
}

/// Names of the flags on the command line.
fn given(known: &Command, matches: &ArgMatches) -> Vec<String> {
    let Some((name, matches)) = matches.subcommand() else {
        return Vec::new();
    };
    let arguments = known.find_subcommand(name).into_iter();
    let arguments = arguments.flat_map(Command::get_arguments);
    let given = arguments.filter(|argument| {
        let source = matches.value_source(argument.get_id().as_str());
        source == Some(ValueSource::CommandLine)
    });
    given
        .filter_map(|a| a.get_long().map(str::to_owned))
        .collect()
}

/// Whether a flag on the command line conflicts with this key and so replaces it.
fn is_overridden(command: Option<&Command>, key: &str, given: &[String]) -> bool {
    let find = |command: &Command, name: &str| {
        let mut arguments = command.get_arguments();
        arguments.find(|a| a.get_long() == Some(name)).cloned()
    };
    let conflict = |command: &Command, a: &str, b: &str| {
        let a = find(command, a)?;
        let mut others = command.get_arg_conflicts_with(&a).into_iter();
        others.find(|other| other.get_long() == Some(b)).map(drop)
    };
    command.is_some_and(|command| {
        let mut given = given.iter();
        given.any(|flag| {
            conflict(command, flag, key).is_some() || conflict(command, key, flag).is_some()
        })
    })
}

/// Turns each key of the file into a flag.
fn flags(table: &Table, command: Option<&Command>) -> Result<Vec<(String, OsString)>, String> {
    let names = command.into_iter().flat_map(Command::get_arguments);
    let names: Vec<&str> = names.filter_map(|a| a.get_long()).collect();
    let names = || names.iter().filter(|name| !OWN.contains(name));
    let mut flags = Vec::new();
    for (key, value) in table {
        if names().all(|name| name != key) {
            let all: Vec<&str> = names().copied().collect();
            let all = all.join(", ");
            return Err(format!("unknown key `{key}`: expected one of {all}"));
        }
        let text = match value {
            Value::Boolean(false) => continue,
            Value::Array(values) => {
                let values: Option<Vec<String>> = values.iter().map(plain).collect();
                values.map(|values| values.join(","))
            }
            value => plain(value),
        };
        let text = text.ok_or_else(|| format!("`{key}` cannot be of type {}", value.type_str()))?;
        flags.push((key.clone(), format!("--{key}={text}").into()));
    }
    Ok(flags)
}

/// Flags that cannot be keys.
const OWN: [&str; 4] = ["config", "json", "help", "version"];

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Writes the flags of a command to a file that [`parse`] reads.
pub fn write(path: &Path, settings: &impl Serialize) -> Result<(), Error> {
    let text = toml::to_string(settings).map_err(|e| Error::Invalid(format!("settings: {e}")))?;
    write_text(path, &text)
}

/// Serialises a seed: TOML integers are below 2⁶³, so larger seeds become strings.
pub fn seed<S: Serializer>(seed: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    match i64::try_from(*seed) {
        Ok(seed) => serializer.serialize_i64(seed),
        Err(_) => serializer.serialize_str(&seed.to_string()),
    }
}

/// Whether a path is not UTF-8 and so cannot be written to a file.
pub fn is_not_utf8(path: &Path) -> bool {
    path.to_str().is_none()
}

/// Whether a path is missing or not UTF-8.
#[allow(clippy::ref_option)] // serde's signature
pub fn is_missing_or_not_utf8(path: &Option<PathBuf>) -> bool {
    path.as_deref().is_none_or(is_not_utf8)
}
