//! `landscape data`

use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use loss_landscape::Error;
use loss_landscape::data::{PublicSet, data_dir};
use loss_landscape::serde_json::{Value, json};

use crate::output::{Report, path_text};
use crate::signals;

#[derive(Args)]
pub struct Data {
    #[command(subcommand)]
    task: DataTask,
}

#[derive(Subcommand)]
enum DataTask {
    /// List public datasets and the directories of their files
    List,
    /// Download public datasets to LOSS_LANDSCAPE_DATA [default: ~/.cache/loss-landscape/data]
    Fetch {
        /// Datasets
        #[arg(required = true, value_name = "NAME", value_parser = set())]
        sets: Vec<PublicSet>,
    },
}

/// Parses the name of a public dataset.
fn set() -> impl TypedValueParser<Value = PublicSet> {
    let names = PublicSet::ALL.map(PublicSet::name);
    PossibleValuesParser::new(names).try_map(|name| {
        let mut sets = PublicSet::ALL.into_iter();
        sets.find(|set| set.name() == name).ok_or("unknown dataset")
    })
}

impl Data {
    pub fn run(&self) -> Result<Report, Error> {
        match &self.task {
            DataTask::List => list(),
            DataTask::Fetch { sets } => fetch(sets),
        }
    }
}

fn list() -> Result<Report, Error> {
    let dir = data_dir()?;
    let mut text = format!("directory of downloads: {}\n", dir.display());
    let mut sets = Vec::new();
    for set in PublicSet::ALL {
        let found = set.find();
        let bytes = found.as_deref().map(size);
        let place = match &found {
            Some(dir) => {
                let megabytes = bytes.unwrap_or(0) as f64 / 1e6;
                format!("{megabytes:.0} MB in {}", dir.display())
            }
            None => format!(
                "missing; `landscape data fetch {}` downloads about {} MB",
                set.name(),
                set.download_megabytes()
            ),
        };
        text += &format!("{:14} {place}\n", set.name());
        sets.push(json!({
            "name": set.name(),
            "directory": found.as_deref().map(path_text),
            "bytes": bytes,
            "download_megabytes": set.download_megabytes(),
        }));
    }
    let json = json!({ "directory": path_text(&dir), "sets": sets });
    Ok(Report { text, json })
}

/// Bytes in the files of a directory.
fn size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten();
    let files = files.filter_map(|file| file.ok()?.metadata().ok());
    files.map(|file| file.len()).sum()
}

fn fetch(sets: &[PublicSet]) -> Result<Report, Error> {
    signals::on_interrupt("complete files are kept: run the same command to download the others");
    let mut text = String::new();
    let mut found = Vec::<Value>::new();
    for set in sets {
        let dir = set.fetch()?;
        text += &format!("{}: {}\n", set.name(), dir.display());
        found.push(json!({ "name": set.name(), "directory": path_text(&dir) }));
    }
    Ok(Report {
        text,
        json: json!({ "sets": found }),
    })
}
