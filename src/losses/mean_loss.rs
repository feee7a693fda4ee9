//! [`MeanLoss`]: a loss with the divisor of its mean over a dataset.

use std::fmt;

use candle_core::{D, Tensor};

use super::{Loss, LossRules, binary_cross_entropy, count_correct, cross_entropy, squared_error};
use crate::data::{Dataset, Targets};
use crate::error::{Error, Result, counted};
use crate::tensor_functions::entries;

/// A loss, and for cross-entropy with settings, the factor that makes the mean over the samples of a dataset the mean over its
/// counted labels.
///
/// The factor is n / Σ w for n samples with label weights w. It is the same for every batch, so batches add up to the mean over
/// the dataset.
#[derive(Clone)]
pub(crate) struct MeanLoss {
    loss: Loss,
    counts: Option<LabelCounts>,
}

/// Quantities of a dataset per sample.
#[derive(Clone, Copy)]
struct LabelCounts {
    /// Σ w / n
    weight: f64,
    /// Number of labels that are not ignored, over n.
    counted: f64,
}

impl MeanLoss {
    /// The loss of these targets.
    ///
    /// # Errors
    /// Targets of the wrong kind; invalid settings; labels of which none counts.
    pub(crate) fn new(loss: Loss, targets: &Targets) -> Result<Self> {
        loss.check_kind(targets)?;
        let counts = match (&loss, targets) {
            (Loss::CrossEntropyWith(settings), Targets::Labels(labels)) => {
                settings.check()?;
                let n = labels.dim(0)? as f64;
                let labels = labels.flatten_all()?.to_vec1::<u32>()?;
                let weights = labels.iter().map(|label| settings.label_weight(*label));
                let weight: f64 = weights.sum();
                if weight <= 0.0 {
                    return Err(Error::invalid(format!(
                        "no label counts: each of the {} is the ignored one or of a class with weight 0",
                        counted(labels.len(), "label")
                    )));
                }
                let ignored = labels.iter().filter(|label| settings.is_ignored(**label));
                let counted = labels.len() - ignored.count();
                Some(LabelCounts {
                    weight: weight / n,
                    counted: counted as f64 / n,
                })
            }
            _ => None,
        };
        Ok(Self { loss, counts })
    }

    /// The same loss as the mean over other targets.
    pub(crate) fn with_targets(&self, targets: &Targets) -> Result<Self> {
        Self::new(self.loss.clone(), targets)
    }

    /// Whether the loss of a sample depends on the dataset.
    pub(crate) fn depends_on_data(&self) -> bool {
        self.counts.is_some()
    }

    /// Number of labels that count in these data, which are all of the dataset or a rank's share of it.
    pub(crate) fn num_labels(&self, data: &Dataset) -> f64 {
        match self.counts {
            Some(counts) => counts.counted * data.len() as f64,
            None => data.num_labels() as f64,
        }
    }

    /// The loss of each sample, shape `(n,)`.
    pub(crate) fn per_sample(&self, outputs: &Tensor, targets: &Targets) -> Result<Tensor> {
        match (&self.loss, targets) {
            (Loss::CrossEntropy, Targets::Labels(labels)) if outputs.rank() == 2 => {
                cross_entropy::per_row(outputs, labels)
            }
            (Loss::CrossEntropy, Targets::Labels(labels)) => {
                let losses = cross_entropy::per_row(&rows(outputs)?, &labels.flatten_all()?)?;
                Ok(losses.reshape((outputs.dim(0)?, ()))?.mean(1)?)
            }
            (Loss::CrossEntropyWith(settings), Targets::Labels(labels)) => {
                let labels = labels.flatten_all()?;
                let losses = cross_entropy::weighted_per_row(&rows(outputs)?, &labels, settings)?;
                let sums = losses.reshape((outputs.dim(0)?, ()))?.sum(1)?;
                let weight = self.counts.map_or(1.0, |counts| counts.weight);
                Ok((sums * (1.0 / weight))?)
            }
            (Loss::BinaryCrossEntropy, Targets::Values(values)) => {
                binary_cross_entropy::per_sample(outputs, values)
            }
            (Loss::Mse, Targets::Values(values)) => squared_error::per_sample(outputs, values),
            _ => Err(self.loss.wrong_kind()),
        }
    }

    /// Number of correctly classified samples or tokens, among those that count.
    pub(crate) fn count_correct(&self, outputs: &Tensor, data: &Dataset) -> Result<usize> {
        let settings = self.loss.settings();
        count_correct(outputs, data, |label| !settings.is_ignored(label))
    }

    /// The first `n` samples with a label that counts.
    pub(crate) fn first_samples(&self, data: &Dataset, n: usize) -> Result<Dataset> {
        let n = n.min(data.len());
        if !self.depends_on_data() {
            return data.first(n);
        }
        let (labels, settings) = (data.labels()?, self.loss.settings());
        let samples = labels.chunks(labels.len() / data.len()).enumerate();
        let counted = samples.filter(|(_, labels)| {
            let mut weights = labels.iter().map(|label| settings.label_weight(*label));
            weights.any(|weight| weight > 0.0)
        });
        data.select(&counted.map(|(i, _)| i).take(n).collect::<Vec<_>>())
    }

    /// The rules for outputs of one sample of shape `outputs`, if it fits the data's targets.
    ///
    /// # Errors
    /// Outputs that do not fit the targets, and targets that are out of range.
    pub(crate) fn rules(&self, outputs: &[usize], data: &Dataset) -> Result<LossRules> {
        let (width, leading) = match outputs.split_last() {
            Some((width, leading)) if *width > 0 => (*width, leading),
            _ => {
                return Err(Error::invalid(format!(
                    "the model must map samples to outputs of shape (…, outputs), not {outputs:?}"
                )));
            }
        };
        let of_target = data.targets().dims();
        let expected = match data.targets() {
            Targets::Labels(_) => leading,
            Targets::Values(_) => outputs,
        };
        if of_target != expected {
            return Err(Error::invalid(match data.targets() {
                Targets::Labels(_) => format!(
                    "outputs of shape {} need labels of shape {}, one for each row of outputs, not {}{}",
                    batch_shape(outputs),
                    batch_shape(expected),
                    batch_shape(of_target),
                    match of_target.split_last() {
                        Some((_, rest)) if rest == expected =>
                            "; store the number of the class in place of a one-hot vector",
                        _ => "",
                    }
                ),
                Targets::Values(_) => format!(
                    "outputs of shape {} need values of that shape to fit, not {}",
                    batch_shape(outputs),
                    batch_shape(of_target)
                ),
            }));
        }
        let positions = leading.iter().product();
        match data.targets() {
            Targets::Labels(_) => self.check_labels(&data.labels()?, width, positions)?,
            Targets::Values(values) if self.loss == Loss::BinaryCrossEntropy => {
                check_probabilities(values)?;
            }
            Targets::Values(_) => {}
        }
        Ok(LossRules {
            loss: self.loss.clone(),
            width,
            positions,
            share: match self.counts {
                Some(counts) => 1.0 / counts.weight,
                None => 1.0 / positions as f64,
            },
        })
    }

    fn check_labels(&self, labels: &[u32], width: usize, positions: usize) -> Result<()> {
        let classes = width.max(2);
        let settings = self.loss.settings();
        settings.check_classes(classes)?;
        let invalid = |label: &u32| *label >= classes as u32 && !settings.is_ignored(*label);
        match labels.iter().position(invalid) {
            None => Ok(()),
            Some(i) => Err(Error::invalid(format!(
                "label {} of sample {} is out of range: a model with {} has classes 0 to {}",
                labels[i],
                i / positions.max(1),
                counted(width, "output"),
                classes - 1
            ))),
        }
    }
}

impl fmt::Debug for MeanLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loss.fmt(f)
    }
}

/// Outputs (n, …, classes) as (rows, classes).
fn rows(outputs: &Tensor) -> Result<Tensor> {
    Ok(outputs.reshape(((), outputs.dim(D::Minus1)?))?)
}

/// Returns an error if a value is not in [0, 1].
fn check_probabilities(values: &Tensor) -> Result<()> {
    let size: usize = values.dims()[1..].iter().product();
    let values = entries(values)?;
    match values.iter().position(|v| !(0.0..=1.0).contains(v)) {
        None => Ok(()),
        Some(i) => Err(Error::invalid(format!(
            "value {} of sample {} is out of range: binary cross-entropy needs values from 0 to 1",
            values[i],
            i / size.max(1)
        ))),
    }
}

/// Formats the shape of a batch of samples of shape `dims`.
fn batch_shape(dims: &[usize]) -> String {
    let dims: String = dims.iter().map(|d| format!(", {d}")).collect();
    match dims.is_empty() {
        true => "(n,)".into(),
        false => format!("(n{dims})"),
    }
}
