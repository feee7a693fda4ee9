//! [`PassModel`]: the model of an objective.

use std::sync::Arc;

use candle_core::{Module, Result, Tensor};

use super::{Forward, Training};
use crate::engine::GraphReason;
use crate::layers::LayerKind;
use crate::model::Model;
use crate::parameters::Parameters;

/// A model by its forward passes. Cloning shares the parameters.
#[derive(Clone)]
pub(crate) struct PassModel {
    pub(super) forward: Arc<Forward>,
    pub(super) training: Arc<Training>,
    pub(super) parameters: Parameters,
    pub(super) layers: std::result::Result<Arc<[LayerKind]>, GraphReason>,
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
        self.layers.as_deref().ok().map(<[LayerKind]>::to_vec)
    }

    fn without_layers(&self) -> Option<String> {
        match &self.layers {
            Err(GraphReason::Unrecognised(reason)) => Some(reason.clone()),
            _ => None,
        }
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> Result<Tensor> {
        (self.training)(x, seed)
    }
}
