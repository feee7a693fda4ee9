//! Functions of tensors that are differentiable any number of times: convolution and pooling of images, and the normalisation,
//! attention and activations of transformers. Those for transformers consist of candle's plain operations, on every device.

mod images;
mod transformer;

pub use images::{avg_pool2d, conv2d, max_pool2d};
pub(super) use images::{convolution, has_kernels};
pub(super) use transformer::normalize;
pub use transformer::{
    attention, gelu, gelu_erf, layer_norm, rms_norm, rope, rope_i, rope_thd, softmax,
    softmax_last_dim,
};
