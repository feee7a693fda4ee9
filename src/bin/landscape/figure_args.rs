//! `--figures`: file formats of the figures that a command writes.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::figure::{Figure, FigureFormat, require_images};
use loss_landscape::serde::Serialize;

use crate::{Ignored, mpi_context};

/// Names of the flags.
const FLAGS: [&str; 2] = ["figures", "figure-scale"];

/// Formats of figures.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct FigureArgs {
    /// File formats of the figures, comma-separated: html is interactive; png, svg and pdf need Chrome or Chromium
    #[arg(
        long,
        value_enum,
        value_name = "FORMATS",
        value_delimiter = ',',
        default_value = "html"
    )]
    figures: Vec<FormatName>,
    /// Pixels of a PNG per pixel of the figure [default: 3.125, which is 300 dots per inch]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    figure_scale: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, ValueEnum)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
enum FormatName {
    Html,
    Png,
    Svg,
    Pdf,
}

impl FormatName {
    fn format(self) -> FigureFormat {
        match self {
            Self::Html => FigureFormat::Html,
            Self::Png => FigureFormat::Png,
            Self::Svg => FigureFormat::Svg,
            Self::Pdf => FigureFormat::Pdf,
        }
    }
}

impl FigureArgs {
    /// The flags have no effect without figures. `reason` says why there are none.
    pub fn ignored(&self, has_figures: bool, reason: &'static str) -> Ignored {
        let mut ignored: Ignored = Vec::new();
        if !has_figures {
            ignored.push((&FLAGS, reason));
        } else if !self.figures.contains(&FormatName::Png) {
            ignored.push((&FLAGS[1..], "it needs --figures png"));
        }
        ignored
    }

    /// Names of the files for figures with these names. Fails if a format needs a browser and none is installed.
    pub fn file_names(&self, figures: &[&str]) -> Result<Vec<String>, Error> {
        if self
            .figures
            .iter()
            .any(|format| *format != FormatName::Html)
            && mpi_context::is_root()
        {
            require_images()?;
        }
        let names = figures.iter().flat_map(|name| {
            let formats = self.figures.iter();
            formats.map(move |format| format!("{name}.{}", format.format().extension()))
        });
        Ok(names.collect())
    }

    /// Writes the figure in all formats to the directory. Returns the paths.
    pub fn write(&self, dir: &Path, name: &str, figure: &Figure) -> Result<Vec<PathBuf>, Error> {
        if !mpi_context::is_root() {
            return Ok(Vec::new());
        }
        let figure = match self.figure_scale {
            Some(scale) => figure.clone().with_scale(scale),
            None => figure.clone(),
        };
        let paths = self.figures.iter().map(|format| {
            let path = dir.join(format!("{name}.{}", format.format().extension()));
            figure.save(&path)?;
            Ok(path)
        });
        paths.collect()
    }

    /// Writes the figures, and adds a line for each file to `text`.
    pub fn write_all(
        &self,
        dir: &Path,
        figures: &[(&str, Figure)],
        text: &mut String,
    ) -> Result<(), Error> {
        for (name, figure) in figures {
            for path in self.write(dir, name, figure)? {
                *text += &format!("{}\n", path.display());
            }
        }
        Ok(())
    }
}
