//! The operators of ONNX, in operations that candle differentiates twice.

mod arithmetic;
mod images;
mod logic;
mod normalization;
mod products;
mod reductions;
mod shapes;

use candle_core::Tensor;

use super::evaluate::{Call, Failure};

/// What an operator returns: the values of its outputs.
type Outputs = Result<Vec<Tensor>, Failure>;

/// Computes the outputs of a node. Optional outputs, such as masks and indices, are left out.
pub(super) fn apply(call: &mut Call) -> Outputs {
    if !call.node.domain.is_empty() {
        return Err(unsupported(call));
    }
    let one = |output: Result<Tensor, Failure>| output.map(|output| vec![output]);
    match call.node.op.as_str() {
        "Identity" => one(call.input(0).cloned()),
        "Dropout" => normalization::dropout(call),
        "Cast" | "CastLike" => one(logic::cast(call)),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" => one(arithmetic::binary(call)),
        "Sum" | "Mean" | "Max" | "Min" => one(arithmetic::variadic(call)),
        "PRelu" => one(arithmetic::prelu(call)),
        "Clip" => one(arithmetic::clip(call)),
        "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" => {
            one(logic::compare(call))
        }
        "And" | "Or" | "Xor" | "Not" | "IsNaN" => one(logic::logic(call)),
        "Where" => one(logic::select(call)),
        "MatMul" => one(products::matmul(call)),
        "Gemm" => one(products::gemm(call)),
        "Conv" => one(images::conv(call)),
        "MaxPool" | "AveragePool" => one(images::pool(call)),
        "GlobalAveragePool" | "GlobalMaxPool" => one(images::global_pool(call)),
        "BatchNormalization" => one(normalization::batch(call)),
        "InstanceNormalization" => one(normalization::instance(call)),
        "GroupNormalization" => one(normalization::group(call)),
        "LayerNormalization" | "RMSNormalization" => one(normalization::layer(call)),
        "Softmax" | "LogSoftmax" => one(reductions::softmax(call)),
        op if op.starts_with("Reduce") => one(reductions::reduce(call)),
        "CumSum" => one(reductions::cumulative_sum(call)),
        "Shape" | "Size" => one(shapes::shape(call)),
        "Reshape" => one(shapes::reshape(call)),
        "Flatten" => one(shapes::flatten(call)),
        "Squeeze" | "Unsqueeze" => one(shapes::squeeze(call)),
        "Transpose" => one(shapes::transpose(call)),
        "Concat" => one(shapes::concat(call)),
        "Split" => shapes::split(call),
        "Slice" => one(shapes::slice(call)),
        "Gather" => one(shapes::gather(call)),
        "GatherElements" => one(shapes::gather_elements(call)),
        "Expand" => one(shapes::expand(call)),
        "Tile" => one(shapes::tile(call)),
        "Pad" => one(shapes::pad(call)),
        "ConstantOfShape" => one(shapes::constant_of_shape(call)),
        "Range" => one(shapes::range(call)),
        "Trilu" => one(shapes::trilu(call)),
        "Abs" | "Ceil" | "Celu" | "Cos" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu"
        | "HardSigmoid" | "HardSwish" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Reciprocal"
        | "Relu" | "Round" | "Selu" | "Sigmoid" | "Sign" | "Sin" | "Softplus" | "Softsign"
        | "Sqrt" | "Swish" | "Tanh" | "ThresholdedRelu" => one(arithmetic::unary(call)),
        _ => Err(unsupported(call)),
    }
}

fn unsupported(call: &Call) -> Failure {
    call.problem("is not supported")
}

/// The shape to which these shapes broadcast.
fn broadcast_shape(call: &Call, shapes: &[&[usize]]) -> Result<Vec<usize>, Failure> {
    let rank = shapes.iter().map(|dims| dims.len()).max().unwrap_or(0);
    let mut common = vec![1; rank];
    for dims in shapes {
        for (to, from) in common[rank - dims.len()..].iter_mut().zip(*dims) {
            match (*to, *from) {
                (1, from) => *to = from,
                (to, from) if from == 1 || from == to => {}
                _ => {
                    return Err(
                        call.problem(format_args!("cannot broadcast the shapes {shapes:?}"))
                    );
                }
            }
        }
    }
    call.check_size(&common)?;
    Ok(common)
}
