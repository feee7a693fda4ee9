//! [`CrossEntropy`]: settings of the cross-entropy loss.

use serde::{Deserialize, Serialize};

use super::Loss;
use crate::error::{Error, Result, counted};

/// Cross-entropy with an ignored label, class weights or label smoothing, as `CrossEntropyLoss` in PyTorch.
///
/// For outputs z, p = softmax(z), a label y of k classes, class weights w and label smoothing ε, the loss of a label is
///
/// ℓ = −Σ_c q_c ln p_c with q_c = w_c ((1 − ε) \[c = y\] + ε/k),
///
/// and 0 for the ignored label. The objective is Σ ℓ / Σ w_y, with both sums over all labels of its dataset that are not
/// ignored. So the divisor is a constant of the dataset: the mean over batches is the objective, and a batch without a counted
/// label contributes 0. The loss of a sample, which can be a sequence of tokens, is n / Σ w_y times the sum over its labels, for n
/// samples.
///
/// The curvature in z is (Σ_c q_c) (diag p − ppᵀ), in the Gauss–Newton and in the Fisher matrix. Accuracy is the fraction of
/// correct labels among those that are not ignored, without weights.
///
/// ```
/// use loss_landscape::objective::CrossEntropy;
/// use loss_landscape::prelude::*;
///
/// // Three tokens, the last of which is padding.
/// let outputs = Tensor::new(&[[[2.0, 0.0], [0.0, 1.0], [5.0, 0.0]]], &Device::Cpu)?;
/// let labels = Targets::Labels(Tensor::new(&[[0u32, 1, 9]], &Device::Cpu)?);
/// let loss: Loss = CrossEntropy::default()
///     .with_ignored_label(9)
///     .with_class_weights(vec![3.0, 1.0])
///     .into();
/// let mean = loss.mean(&outputs, &labels)?.to_scalar::<f64>()?;
/// let of_margin = |margin: f64| (-margin).exp().ln_1p();
/// let expected = (3.0 * of_margin(2.0) + 1.0 * of_margin(1.0)) / (3.0 + 1.0);
/// assert!((mean - expected).abs() < 1e-15);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CrossEntropy {
    /// Label that does not count, of any value.
    pub ignored_label: Option<u32>,
    /// Weight w_c ≥ 0 of each class; all 1 by default.
    pub class_weights: Option<Vec<f64>>,
    /// Label smoothing ε in [0, 1]; 0 by default.
    pub label_smoothing: f64,
}

impl CrossEntropy {
    /// The settings of [`Loss::CrossEntropy`].
    pub(super) const PLAIN: Self = Self {
        ignored_label: None,
        class_weights: None,
        label_smoothing: 0.0,
    };

    /// Sets the label that does not count. A dataset's labels are `u32`, so PyTorch's −100 is `-100i32 as u32`.
    #[must_use]
    pub fn with_ignored_label(mut self, label: u32) -> Self {
        self.ignored_label = Some(label);
        self
    }

    /// Sets the weight of each class. With one output there are two classes.
    #[must_use]
    pub fn with_class_weights(mut self, weights: Vec<f64>) -> Self {
        self.class_weights = Some(weights);
        self
    }

    /// Sets the label smoothing ε.
    #[must_use]
    pub fn with_label_smoothing(mut self, smoothing: f64) -> Self {
        self.label_smoothing = smoothing;
        self
    }

    /// Returns an error for weights and smoothing out of range.
    pub(super) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(Error::invalid(format!(
                "a label smoothing of {} is out of range: give a number from 0 to 1",
                self.label_smoothing
            )));
        }
        let weights = self.class_weights.as_deref().unwrap_or_default();
        match weights.iter().position(|w| !(*w >= 0.0 && w.is_finite())) {
            None => Ok(()),
            Some(class) => Err(Error::invalid(format!(
                "the weight of class {class} is {}: class weights must be finite numbers ≥ 0",
                weights[class]
            ))),
        }
    }

    /// Returns an error if the number of class weights is not the number of classes.
    pub(super) fn check_classes(&self, classes: usize) -> Result<()> {
        match &self.class_weights {
            Some(weights) if weights.len() != classes => Err(Error::invalid(format!(
                "{} for {classes} classes: give one weight per class",
                counted(weights.len(), "class weight"),
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn is_ignored(&self, label: u32) -> bool {
        self.ignored_label == Some(label)
    }

    /// w_c, or 1 for a class without a weight.
    pub(super) fn class_weight(&self, class: usize) -> f64 {
        let weights = self.class_weights.as_ref();
        weights.map_or(1.0, |weights| weights.get(class).copied().unwrap_or(1.0))
    }

    /// w_y, or 0 for the ignored label: the label's part of the divisor.
    pub(super) fn label_weight(&self, label: u32) -> f64 {
        match self.is_ignored(label) {
            true => 0.0,
            false => self.class_weight(label as usize),
        }
    }

    /// (1 − ε) w_y and ε/k, the factors of −ln p_y and of −Σ w_c ln p_c in the loss of a label. Both are 0 for the ignored
    /// label.
    pub(super) fn factors(&self, label: u32, classes: usize) -> [f64; 2] {
        match self.is_ignored(label) {
            true => [0.0; 2],
            false => [
                (1.0 - self.label_smoothing) * self.class_weight(label as usize),
                self.label_smoothing / classes as f64,
            ],
        }
    }
}

impl From<CrossEntropy> for Loss {
    fn from(settings: CrossEntropy) -> Self {
        Self::CrossEntropyWith(settings)
    }
}
