//! `landscape view`

use std::path::{Path, PathBuf};

use clap::Args;
use loss_landscape::Error;
use loss_landscape::analysis::HessianMetrics;
use loss_landscape::figure::Figure;
use loss_landscape::files::read_arrays;
use loss_landscape::landscape::ExtremeEigenvalues;
use loss_landscape::ndarray::Array2;
use loss_landscape::plotly;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value, json};

use crate::output::{Report, write_text};
use crate::path_args::path;

#[derive(Args)]
pub struct View {
    /// Directory with results of `landscape analyze --save-dir` or `landscape surface --out`
    #[arg(value_name = "DIR", value_parser = path())]
    dir: PathBuf,
    /// Page to write [default: view.html in the directory]
    #[arg(long, value_name = "FILE", value_parser = path())]
    out: Option<PathBuf>,
}

/// File with the plane of the training's path, which `analyze` writes.
pub const PATH_FILE: &str = "path.json";

/// What the page shows.
struct Results {
    plane: Option<Plane>,
    path: Option<(Plane, Projection)>,
    hessian: Option<HessianMetrics>,
    history: Option<Vec<[f64; 3]>>,
}

impl View {
    pub fn run(&self) -> Result<Report, Error> {
        let results = Results::read(&self.dir)?;
        let mut panels = Vec::new();
        let mut add = |id: &str, link: &str, figure: Figure| {
            panels.push(json!({"id": id, "link": link, "figure": figure.json()}));
        };
        if let Some(plane) = &results.plane {
            add("surface", "plane", figure::surface(plane));
            add("contour", "plane", figure::contour(plane));
            if plane.eigenvalues.is_some() {
                add("eigenvalues", "plane", figure::extreme_eigenvalues(plane));
            }
        }
        if let Some((plane, path)) = &results.path {
            add("path", "path", figure::trajectory(plane, path));
            add(
                "path-surface",
                "path",
                figure::trajectory_surface(plane, path),
            );
            add("path-losses", "steps", path_losses(path));
        }
        if let Some(hessian) = &results.hessian {
            add("spectrum", "", figure::spectrum_ends(hessian));
        }
        if let Some(history) = &results.history {
            add("history", "", history_chart(history));
        }
        if panels.is_empty() {
            return Err(Error::Invalid(format!(
                "{} contains neither surface.npz nor report.json: give the directory of `landscape analyze --save-dir` or \
                 `landscape surface --out`",
                self.dir.display()
            )));
        }
        let count = panels.len();
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| self.dir.join("view.html"));
        write_text(&out, &page(&self.dir, &json!(panels)))?;
        Ok(Report {
            text: format!("{count} figures\n{}\n", out.display()),
            json: json!({"figures": count, "page": out.display().to_string()}),
        })
    }
}

impl Results {
    fn read(dir: &Path) -> Result<Self, Error> {
        if !dir.is_dir() {
            return Err(Error::Invalid(format!(
                "{} is not a directory: give the directory of `landscape analyze --save-dir` or `landscape surface --out`",
                dir.display()
            )));
        }
        let report = read_json(&dir.join("report.json"))?;
        let hessian = match report.as_ref().map(|report| report["hessian"].clone()) {
            None | Some(Value::Null) => None,
            Some(hessian) => Some(parse(&dir.join("report.json"), hessian)?),
        };
        let path = match read_json(&dir.join(PATH_FILE))? {
            Some(mut json) => {
                let file = dir.join(PATH_FILE);
                let plane = parse(&file, json["plane"].take())?;
                Some((plane, parse(&file, json["projection"].take())?))
            }
            None => None,
        };
        Ok(Self {
            plane: read_plane(dir)?,
            path,
            hessian,
            history: read_history(&dir.join("history.csv"))?,
        })
    }
}

/// The JSON in a file, if it exists.
fn read_json(path: &Path) -> Result<Option<Value>, Error> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| damaged(path, e))
}

fn read_text(path: &Path) -> Result<Option<String>, Error> {
    match path.exists() {
        true => std::fs::read_to_string(path)
            .map(Some)
            .map_err(|e| damaged(path, e)),
        false => Ok(None),
    }
}

fn parse<T: loss_landscape::serde::de::DeserializeOwned>(
    path: &Path,
    json: Value,
) -> Result<T, Error> {
    serde_json::from_value(json).map_err(|e| damaged(path, e))
}

fn damaged(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::Invalid(format!(
        "{} cannot be read ({problem}): run the command that wrote it again",
        path.display()
    ))
}

/// The plane in surface.npz, if it exists.
fn read_plane(dir: &Path) -> Result<Option<Plane>, Error> {
    let file = dir.join("surface.npz");
    if !file.exists() {
        return Ok(None);
    }
    let arrays = read_arrays(&file, &Device::Cpu)?;
    let find = |name: &str| {
        arrays
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, array)| array)
    };
    let values = |array: &Tensor| array.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
    let missing = || damaged(&file, "alpha, beta or loss is missing");
    let alphas = values(find("alpha").ok_or_else(missing)?)?;
    let betas = values(find("beta").ok_or_else(missing)?)?;
    let matrix = |name: &str| -> Result<Option<Array2<f64>>, Error> {
        let Some(array) = find(name) else {
            return Ok(None);
        };
        let matrix = Array2::from_shape_vec((betas.len(), alphas.len()), values(array)?);
        matrix.map(Some).map_err(|e| damaged(&file, e))
    };
    let losses = matrix("loss")?.ok_or_else(missing)?;
    let eigenvalues = match (matrix("smallest")?, matrix("largest")?) {
        (Some(smallest), Some(largest)) => Some(ExtremeEigenvalues {
            errors: smallest.mapv(|_| f64::NAN),
            checked: smallest.mapv(|_| false),
            smallest,
            largest,
        }),
        _ => None,
    };
    let nearest = |axis: &[f64]| {
        let pairs = axis.iter().enumerate();
        let nearest = pairs.min_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
        nearest.map_or(0, |(i, _)| i)
    };
    let stated = read_json(&dir.join("surface.json"))?;
    let stated = stated.and_then(|json| json["loss_center"].as_f64());
    let at_center = losses.get((nearest(&betas), nearest(&alphas))).copied();
    Ok(Some(Plane {
        center: stated.or(at_center).unwrap_or(f64::NAN),
        alphas,
        betas,
        losses,
        accuracies: None,
        eigenvalues,
        statistics: Default::default(),
        fingerprint: 0,
    }))
}

/// Epoch, training loss and test loss in a table, if it exists.
fn read_history(file: &Path) -> Result<Option<Vec<[f64; 3]>>, Error> {
    let Some(text) = read_text(file)? else {
        return Ok(None);
    };
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let columns = ["epoch", "train loss", "test loss"];
    let places = columns.map(|name| header.iter().position(|column| *column == name));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        places.map(|at| {
            let cell = at.and_then(|at| cells.get(at)).copied().unwrap_or_default();
            cell.parse().unwrap_or(f64::NAN)
        })
    };
    Ok(Some(lines.map(row).collect()))
}

fn history_chart(rows: &[[f64; 3]]) -> Figure {
    let column = |i: usize| rows.iter().map(move |row| (row[0], row[i]));
    figure::Chart::new("Training and test loss", "epoch", "loss")
        .line("training loss", column(1))
        .line("test loss", column(2))
        .log_y()
        .figure()
}

/// The losses of the snapshots over the steps.
fn path_losses(path: &Projection) -> Figure {
    let over = |losses: &[f64]| {
        let steps = path.steps.iter().map(|step| *step as f64);
        steps.zip(losses.to_vec()).collect::<Vec<_>>()
    };
    figure::Chart::new("Loss along the training path", "training step", "loss")
        .line("at the snapshot", over(&path.losses))
        .line("at its projection on the plane", over(&path.plane_losses))
        .log_y()
        .figure()
}

fn page(dir: &Path, panels: &Value) -> String {
    // Inside a script element a tag could end it.
    let panels = panels.to_string().replace('<', r"\u003c");
    let name = dir.display().to_string();
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    include_str!("view.html")
        .replace("@NAME@", &name)
        .replace("@PLOTLY@", &plotly::Plot::offline_js_sources())
        .replace("@PANELS@", &panels)
}
