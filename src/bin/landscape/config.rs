//! Files that say what flags say: in TOML, a key for each flag, without its dashes.

use std::ffi::OsString;
use std::path::Path;

use clap::{Command, Parser};
use loss_landscape::Error;
use loss_landscape::serde::Serialize;
use toml::{Table, Value};

use crate::output::write_text;

/// The command line with the flags of its configuration file, if it names one, before its own, which so override them.
pub fn parse<C: Parser>(command: &str, config: impl Fn(&C) -> Option<&Path>) -> Result<C, Error> {
    let given: Vec<OsString> = std::env::args_os().collect();
    let parsed = C::parse_from(&given);
    let Some(path) = config(&parsed) else {
        return Ok(parsed);
    };
    let wrong = |problem: String| Error::Invalid(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let table: Table = text.parse().map_err(|e| wrong(format!("{e}")))?;
    let at = given.iter().position(|argument| argument == command);
    let (before, after) = given.split_at(at.map_or(given.len(), |at| at + 1));
    let known = C::command();
    let flags = flags(&table, known.find_subcommand(command)).map_err(wrong)?;
    let file = [OsString::from("file"), command.into()].into_iter();
    // By themselves, so that an error says where it comes from.
    if let Err(error) = C::try_parse_from(file.chain(flags.iter().cloned())) {
        let error = error.to_string();
        let error = error.split("\n\nFor more").next().unwrap_or_default();
        return Err(wrong(error.trim_start_matches("error: ").trim_end().into()));
    }
    Ok(C::parse_from([before, &flags[..], after].concat()))
}

fn flags(table: &Table, command: Option<&Command>) -> Result<Vec<OsString>, String> {
    let names = command.into_iter().flat_map(Command::get_arguments);
    let names: Vec<&str> = names.filter_map(|a| a.get_long()).collect();
    let names = || names.iter().filter(|name| !OWN.contains(name));
    let mut flags = Vec::new();
    for (key, value) in table {
        if names().all(|name| name != key) {
            let all: Vec<&str> = names().copied().collect();
            let all = all.join(", ");
            return Err(format!("there is no key `{key}`: there are {all}"));
        }
        let text = match value {
            Value::Boolean(true) => {
                flags.push(format!("--{key}").into());
                continue;
            }
            Value::Boolean(false) => continue,
            Value::Array(values) => {
                let values: Option<Vec<String>> = values.iter().map(plain).collect();
                values.map(|values| values.join(","))
            }
            value => plain(value),
        };
        let text = text.ok_or_else(|| format!("`{key}` cannot be {}", value.type_str()))?;
        flags.push(format!("--{key}={text}").into());
    }
    Ok(flags)
}

/// Flags that are no keys.
const OWN: [&str; 4] = ["config", "json", "help", "version"];

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Writes the flags of a command as a file that [`parse`] reads.
pub fn write(path: &Path, settings: &impl Serialize) -> Result<(), Error> {
    let text = toml::to_string(settings).map_err(|e| Error::Invalid(format!("settings: {e}")))?;
    write_text(path, &text)
}
