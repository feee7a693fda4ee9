//! Flags for the dataset.

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::data::synthetic::sum_of_two;
use loss_landscape::data::{Cifar10, Text};
use loss_landscape::prelude::*;
use loss_landscape::serde::Serialize;

use crate::limits::at_least;
use crate::path_args::path;
use crate::{Ignored, config_file};

/// The dataset.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct DatasetArgs {
    /// Dataset [default: mnist; for `gpt` shakespeare, or text with --data]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetName>,
    /// Directory of the dataset's files, or the text file [default: the MNIST files of the source directory of this program]
    #[arg(long, value_name = "PATH", value_parser = path())]
    #[serde(skip_serializing_if = "config_file::is_missing_or_not_utf8")]
    pub data: Option<PathBuf>,
    /// Number of characters in a sequence that `gpt` reads [default: 64]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "lowercase")]
pub enum DatasetName {
    /// MNIST: handwritten digits, 28 × 28
    Mnist,
    /// CIFAR-10: photographs, 3 × 32 × 32; needs --data
    Cifar10,
    /// 800 training and 200 test samples of 20 features; the class depends on two of them
    Synthetic,
    /// Two plays by Shakespeare: 10,000 training and 1,000 test sequences of characters
    Shakespeare,
    /// The UTF-8 text file in --data: at most 10,000 training and 1,000 test sequences of characters
    Text,
}

/// Training and test samples. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Data {
    pub train: Dataset,
    pub test: Dataset,
    /// Shape of a sample. A network sees it although MNIST's images are flattened.
    pub shape: Vec<usize>,
    /// Number of classes.
    pub outputs: usize,
}

/// The samples of this process.
static LOADED: OnceLock<Data> = OnceLock::new();

/// The samples, if they are loaded.
pub fn loaded() -> Option<&'static Data> {
    LOADED.get()
}

/// Number of training samples in the synthetic dataset.
const SYNTHETIC_TRAIN: usize = 800;

/// Largest numbers of training and test sequences of a text. A shorter text has one per position.
const SEQUENCES: [usize; 2] = [10_000, 1_000];

impl DatasetArgs {
    pub fn ignored(&self, reads_text: bool) -> Ignored {
        let mut ignored: Ignored = Vec::new();
        if !reads_text {
            ignored.push((&["context"], "only `gpt` reads sequences"));
        }
        match self.name(reads_text) {
            DatasetName::Synthetic => ignored.push((
                &["data"],
                "the synthetic dataset is generated, not read from files",
            )),
            DatasetName::Shakespeare => ignored.push((
                &["data"],
                "the plays are part of this program; use --dataset text for another text",
            )),
            _ => {}
        }
        ignored
    }

    /// Checks the flags for a model, before any work.
    /// Whether --dataset names a text.
    pub fn is_text(&self) -> bool {
        self.dataset.is_some_and(DatasetName::is_text)
    }

    pub fn check(&self, model: &str, reads_text: bool) -> Result<(), Error> {
        at_least(1, "context", self.context())?;
        let dataset = self.name(reads_text);
        match (reads_text, dataset.is_text()) {
            (true, false) => Err(Error::Invalid(format!(
                "`{model}` reads text, and dataset `{}` has none: use --dataset shakespeare, or --dataset text with --data",
                dataset.as_str()
            ))),
            (false, true) => Err(Error::Invalid(format!(
                "`{model}` does not read text, and dataset `{}` is text: use --model gpt or another --dataset",
                dataset.as_str()
            ))),
            _ => Ok(()),
        }
    }

    /// Loads the samples, at the first call.
    pub fn load(&self, reads_text: bool, device: &Device) -> Result<Data, Error> {
        if let Some(data) = loaded() {
            return Ok(data.clone());
        }
        let data = self.read(self.name(reads_text), device)?;
        Ok(LOADED.get_or_init(|| data).clone())
    }

    fn name(&self, reads_text: bool) -> DatasetName {
        self.dataset.unwrap_or(match (reads_text, &self.data) {
            (true, Some(_)) => DatasetName::Text,
            (true, None) => DatasetName::Shakespeare,
            (false, _) => DatasetName::Mnist,
        })
    }

    fn context(&self) -> usize {
        self.context.unwrap_or(64)
    }

    fn read(&self, name: DatasetName, device: &Device) -> Result<Data, Error> {
        match (name, &self.data) {
            (DatasetName::Mnist, dir) => {
                let Mnist { train, test } = match dir {
                    None => Mnist::load(device)?,
                    Some(dir) => Mnist::load_from(dir, device)?,
                };
                Ok(Data {
                    train,
                    test,
                    shape: vec![1, 28, 28],
                    outputs: 10,
                })
            }
            (DatasetName::Cifar10, Some(dir)) => {
                let Cifar10 { train, test } = Cifar10::load_from(dir, device)?;
                Ok(Data {
                    train,
                    test,
                    shape: vec![3, 32, 32],
                    outputs: 10,
                })
            }
            (DatasetName::Cifar10, None) => Err(Error::Invalid(
                "CIFAR-10 is not included: give the directory of its binary version with --data"
                    .into(),
            )),
            (DatasetName::Synthetic, _) => {
                let all = sum_of_two(0, device)?.to_dtype(DType::F32)?;
                let rest: Vec<usize> = (SYNTHETIC_TRAIN..all.len()).collect();
                Ok(Data {
                    train: all.first(SYNTHETIC_TRAIN)?,
                    test: all.select(&rest)?,
                    shape: vec![20],
                    outputs: 2,
                })
            }
            (DatasetName::Shakespeare | DatasetName::Text, _) => {
                let text = self.text(name)?;
                let (train, test) = text.split(0.1)?;
                let windows = |text: &Text, most: usize| {
                    let count = most.min(text.len() - self.context());
                    text.windows(self.context(), count, 0, device)
                };
                Ok(Data {
                    train: windows(&train, SEQUENCES[0])?,
                    test: windows(&test, SEQUENCES[1])?,
                    shape: vec![self.context()],
                    outputs: text.vocabulary().len(),
                })
            }
        }
    }

    fn text(&self, name: DatasetName) -> Result<Text, Error> {
        let text = match (name, &self.data) {
            (DatasetName::Text, Some(file)) => Text::load(file)?,
            (DatasetName::Text, None) => {
                return Err(Error::Invalid(
                    "no text is given: add --data FILE, or use --dataset shakespeare".into(),
                ));
            }
            _ => Text::shakespeare()?,
        };
        // The last tenth is for the test, and must hold a sequence and the character after it.
        let least = self.context().saturating_add(1).saturating_mul(10);
        match text.len() >= least {
            true => Ok(text),
            false => Err(Error::Invalid(format!(
                "the text has {} characters, and --context {} needs at least {least}: use a longer text or a smaller --context",
                text.len(),
                self.context()
            ))),
        }
    }
}

impl DatasetName {
    fn is_text(self) -> bool {
        matches!(self, Self::Shakespeare | Self::Text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::Cifar10 => "cifar10",
            Self::Synthetic => "synthetic",
            Self::Shakespeare => "shakespeare",
            Self::Text => "text",
        }
    }
}
