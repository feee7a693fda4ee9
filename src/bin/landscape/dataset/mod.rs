//! Flags for the dataset, and the samples that they name.

mod files;
mod image_size;
mod in_parts;
mod named;
mod needs;
mod normalize;
mod samples;
mod source;

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use loss_landscape::Error;
use loss_landscape::data::{InputNormalization, SampleSource};
use loss_landscape::prelude::*;
use loss_landscape::serde::Serialize;

use crate::limits::at_least;
use crate::path_args::path;
use crate::{Ignored, config_file};
use image_size::ImageSize;
pub use needs::Needs;
use normalize::{NORMALIZE_HELP, Normalize};
pub use samples::{Data, loaded};
use source::{DatasetName, Source, dataset_help, is_missing_or_not_utf8, source};

/// The dataset.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct DatasetArgs {
    /// Dataset: a name, a file, idx:DIR or imagefolder:DIR [default: mnist; for `gpt` shakespeare, or text with --data]
    #[arg(long, value_name = "DATASET", value_parser = source(), long_help = dataset_help())]
    #[serde(skip_serializing_if = "is_missing_or_not_utf8")]
    pub dataset: Option<Source>,
    /// Directory of the dataset's files, or the text file [default: NAME in LOSS_LANDSCAPE_DATA; what is not there is downloaded]
    #[arg(long, value_name = "PATH", value_parser = path())]
    #[serde(skip_serializing_if = "config_file::is_missing_or_not_utf8")]
    pub data: Option<PathBuf>,
    /// Names of the arrays or columns of inputs in a file [default: inputs; in a table without that column, all but the targets]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Vec<String>>,
    /// Name of the array or column of targets in a file: integers or text for classes, floats for values [default: targets]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<String>,
    /// Number of classes of a file [default: the largest label plus 1]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<usize>,
    /// Random share of the samples of a file or image folder to use as test samples [default: the training samples are the test samples]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    test_share: Option<f64>,
    /// Resize the images of an image folder to N × N, or to HEIGHTxWIDTH
    #[arg(long, value_name = "N|HxW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<ImageSize>,
    /// Convert the images of an image folder to grey
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set)]
    grey: bool,
    /// Normalise inputs by mean and deviation of the training samples, or by these: means:deviations, such as 0.1307:0.3081
    #[arg(
        long,
        num_args = 0..=1,
        value_name = "MEANS:DEVIATIONS",
        require_equals = true,
        default_missing_value = "true",
        long_help = NORMALIZE_HELP
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    normalize: Option<Normalize>,
    /// Number of characters in a sequence that `gpt` reads [default: 64]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<usize>,
}

impl DatasetArgs {
    pub fn ignored(&self, reads_text: bool) -> Ignored {
        let mut ignored: Ignored = Vec::new();
        let source = self.source(reads_text);
        let named = match &source {
            Source::Named(name) => Some(*name),
            _ => None,
        };
        let (is_file, is_folder) = match &source {
            Source::File(_) => (true, false),
            Source::ImageFolder(_) => (false, true),
            _ => (false, false),
        };
        if !reads_text {
            ignored.push((&["context"], "only `gpt` reads sequences"));
        } else if is_file {
            ignored.push((&["context"], "the sequences of the file have a length"));
        }
        match named {
            Some(DatasetName::Synthetic) => ignored.push((
                &["data"],
                "the synthetic dataset is generated, not read from files",
            )),
            Some(DatasetName::Shakespeare) => ignored.push((
                &["data"],
                "the plays are part of this program; use --dataset text for another text",
            )),
            Some(_) => {}
            None => ignored.push((&["data"], "--dataset states the path")),
        }
        if !is_file {
            ignored.push((
                &["inputs", "targets"],
                "only files have names of arrays or columns",
            ));
        }
        if !is_folder {
            ignored.push((
                &["size", "grey"],
                "only imagefolder:DIR has images to convert",
            ));
        }
        if !is_file && !is_folder {
            ignored.push((
                &["test-share"],
                "the dataset has a fixed division into training and test samples",
            ));
        }
        if !self.takes_classes(reads_text) {
            ignored.push((&["classes"], "the dataset has a fixed number of classes"));
        }
        if named.is_some_and(DatasetName::is_text) {
            ignored.push((&["normalize"], "text has no values"));
        }
        ignored
    }

    /// Whether the number of classes is that of the labels unless --classes states another.
    pub fn takes_classes(&self, reads_text: bool) -> bool {
        matches!(self.source(reads_text), Source::Idx(_) | Source::File(_))
    }

    /// Whether --dataset names a text.
    pub fn is_text(&self) -> bool {
        self.dataset.as_ref().is_some_and(Source::is_text)
    }

    /// Checks the flags for a model, before any work.
    pub fn check(&self, model: &str, reads_text: bool) -> Result<(), Error> {
        at_least(1, "context", self.context())?;
        at_least(1, "classes", self.classes.unwrap_or(1))?;
        if let Some(share) = self.test_share
            && !(share > 0.0 && share < 1.0)
        {
            return Err(Error::Invalid(format!(
                "--test-share must be above 0 and below 1, found {share}"
            )));
        }
        let source = self.source(reads_text);
        match (reads_text, source.is_text()) {
            (true, false) if !matches!(source, Source::File(_)) => Err(Error::Invalid(format!(
                "`{model}` reads text, and dataset `{}` has none: use --dataset shakespeare, or --dataset text with --data",
                source.to_text()
            ))),
            (false, true) => Err(Error::Invalid(format!(
                "`{model}` does not read text, and dataset `{}` is text: use --model gpt or another --dataset",
                source.to_text()
            ))),
            _ => Ok(()),
        }
    }

    /// Loads the samples for [`loaded`]. Integer inputs of files are tokens if the model reads `tokens`, else values.
    pub fn load(
        &self,
        reads_text: bool,
        tokens: bool,
        device: &Device,
        needs: Needs,
    ) -> Result<Data, Error> {
        let data = match self.stored(reads_text, tokens, device, needs)? {
            Some(data) => data,
            None => {
                let mut data = self.read(reads_text, tokens, device)?;
                if let Some(normalization) = self.normalization(&data.train, &data.shape)? {
                    data.train = data.train.normalized(&normalization)?;
                    data.test = data.test.normalized(&normalization)?;
                    data.about.normalization = Some(normalization);
                }
                data
            }
        };
        Ok(samples::keep(data))
    }

    /// The path in the flags that is not UTF-8.
    pub fn path_not_utf8(&self) -> Option<&Path> {
        let source = self.dataset.as_ref().and_then(Source::path);
        let mut paths = source.into_iter().chain(self.data.as_deref());
        paths.find(|path| config_file::is_not_utf8(path))
    }

    fn source(&self, reads_text: bool) -> Source {
        let named = match (&self.dataset, reads_text, &self.data) {
            (Some(source), ..) => return source.clone(),
            (None, true, Some(_)) => DatasetName::Text,
            (None, true, None) => DatasetName::Shakespeare,
            (None, false, _) => DatasetName::Mnist,
        };
        Source::Named(named)
    }

    fn context(&self) -> usize {
        self.context.unwrap_or(64)
    }

    /// The normalisation of inputs of this shape, if one is asked for.
    fn normalization(
        &self,
        train: &dyn SampleSource,
        shape: &[usize],
    ) -> Result<Option<InputNormalization>, Error> {
        Ok(match &self.normalize {
            None => None,
            Some(Normalize::Given(normalization)) => Some(normalization.clone()),
            // MNIST's images are flattened: its pixels are no features.
            Some(Normalize::Training) if matches!(shape, [1, _, _]) => {
                Some(InputNormalization::overall(train)?)
            }
            Some(Normalize::Training) => Some(InputNormalization::per_channel(train)?),
        })
    }
}
