//! [`PassModel`]: the model of an objective.

use std::sync::Arc;

use candle_core::{Module, Result, Tensor};

use super::{Forward, Training};
use crate::layers::LayerKind;
use crate::model::Model;
use crate::parameters::Parameters;

/// A model by its forward passes. Cloning shares the parameters.
#[derive(Clone)]
pub(crate) struct PassModel {
    pub(super) forward: Arc<Forward>,
    pub(super) training: Arc<Training>,
    pub(super) parameters: Parameters,
    pub(super) layers: Option<Arc<[LayerKind]>>,
}

impl Module for PassModel {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        (self.forward)(x)
    }
}

impl Model for PassModel {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        self.layers.as_deref().map(<[LayerKind]>::to_vec)
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> Result<Tensor> {
        (self.training)(x, seed)
    }
}
