//! [`Data`]: the training and test samples of a command, with their description for reports.

use std::fmt::Write;
use std::sync::OnceLock;

use loss_landscape::Error;
use loss_landscape::data::{InputNormalization, StoredSamples, TestSource};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{Value, json};

use crate::output::number;

/// Training and test samples. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Data {
    /// Training samples, or the first of them: as many as the command uses, or a part.
    pub train: Dataset,
    /// Test samples, if the command uses them.
    pub test: Dataset,
    /// The training samples that the command uses, if they are read in parts of the size of `train`.
    pub parts: Option<StoredSamples>,
    /// Numbers of all training and test samples.
    pub counts: [usize; 2],
    /// Shape of a sample. A network sees it although MNIST's images are flattened.
    pub shape: Vec<usize>,
    /// Number of classes, or of values to fit.
    pub outputs: usize,
    pub(super) about: About,
}

/// Description of the samples for reports.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) test_source: TestSource,
    pub(super) class_names: Option<Vec<String>>,
    pub(super) normalization: Option<InputNormalization>,
    /// Classes without training samples.
    pub(super) empty_classes: Vec<usize>,
}

/// The samples of this process.
static LOADED: OnceLock<Data> = OnceLock::new();

/// Keeps the samples of this process, unless some are kept. Returns those that are kept.
pub(super) fn keep(data: Data) -> Data {
    LOADED.get_or_init(|| data).clone()
}

/// The samples, if they are loaded.
pub fn loaded() -> Option<&'static Data> {
    LOADED.get()
}

impl Data {
    /// The first `count` training samples, or all.
    pub fn first_training_samples(&self, count: Option<usize>) -> Result<Dataset, Error> {
        match count {
            Some(count) => self.train.first(count),
            None => Ok(self.train.clone()),
        }
    }

    pub(super) fn new(
        name: String,
        train: Dataset,
        test: Dataset,
        test_source: TestSource,
        shape: Vec<usize>,
        outputs: usize,
    ) -> Result<Self, Error> {
        let mut empty_classes = Vec::new();
        if let Targets::Labels(_) = train.targets() {
            let mut is_empty = vec![true; outputs];
            for label in train.labels()? {
                if let Some(is_empty) = is_empty.get_mut(label as usize) {
                    *is_empty = false;
                }
            }
            empty_classes = (0..outputs).filter(|&class| is_empty[class]).collect();
        }
        Ok(Self {
            counts: [train.len(), test.len()],
            train,
            test,
            parts: None,
            shape,
            outputs,
            about: About {
                name,
                test_source,
                class_names: None,
                normalization: None,
                empty_classes,
            },
        })
    }

    /// The default loss: cross-entropy for classes, mean squared error for values.
    pub fn loss(&self) -> Loss {
        match self.train.targets() {
            Targets::Labels(_) => Loss::CrossEntropy,
            Targets::Values(_) => Loss::Mse,
        }
    }

    /// The samples in `f32`, in which models are trained.
    pub fn in_f32(mut self) -> Result<Self, Error> {
        self.train = self.train.to_dtype(DType::F32)?;
        self.test = self.test.to_dtype(DType::F32)?;
        Ok(self)
    }

    /// "10 classes" or "2 values".
    pub fn describe_outputs(&self) -> String {
        match (self.train.targets(), self.outputs) {
            (Targets::Labels(_), count) => format!("{count} classes"),
            (Targets::Values(_), 1) => "1 value".to_owned(),
            (Targets::Values(_), count) => format!("{count} values"),
        }
    }

    /// Lines about the dataset for reports.
    pub fn text(&self) -> String {
        let shape = self.shape.iter().map(usize::to_string);
        let mut text = format!(
            "dataset: {}, samples of shape {}, {}\n",
            self.about.name,
            shape.collect::<Vec<_>>().join(" × "),
            self.describe_outputs()
        );
        if self.parts.is_some() {
            let _ = writeln!(
                text,
                "samples are read in parts of {}, because they do not fit into memory",
                self.train.len()
            );
        }
        if self.about.test_source != TestSource::Files {
            let _ = writeln!(text, "test samples: {}", self.about.test_source);
        }
        let empty = &self.about.empty_classes;
        if !empty.is_empty() {
            let _ = writeln!(text, "classes without training samples: {}", list(empty));
        }
        if let Some(InputNormalization {
            mean, deviation, ..
        }) = &self.about.normalization
        {
            let numbers = |values: &[f64]| {
                let values = values.iter().map(|value| number(*value, 4));
                list(&values.collect::<Vec<_>>())
            };
            let _ = writeln!(
                text,
                "inputs normalised: mean {}; deviation {}",
                numbers(mean),
                numbers(deviation)
            );
        }
        text
    }

    pub fn json(&self) -> Value {
        let is_labelled = matches!(self.train.targets(), Targets::Labels(_));
        json!({
            "name": self.about.name,
            "shape": self.shape,
            "classes": is_labelled.then_some(self.outputs),
            "values": (!is_labelled).then_some(self.outputs),
            "training_samples": self.counts[0],
            "test_samples": self.counts[1],
            "samples_per_part": self.parts.as_ref().map(|_| self.train.len()),
            "test_source": self.about.test_source,
            "class_names": self.about.class_names,
            "empty_classes": self.about.empty_classes,
            "normalization": self.about.normalization,
        })
    }
}

/// At most 12 items, separated by commas, and the number of the others.
fn list(items: &[impl ToString]) -> String {
    const SHOWN: usize = 12;
    let shown = items.iter().take(SHOWN).map(ToString::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        let _ = write!(text, " and {} more", items.len() - SHOWN);
    }
    text
}
