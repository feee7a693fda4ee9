//! Functions of images, tensors of shape (n, channels, height, width).

use candle_core::{DType, Result, Tensor, bail};

use super::super::batched_convolution::BatchedConvolution;
use super::super::trilinear::convolve;
use crate::kernels::convolution::ConvolutionShape;

/// Convolution (cross-correlation, as usual in the field) of images with kernels: [`Tensor::conv2d`] with the same
/// order of arguments.
///
/// `weight` has shape (channels out, channels / `groups`, height, width); `padding` rows and columns of zeros are
/// added on each side; `dilation` is the step within a kernel. For `f32` and `f64` on the CPU it uses its own kernels
/// and derivatives; otherwise candle's. Results are bit-identical for any number of threads.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let image = Tensor::arange(0.0, 16.0, &Device::Cpu)?.reshape((1, 1, 4, 4))?;
/// let ones = Tensor::ones((1, 1, 3, 3), DType::F64, &Device::Cpu)?;
/// let sums = nn::ops::conv2d(&image, &ones, 0, 1, 1, 1)?; // 3 × 3 outputs
/// assert_eq!(
///     sums.flatten_all()?.to_vec1::<f64>()?,
///     [45.0, 54.0, 81.0, 90.0]
/// );
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Channels and groups that do not fit; a kernel larger than the padded image; zero sizes; different dtypes.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    padding: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
) -> Result<Tensor> {
    match has_kernels(x) {
        true => convolution(x, weight, None, [padding, stride, dilation, groups]),
        false => x.conv2d(weight, padding, stride, dilation, groups),
    }
}

/// Whether this module's convolution kernels support the tensor.
pub(in crate::nn) fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// [`conv2d`] by this module's kernels, with an optional bias per channel.
pub(in crate::nn) fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [padding, stride, dilation, groups]: [usize; 4],
) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        bail!(
            "images of {:?} and kernels of {:?}: convert one with to_dtype",
            x.dtype(),
            weight.dtype()
        );
    }
    let (n, channels, height, width) = x.dims4()?;
    let (outputs, inputs, down, right) = weight.dims4()?;
    if groups == 0 || outputs % groups != 0 || inputs.checked_mul(groups) != Some(channels) {
        bail!(
            "kernels of shape {:?} in {groups} groups do not fit images of {channels} channels: kernels see \
             channels / groups, and groups must divide {outputs}",
            weight.dims()
        );
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        bail!("a bias of shape {:?} for {outputs} channels", bias.dims());
    }
    let shape = ConvolutionShape {
        input: [channels, height, width],
        channels: outputs,
        kernel: [down, right],
        stride,
        padding,
        dilation,
        groups,
    };
    let convolution = match BatchedConvolution::new(shape, bias.is_some()) {
        Ok(convolution) => convolution,
        Err(wanted) => bail!(
            "conv2d cannot convolve images of {channels} × {height} × {width} with kernels of {down} × {right}: it \
             needs {wanted}"
        ),
    };
    let output = convolution.output();
    if output
        .iter()
        .try_fold(n, |n, size| n.checked_mul(*size))
        .is_none()
    {
        bail!("{n} images of {output:?}, from a padding of {padding}, are too large");
    }
    let weight = weight.flatten_all()?;
    match bias {
        Some(bias) => convolve(convolution, x, &Tensor::cat(&[&weight, bias], 0)?),
        None => convolve(convolution, x, &weight),
    }
}

/// Average of each square of `kernel` × `kernel` pixels with the given `stride`, as
/// [`Tensor::avg_pool2d_with_stride`]. Remaining rows and columns are ignored.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let image = Tensor::arange(0.0, 16.0, &Device::Cpu)?.reshape((1, 1, 4, 4))?;
/// let means = nn::ops::avg_pool2d(&image, 2, 2)?;
/// assert_eq!(
///     means.flatten_all()?.to_vec1::<f64>()?,
///     [2.5, 4.5, 10.5, 12.5]
/// );
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A square larger than the image; zero sizes.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let (n, channels, height, width) = x.dims4()?;
    check_squares(kernel, stride, [height, width])?;
    let share = 1.0 / (kernel * kernel) as f64;
    let mean = Tensor::full(share, (1, 1, kernel, kernel), x.device())?.to_dtype(x.dtype())?;
    let one_by_one = x.reshape((n * channels, 1, height, width))?;
    let y = conv2d(&one_by_one, &mean, 0, stride, 1, 1)?;
    let (_, _, height, width) = y.dims4()?;
    y.reshape((n, channels, height, width))
}

/// Maximum of each square of `kernel` × `kernel` pixels with the given `stride`, as
/// [`Tensor::max_pool2d_with_stride`]. Remaining rows and columns are ignored; equal maxima share the derivative.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let image = Tensor::arange(0.0, 16.0, &Device::Cpu)?.reshape((1, 1, 4, 4))?;
/// let largest = nn::ops::max_pool2d(&image, 2, 2)?;
/// assert_eq!(
///     largest.flatten_all()?.to_vec1::<f64>()?,
///     [5.0, 7.0, 13.0, 15.0]
/// );
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A square larger than the image; zero sizes.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    check_squares(kernel, stride, [height, width])?;
    let every = |from: usize, size: usize| {
        let places = (0..=(size - kernel) / stride).map(|i| (from + i * stride) as u32);
        Tensor::from_iter(places, x.device())
    };
    // One candidate per offset within the squares, compared one after another.
    let x = x.contiguous()?;
    let mut largest: Option<Tensor> = None;
    for i in 0..kernel {
        let rows = x.index_select(&every(i, height)?, 2)?;
        for j in 0..kernel {
            let here = rows.index_select(&every(j, width)?, 3)?;
            largest = Some(match largest {
                Some(largest) => largest.maximum(&here)?,
                None => here,
            });
        }
    }
    largest.ok_or_else(|| candle_core::Error::Msg("the pooling square is empty".into()))
}

fn check_squares(kernel: usize, stride: usize, [height, width]: [usize; 2]) -> Result<()> {
    if kernel == 0 || stride == 0 || kernel > height.min(width) {
        bail!("squares of {kernel}, {stride} apart, do not fit images of {height} × {width}");
    }
    Ok(())
}
