//! [`Needs`]: what a command needs of the samples.

use loss_landscape::prelude::*;

/// What a command needs of the samples.
#[derive(Clone, Copy)]
pub struct Needs {
    /// The command uses only this many training samples, or all if there are fewer.
    pub samples: Option<usize>,
    /// Whether the command has the flag --samples, which limits the training samples that are read.
    pub has_samples_flag: bool,
    /// Whether it needs the test samples.
    pub test: bool,
    /// Whether it can read the training samples in parts.
    pub in_parts: bool,
    /// Largest size of the samples in memory, in bytes. At most half of the free memory is used.
    pub memory: f64,
    pub dtype: DType,
}

impl Needs {
    /// Training and test samples in memory, in the type in which models are trained.
    pub fn training(samples: Option<usize>) -> Self {
        Self {
            samples,
            has_samples_flag: true,
            test: true,
            in_parts: false,
            memory: f64::INFINITY,
            dtype: DType::F32,
        }
    }
}
