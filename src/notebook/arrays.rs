//! Arrays and tensors: shape, element type and the corners of the values.

use candle_core::{DType, Device, DeviceLocation, Tensor, Var};
use ndarray::{
    Array, ArrayD, ArrayView, ArrayViewD, Axis, CowArray, Dimension, IxDyn, Slice, concatenate,
};

use super::lists::{ENDS, MAX_ITEMS};
use super::numbers::{LIST_DIGITS, bool_list, float, float_list, integer_list};
use super::{Bundle, Show};
use crate::error::{Error, Result};

/// Number of entries that are shown at each end of an axis, or `None` if all are.
///
/// Only the last two axes are shown like lists: blocks of more axes would be long.
fn ends(shape: &[usize], axis: usize) -> Option<usize> {
    let (longest, ends) = match axis + 2 >= shape.len() {
        true => (MAX_ITEMS, ENDS),
        false => (3, 1),
    };
    (shape[axis] > longest).then_some(ends)
}

fn corners<T: Clone>(values: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
    let shape = values.shape().to_vec();
    let mut corners = CowArray::from(values);
    for axis in 0..shape.len() {
        if let Some(ends) = ends(&shape, axis) {
            let ends = ends as isize;
            let head = corners.slice_axis(Axis(axis), Slice::from(..ends));
            let tail = corners.slice_axis(Axis(axis), Slice::from(-ends..));
            let both = concatenate(Axis(axis), &[head, tail]).map_err(invalid)?;
            corners = CowArray::from(both);
        }
    }
    Ok(corners.into_owned())
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::invalid(error.to_string())
}

/// The corners in nested brackets, in columns of one width. `shape` is that of the whole array.
fn brackets(corners: ArrayD<String>, shape: &[usize]) -> String {
    let width = corners.iter().map(|cell| cell.chars().count()).max();
    let width = width.unwrap_or(0);
    let cells = corners.mapv(|cell| format!("{cell:>width$}"));
    let gaps: Vec<_> = (0..shape.len()).map(|axis| ends(shape, axis)).collect();
    nested(cells.view(), &gaps, 1)
}

fn nested(cells: ArrayViewD<'_, String>, gaps: &[Option<usize>], depth: usize) -> String {
    let Some((gap, gaps)) = gaps.split_first() else {
        return cells.iter().cloned().collect();
    };
    let parts = cells.outer_iter().map(|part| nested(part, gaps, depth + 1));
    let mut parts: Vec<_> = parts.collect();
    if let Some(gap) = gap {
        parts.insert(*gap, "…".into());
    }
    let separator = match gaps.len() {
        0 => ", ".to_owned(),
        axes => format!(",{}{}", "\n".repeat(axes), " ".repeat(depth)),
    };
    format!("[{}]", parts.join(&separator))
}

/// Texts with the same number of decimals, so that decimal points align: enough for the digits of the largest value, fewer
/// if all values have fewer.
fn aligned(values: &ArrayD<f64>) -> ArrayD<String> {
    let finite = || values.iter().filter(|x| x.is_finite());
    let largest = finite().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    if largest != 0.0 && !(1e-3..1e5).contains(&largest) {
        return values.mapv(|x| format!("{x:.*e}", LIST_DIGITS - 1));
    }
    let exponent = largest.max(1e-3).log10().floor() as i32;
    let longest = (LIST_DIGITS as i32 - 1 - exponent).max(1);
    let is_exact = |decimals: &i32| {
        let unit = 10f64.powi(-decimals);
        let tolerance = 0.01 * 10f64.powi(-longest);
        finite().all(|x| ((x / unit).round() * unit - x).abs() <= tolerance)
    };
    let decimals = (1..longest).find(is_exact).unwrap_or(longest) as usize;
    values.mapv(|x| format!("{x:.decimals$}"))
}

fn float_block(corners: ArrayD<f64>, shape: &[usize]) -> String {
    brackets(aligned(&corners), shape)
}

fn integer_block<T: Clone + ToString>(corners: ArrayD<T>, shape: &[usize]) -> String {
    brackets(corners.mapv(|x| x.to_string()), shape)
}

macro_rules! arrays {
    ($($type:ident: $list:ident, $block:ident, $convert:expr;)+) => {
        $(impl<D: Dimension> Show for Array<$type, D> {
            fn bundle(&self) -> Result<Bundle> {
                self.view().bundle()
            }
        }

        impl<D: Dimension> Show for ArrayView<'_, $type, D> {
            fn bundle(&self) -> Result<Bundle> {
                if self.ndim() == 1 {
                    let values: Vec<_> = self.iter().map($convert).collect();
                    return Ok(Bundle::text($list(&values)));
                }
                let corners = corners(self.view().into_dyn())?.map($convert);
                let block = $block(corners, self.shape());
                let (shape, kind) = (self.shape(), stringify!($type));
                Ok(Bundle::text(format!("Array of shape {shape:?} ({kind})\n{block}")))
            }
        })+
    };
}
arrays! {
    f64: float_list, float_block, |x| *x;
    f32: float_list, float_block, |x| f64::from(*x);
    i32: integer_list, integer_block, |x| *x;
    i64: integer_list, integer_block, |x| *x;
    u8: integer_list, integer_block, |x| *x;
    u32: integer_list, integer_block, |x| *x;
    u64: integer_list, integer_block, |x| *x;
    usize: integer_list, integer_block, |x| *x;
    bool: bool_list, integer_block, |x| *x;
}

/// The corners of a tensor, copied to the host.
fn tensor_corners(tensor: &Tensor) -> candle_core::Result<Tensor> {
    let mut corners = tensor.detach();
    for (axis, &length) in tensor.dims().iter().enumerate() {
        if let Some(ends) = ends(tensor.dims(), axis) {
            let (head, tail) = (
                corners.narrow(axis, 0, ends)?,
                corners.narrow(axis, length - ends, ends)?,
            );
            corners = Tensor::cat(&[head, tail], axis)?;
        }
    }
    corners.to_device(&Device::Cpu)
}

fn host_array<T: candle_core::WithDType>(tensor: &Tensor) -> Result<ArrayD<T>> {
    let values = tensor.flatten_all()?.to_vec1()?;
    ArrayD::from_shape_vec(IxDyn(tensor.dims()), values).map_err(invalid)
}

impl Show for Tensor {
    fn bundle(&self) -> Result<Bundle> {
        let (shape, dtype) = (self.dims(), self.dtype());
        let kind = format!("{dtype:?}, {}", device(self.device()));
        let values = match shape.len() {
            1 => self.to_device(&Device::Cpu)?,
            _ => tensor_corners(self)?,
        };
        let values = values.to_dtype(match dtype.is_int() {
            true => DType::I64,
            false => DType::F64,
        })?;
        if shape.is_empty() {
            let number = match dtype {
                DType::F32 => f32::inline(&self.to_scalar()?)?,
                dtype if dtype.is_int() => values.to_scalar::<i64>()?.to_string(),
                _ => float(values.to_scalar()?),
            };
            return Ok(Bundle::text(format!("{number} (0-d tensor, {kind})")));
        }
        let text = match (shape.len(), dtype.is_int()) {
            (1, true) => integer_list(&values.to_vec1::<i64>()?),
            (1, false) => float_list(&values.to_vec1()?),
            (_, true) => integer_block(host_array::<i64>(&values)?, shape),
            (_, false) => float_block(host_array(&values)?, shape),
        };
        Ok(Bundle::text(format!(
            "Tensor of shape {shape:?} ({kind})\n{text}"
        )))
    }

    fn inline(&self) -> Result<String> {
        match self.dims() {
            [] => Ok(self
                .bundle()?
                .get("text/plain")
                .unwrap_or_default()
                .to_owned()),
            shape => Ok(format!("Tensor of shape {shape:?} ({:?})", self.dtype())),
        }
    }
}

impl Show for Var {
    fn bundle(&self) -> Result<Bundle> {
        self.as_tensor().bundle()
    }

    fn inline(&self) -> Result<String> {
        self.as_tensor().inline()
    }
}

/// `CPU`, `CUDA 0` or `Metal 0`.
pub(super) fn device(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "CPU".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("CUDA {gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("Metal {gpu_id}"),
    }
}

impl Show for Device {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(device(self)))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, array};

    use super::super::plain_text as text;
    use super::*;

    fn tensor(values: impl candle_core::NdArray) -> String {
        text(Tensor::new(values, &Device::Cpu).unwrap())
    }

    #[test]
    fn matrices_align() {
        assert_eq!(
            text(array![[1.0, -0.5], [0.25, 12.0]]),
            "Array of shape [2, 2] (f64)\n[[ 1.00, -0.50],\n [ 0.25, 12.00]]"
        );
        assert_eq!(
            text(array![[1.0 / 3.0, f64::NAN], [f64::NEG_INFINITY, -0.0]]),
            "Array of shape [2, 2] (f64)\n[[ 0.333333,       NaN],\n [     -inf, -0.000000]]"
        );
        assert_eq!(
            text(array![[1e-9f32, 2.0e-7]]),
            "Array of shape [1, 2] (f32)\n[[1.00000e-9, 2.00000e-7]]"
        );
        assert_eq!(
            text(array![[1, -10]]),
            "Array of shape [1, 2] (i32)\n[[  1, -10]]"
        );
        assert_eq!(
            text(Array2::<f64>::zeros((2, 0))),
            "Array of shape [2, 0] (f64)\n[[],\n []]"
        );
        assert_eq!(
            text(array![[0.0], [f64::NAN]]),
            "Array of shape [2, 1] (f64)\n[[0.0],\n [NaN]]"
        );
    }

    #[test]
    fn entries_have_the_decimals_that_the_largest_needs() {
        let block = |value: f64| text(array![[value, 0.0]]);
        assert!(block(0.1f32.into()).ends_with("[[0.1, 0.0]]"));
        assert!(block(99_999.75).ends_with("[[99999.8,     0.0]]"));
        assert!(block(0.001_234_567).ends_with("[[0.00123457, 0.00000000]]"));
        assert!(block(-1e5).ends_with("[[-1.00000e5,  0.00000e0]]"));
        assert!(text(array![[1.5, 0.400_001]]).ends_with("[[1.50000, 0.40000]]"));
        assert!(text(array![[2.0, 0.25]]).ends_with("[[2.00, 0.25]]"));
    }

    #[test]
    fn arrays_of_truth_values() {
        assert_eq!(
            text(array![[true], [false]]),
            "Array of shape [2, 1] (bool)\n[[ true],\n [false]]"
        );
        assert!(text(Array1::from_elem(11, true)).ends_with("(11 values, 11 true)"));
    }

    #[test]
    fn large_arrays_show_their_corners() {
        let square = Array2::from_shape_fn((300, 400), |(i, j)| (1000 * i + j) as f64 / 1000.0);
        assert_eq!(
            text(square),
            "Array of shape [300, 400] (f64)\n\
             [[  0.000,   0.001,   0.002, …,   0.397,   0.398,   0.399],\n \
             [  1.000,   1.001,   1.002, …,   1.397,   1.398,   1.399],\n \
             [  2.000,   2.001,   2.002, …,   2.397,   2.398,   2.399],\n \
             …,\n \
             [297.000, 297.001, 297.002, …, 297.397, 297.398, 297.399],\n \
             [298.000, 298.001, 298.002, …, 298.397, 298.398, 298.399],\n \
             [299.000, 299.001, 299.002, …, 299.397, 299.398, 299.399]]"
        );
        assert_eq!(
            text(Array1::<f64>::ones(100_000)),
            "[1.0, 1.0, 1.0, …, 1.0, 1.0, 1.0] (100000 values, norm 316.228)"
        );
    }

    #[test]
    fn tensors_show_shape_type_and_device() {
        assert_eq!(tensor(2.5f64), "2.5 (0-d tensor, F64, CPU)");
        assert_eq!(tensor(0.1f32), "0.1 (0-d tensor, F32, CPU)");
        assert_eq!(tensor(7u32), "7 (0-d tensor, U32, CPU)");
        assert_eq!(tensor(f64::NAN), "NaN (0-d tensor, F64, CPU)");
        assert_eq!(tensor(&[2f64]), "Tensor of shape [1] (F64, CPU)\n[2.0]");
        assert_eq!(
            tensor(&[[1u8, 20], [3, 4]]),
            "Tensor of shape [2, 2] (U8, CPU)\n[[ 1, 20],\n [ 3,  4]]"
        );
        let labels = Tensor::arange(0u32, 100_000, &Device::Cpu).unwrap();
        assert_eq!(
            text(labels),
            "Tensor of shape [100000] (U32, CPU)\n\
             [0, 1, 2, …, 99997, 99998, 99999] (100000 values, 0 to 99999)"
        );
        let empty = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(text(empty), "Tensor of shape [0, 3] (F32, CPU)\n[]");
    }

    #[test]
    fn images_show_a_few_of_their_blocks() {
        let images = Tensor::ones((64, 3, 28, 28), DType::F32, &Device::Cpu).unwrap();
        let shown = text(images.transpose(1, 2).unwrap().transpose(1, 2).unwrap());
        assert_eq!(shown.matches("1.0").count(), 2 * 3 * 6 * 6);
        let row = "[1.0, 1.0, 1.0, …, 1.0, 1.0, 1.0]";
        assert!(shown.starts_with(&format!(
            "Tensor of shape [64, 3, 28, 28] (F32, CPU)\n[[[{row},\n   {row},\n   {row},\n   …,\n"
        )));
        assert!(shown.contains(&format!("{row}]],\n\n\n …,\n\n\n [[{row}")));
        assert!(shown.ends_with("]]]]"));
    }

    #[test]
    fn tensors_within_other_values_are_one_line() {
        let tensors = vec![Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap(); 2];
        let line = "Tensor of shape [2, 3] (F32)";
        assert_eq!(text(tensors), format!("[{line}, {line}]"));
    }
}
