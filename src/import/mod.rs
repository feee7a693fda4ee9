//! Networks and weights from elsewhere: [`Onnx`] reads a model that was exported to ONNX, and [`Matching`] matches the tensors of a file
//! to a model's parameters.

mod onnx;
mod weights;

pub use onnx::{Onnx, OnnxParameter, OnnxSettings, OnnxSummary};
pub use weights::Matching;
