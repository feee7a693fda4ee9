//! `landscape compare`

use std::path::{Path, PathBuf};

use clap::Args;
use loss_landscape::Error;
use loss_landscape::analysis::Report as Analysis;
use loss_landscape::polars::prelude::DataFrame;
use loss_landscape::serde_json::{self, Value, json};
use loss_landscape::tables;

use crate::output::{Report, number, path_text, prepare_dir, write_table, write_text};
use crate::path_args::path;

/// Curvature of networks whose training losses differ by more than this factor is compared with a warning.
const SIMILAR_LOSSES: f64 = 1.2;

#[derive(Args)]
#[command(after_help = "\
Examples:
  for model in shallow deep residual dense; do
    landscape analyze --model $model --compute-hessian --save-dir results/$model
  done
  landscape compare results/shallow results/deep results/residual results/dense --out comparison/")]
pub struct Compare {
    /// Directories that `landscape analyze` wrote (--save-dir), or their report.json
    #[arg(value_name = "DIR", required = true, num_args = 2.., value_parser = path())]
    reports: Vec<PathBuf>,
    /// Directory for comparison.csv, .parquet, .md and .json
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
}

/// A report and the JSON of its dataset.
struct Read {
    name: String,
    report: Analysis,
    dataset: Value,
}

impl Compare {
    pub fn run(&self) -> Result<Report, Error> {
        if let Some(dir) = &self.out {
            let names = [
                "comparison.csv",
                "comparison.parquet",
                "comparison.md",
                "comparison.json",
            ];
            prepare_dir(dir, &names, &[])?;
        }
        let read: Vec<Read> = self
            .reports
            .iter()
            .zip(names(&self.reports))
            .map(|(path, name)| read(path, name))
            .collect::<Result<_, _>>()?;
        let notes = notes(&read);
        let reports: Vec<(&str, Analysis)> = read
            .iter()
            .map(|read| (read.name.as_str(), read.report.clone()))
            .collect();
        let json = json!({
            "reports": read.iter().map(|read| json!({
                "name": read.name,
                "report": serde_json::to_value(&read.report).unwrap_or_default(),
                "dataset": read.dataset,
            })).collect::<Vec<_>>(),
            "notes": notes,
        });
        let mut text = lines(&Analysis::values(&reports)?)?;
        for note in &notes {
            text += &format!("\n{note}\n");
        }
        if let Some(dir) = &self.out {
            write_table(dir, "comparison", &mut Analysis::compare(&reports)?)?;
            let page = tables::markdown(&Analysis::verdicts(&reports)?)?;
            write_text(&dir.join("comparison.md"), &(page + &notes_page(&notes)))?;
            write_text(&dir.join("comparison.json"), &format!("{json:#}\n"))?;
            text += &format!("\n{}\n", path_text(&dir.join("comparison.md")));
        }
        Ok(Report { text, json })
    }
}

/// The last part of each path, or the whole paths if these are not unique.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let directory = |path: &PathBuf| match path.file_name() {
        Some(name) if name == "report.json" => path.parent().map(Path::to_path_buf),
        _ => Some(path.clone()),
    };
    let last = |path: &PathBuf| {
        let directory = directory(path)?;
        Some(directory.file_name()?.display().to_string())
    };
    let short: Option<Vec<String>> = paths.iter().map(last).collect();
    match short {
        Some(names) if (1..names.len()).all(|i| !names[..i].contains(&names[i])) => names,
        _ => paths.iter().map(|path| path_text(path)).collect(),
    }
}

fn read(path: &Path, name: String) -> Result<Read, Error> {
    let file = match path.is_dir() {
        true => path.join("report.json"),
        false => path.to_path_buf(),
    };
    let invalid = |problem: String| Error::Invalid(format!("{}: {problem}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|e| {
        invalid(format!(
            "{e}; give directories that `landscape analyze` wrote"
        ))
    })?;
    let json: Value = serde_json::from_str(&text).map_err(|e| invalid(format!("no JSON: {e}")))?;
    let dataset = json["dataset"].clone();
    let report = serde_json::from_value(json).map_err(|e| {
        invalid(format!(
            "not a report of this version of `landscape analyze`: {e}; run `analyze` again"
        ))
    })?;
    Ok(Read {
        name,
        report,
        dataset,
    })
}

/// What makes the numbers hard to compare.
fn notes(read: &[Read]) -> Vec<String> {
    let losses = read.iter().map(|read| read.report.train.loss);
    let (low, high) = losses.fold((f64::INFINITY, 0.0), |(low, high), loss| {
        (loss.min(low), loss.max(high))
    });
    let mut notes = Vec::new();
    if high > SIMILAR_LOSSES * low {
        notes.push(format!(
            "note: the training losses range from {} to {}. Curvature and sharpness depend on the loss: compare networks that are \
             trained to similar losses.",
            number(low, 4),
            number(high, 4)
        ));
    }
    let first = &read[0];
    let same_data = |other: &Read| {
        other.dataset == first.dataset
            && other.report.train_samples == first.report.train_samples
            && other.report.test_samples == first.report.test_samples
    };
    if let Some(other) = read.iter().find(|other| !same_data(other)) {
        notes.push(format!(
            "note: {} and {} were analysed on different data.",
            first.name, other.name
        ));
    }
    let same_settings = |other: &Read| {
        other.report.subsample == first.report.subsample
            && other.report.sharpness.random.radius == first.report.sharpness.random.radius
    };
    if let Some(other) = read.iter().find(|other| !same_settings(other)) {
        notes.push(format!(
            "note: {} and {} were analysed with different --samples, --seed or --radius.",
            first.name, other.name
        ));
    }
    notes
}

fn notes_page(notes: &[String]) -> String {
    notes.iter().map(|note| format!("\n{note}\n")).collect()
}

/// A table of texts as aligned columns.
fn lines(table: &DataFrame) -> Result<String, Error> {
    let mut columns = Vec::new();
    for column in table.columns() {
        let cells = column
            .str()?
            .iter()
            .map(|cell| cell.unwrap_or_default().to_owned());
        let mut cells: Vec<String> = cells.collect();
        cells.insert(
            0,
            match column.name().as_str() {
                "quantity" => String::new(),
                name => name.to_owned(),
            },
        );
        columns.push(cells);
    }
    let widths: Vec<usize> = columns
        .iter()
        .map(|cells| {
            cells
                .iter()
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: usize| {
        let cells = columns.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cells, &width)| format!("{:<width$}", cells[row]))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    Ok((0..=table.height()).map(line).collect())
}
