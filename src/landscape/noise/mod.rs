//! The noise of stochastic gradients, where it drives SGD, and which learning rates are stable.

mod gradient_noise;
mod implicit_bias;
mod stable_rate;

pub use gradient_noise::{GradientNoise, NoiseReport};
pub use implicit_bias::{ImplicitBias, ModifiedLoss};
pub use stable_rate::StableRate;
