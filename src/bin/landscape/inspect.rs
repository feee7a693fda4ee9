//! `landscape inspect`

use std::path::PathBuf;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::import::{Onnx, OnnxSettings};
use loss_landscape::prelude::*;
use loss_landscape::serde_json;

use crate::output::{Report, path_text};
use crate::path_args::path;

#[derive(Args)]
pub struct Inspect {
    /// ONNX file
    #[arg(value_name = "FILE", value_parser = path())]
    file: PathBuf,
    /// Initialisers that are parameters: patterns separated by commas, such as head,*.bias [default: all that are trained]
    #[arg(long, value_name = "GLOB")]
    parameters: Option<String>,
    /// Shape of a sample, such as 3,32,32, for a file that leaves axes open
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    sample_shape: Option<Vec<usize>>,
}

impl Inspect {
    pub fn run(&self) -> Result<Report, Error> {
        let mut settings = OnnxSettings::default();
        settings.parameters.clone_from(&self.parameters);
        settings.sample_shape.clone_from(&self.sample_shape);
        let summary = Onnx::load_with(&self.file, &settings, &Device::Cpu)?.summary();
        let mut json = serde_json::to_value(&summary)
            .map_err(|e| Error::Invalid(format!("cannot write the report: {e}")))?;
        json["file"] = path_text(&self.file).into();
        Ok(Report {
            text: summary.to_string(),
            json,
        })
    }
}
