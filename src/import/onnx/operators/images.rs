//! Convolution and pooling.

use candle_core::Tensor;

use super::super::evaluate::{Call, Failure};
use super::shapes::padded;
use crate::nn;

/// Sizes along each axis of an image.
struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// Entries added before and after the image, along each axis.
    pads: Vec<[usize; 2]>,
}

impl Window {
    /// Reads the attributes for images with these sizes.
    fn new(call: &Call, kernel: Vec<usize>, sizes: &[usize]) -> Result<Self, Failure> {
        let node = call.node;
        let axes = sizes.len();
        let strides = node.sizes_or("strides", axes, 1)?;
        let dilations = node.sizes_or("dilations", axes, 1)?;
        if kernel.len() != axes
            || [&kernel, &strides, &dilations]
                .iter()
                .any(|s| s.contains(&0))
        {
            return Err(call.problem(format_args!(
                "has kernels of {kernel:?}, strides {strides:?} and dilations {dilations:?} for images of {sizes:?}"
            )));
        }
        let explicit = node.sizes_or("pads", 2 * axes, 0)?;
        let same = |i: usize| {
            let outputs = sizes[i].div_ceil(strides[i]);
            let reach = dilations[i].saturating_mul(kernel[i] - 1).saturating_add(1);
            let needed = outputs
                .saturating_sub(1)
                .saturating_mul(strides[i])
                .saturating_add(reach);
            needed.saturating_sub(sizes[i])
        };
        let pads = match node.text_or("auto_pad", "NOTSET")? {
            "SAME_UPPER" => (0..axes)
                .map(|i| [same(i) / 2, same(i).div_ceil(2)])
                .collect(),
            "SAME_LOWER" => (0..axes)
                .map(|i| [same(i).div_ceil(2), same(i) / 2])
                .collect(),
            "VALID" => vec![[0, 0]; axes],
            _ => (0..axes)
                .map(|i| [explicit[i], explicit[i + axes]])
                .collect(),
        };
        let window = Self {
            kernel,
            strides,
            dilations,
            pads,
        };
        for (i, size) in sizes.iter().enumerate() {
            let padded = window.pads[i]
                .iter()
                .try_fold(*size, |n, pad| n.checked_add(*pad));
            if padded.is_none_or(|padded| padded < window.reach(i)) {
                return Err(call.problem(format_args!(
                    "has kernels of {:?}, which do not fit images of {sizes:?}",
                    window.kernel
                )));
            }
        }
        Ok(window)
    }

    /// Number of entries that a kernel spans along axis `i`.
    fn reach(&self, i: usize) -> usize {
        self.dilations[i]
            .saturating_mul(self.kernel[i] - 1)
            .saturating_add(1)
    }

    /// The number of all attributes if it is the same along each axis and on each side.
    fn common(&self) -> Option<[usize; 3]> {
        fn same<T: PartialEq + Copy>(values: &[T]) -> Option<T> {
            let (first, rest) = values.split_first()?;
            rest.iter().all(|value| value == first).then_some(*first)
        }
        let [before, after] = same(&self.pads)?;
        let padding = (before == after).then_some(before)?;
        Some([padding, same(&self.strides)?, same(&self.dilations)?])
    }

    /// Adds entries of `value` around an image.
    fn pad(&self, call: &Call, x: &Tensor, value: f64) -> Result<Tensor, Failure> {
        let mut x = x.clone();
        for (i, sizes) in self.pads.iter().enumerate() {
            let sizes = sizes.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
            x = padded(call, &x, i + 2, sizes, value)?;
        }
        Ok(x)
    }
}

/// An image with one axis gets a second one of size 1, before it.
fn as_images(x: &Tensor) -> candle_core::Result<Tensor> {
    match x.rank() {
        3 => x.unsqueeze(2),
        _ => Ok(x.clone()),
    }
}

/// A window for images with one axis gets a second axis, before it, along which it has size 1.
fn window_of_images(mut window: Window) -> Window {
    if window.kernel.len() == 1 {
        for sizes in [&mut window.kernel, &mut window.dilations] {
            sizes.insert(0, 1);
        }
        // The only row is at every stride.
        window.strides.insert(0, window.strides[0]);
        window.dilations[0] = window.dilations[1];
        window.pads.insert(0, [0, 0]);
    }
    window
}

pub(super) fn conv(call: &Call) -> Result<Tensor, Failure> {
    let (x, weight) = (call.floats(0)?, call.floats(1)?);
    let rank = x.rank();
    if !(3..=4).contains(&rank) || weight.rank() != rank {
        return Err(call.problem(format_args!(
            "has inputs of shape {:?} and kernels of shape {:?}: only images of one or two axes are supported",
            x.dims(),
            weight.dims()
        )));
    }
    let window = Window::new(call, weight.dims()[2..].to_vec(), &x.dims()[2..])?;
    let window = window_of_images(window);
    let groups = usize::try_from(call.node.int_or("group", 1)?).unwrap_or(0);
    let (images, kernels) = (as_images(x)?, as_images(weight)?);
    let (outputs, inputs, ..) = kernels.dims4()?;
    if groups == 0 || inputs.checked_mul(groups) != Some(x.dims()[1]) || outputs % groups != 0 {
        return Err(call.problem(format_args!(
            "has kernels of shape {:?} in {groups} groups for {} channels",
            weight.dims(),
            x.dims()[1]
        )));
    }
    let y = convolution(call, &window, &images, &kernels, groups)?;
    let y = match rank {
        3 => y.squeeze(2)?,
        _ => y,
    };
    match call.optional(2) {
        None => Ok(y),
        Some(_) => {
            let bias = call.floats(2)?;
            if bias.dims() != [outputs] {
                return Err(call.problem(format_args!(
                    "has a bias of shape {:?} for {outputs} channels",
                    bias.dims()
                )));
            }
            let mut shape = vec![1; rank];
            shape[1] = outputs;
            Ok(y.broadcast_add(&bias.reshape(shape)?)?)
        }
    }
}

/// The kernels of [`nn`] have one padding, stride and dilation for both axes: others are padded and picked here.
fn convolution(
    call: &Call,
    window: &Window,
    images: &Tensor,
    kernels: &Tensor,
    groups: usize,
) -> Result<Tensor, Failure> {
    let padded = |i: usize| window.pads[i].iter().sum::<usize>() + images.dims()[i + 2];
    let most_channels = images.dims()[1].max(kernels.dims()[0]);
    call.check_size(&[images.dims()[0], most_channels, padded(0), padded(1)])?;
    if let Some([padding, stride, dilation]) = window.common() {
        return Ok(nn::ops::conv2d(
            images, kernels, padding, stride, dilation, groups,
        )?);
    }
    let images = window.pad(call, images, 0.0)?;
    let [down, right] = [window.dilations[0], window.dilations[1]];
    let dilation = match (window.kernel[0], window.kernel[1]) {
        (1, _) => right,
        (_, 1) => down,
        _ if down == right => down,
        _ => {
            return Err(call.problem(format_args!(
                "has different dilations {:?}",
                window.dilations
            )));
        }
    };
    let strides = [window.strides[0], window.strides[1]];
    if strides[0] == strides[1] {
        return Ok(nn::ops::conv2d(
            &images, kernels, 0, strides[0], dilation, groups,
        )?);
    }
    let mut y = nn::ops::conv2d(&images, kernels, 0, 1, dilation, groups)?;
    for (i, stride) in strides.into_iter().enumerate() {
        y = every(&y, i + 2, 0, stride, y.dims()[i + 2].div_ceil(stride))?;
    }
    Ok(y)
}

/// `count` entries of an axis, `step` apart.
fn every(
    x: &Tensor,
    axis: usize,
    start: usize,
    step: usize,
    count: usize,
) -> candle_core::Result<Tensor> {
    match step {
        1 => x.narrow(axis, start, count),
        _ => {
            let places = (0..count).map(|i| (start + i * step) as u32);
            let places = Tensor::from_iter(places, x.device())?;
            x.contiguous()?.index_select(&places, axis)
        }
    }
}

pub(super) fn pool(call: &Call) -> Result<Tensor, Failure> {
    let node = call.node;
    let x = call.floats(0)?;
    let rank = x.rank();
    if !(3..=4).contains(&rank) {
        return Err(call.problem(format_args!(
            "has inputs of shape {:?}: only images of one or two axes are supported",
            x.dims()
        )));
    }
    let kernel = node.sizes_or("kernel_shape", rank - 2, 0)?;
    let mut window = window_of_images(Window::new(call, kernel, &x.dims()[2..])?);
    let images = as_images(x)?;
    let sizes = [images.dims()[2], images.dims()[3]];
    let is_rounded_up = node.int_or("ceil_mode", 0)? == 1;
    let stated: Vec<[usize; 2]> = window.pads.clone();
    // Number of outputs along an axis, and of entries that the last one reads after the image.
    let along = |i: usize| {
        let stride = window.strides[i];
        let [before, after] = window.pads[i];
        let free = sizes[i] + before + after - window.reach(i);
        let count = free / stride + 1;
        // One more, if it does not start after the image.
        match is_rounded_up && !free.is_multiple_of(stride) && count * stride < sizes[i] + before {
            true => (count + 1, stride - free % stride),
            false => (count, 0),
        }
    };
    let outputs = [along(0), along(1)];
    let counts = outputs.map(|(count, _)| count);
    for (pads, (_, added)) in window.pads.iter_mut().zip(outputs) {
        pads[1] += added;
    }
    let y = match node.op.as_str() {
        "MaxPool" => {
            let padded = window.pad(call, &images, f64::NEG_INFINITY)?;
            combine(&padded, &window, counts, |a, b| a.maximum(b))?
        }
        _ => {
            let padded = window.pad(call, &images, 0.0)?;
            let sum = match window.common() {
                Some([_, stride, 1]) if window.kernel[0] == window.kernel[1] => {
                    let area = (window.kernel[0] * window.kernel[1]) as f64;
                    (nn::ops::avg_pool2d(&padded, window.kernel[0], stride)? * area)?
                }
                _ => combine(&padded, &window, counts, |a, b| a + b)?,
            };
            let with_pads = node.int_or("count_include_pad", 0)? == 1;
            let divisors = divisors(&window, counts, sizes, &stated, with_pads);
            let divisors = Tensor::from_vec(divisors, (counts[0], counts[1]), x.device())?;
            sum.broadcast_div(&divisors.to_dtype(x.dtype())?)?
        }
    };
    match rank {
        3 => Ok(y.squeeze(2)?),
        _ => Ok(y),
    }
}

/// Combines the entries of each window.
fn combine(
    x: &Tensor,
    window: &Window,
    counts: [usize; 2],
    f: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor, Failure> {
    let mut total: Option<Tensor> = None;
    for i in 0..window.kernel[0] {
        let rows = every(x, 2, i * window.dilations[0], window.strides[0], counts[0])?;
        for j in 0..window.kernel[1] {
            let here = every(
                &rows,
                3,
                j * window.dilations[1],
                window.strides[1],
                counts[1],
            )?;
            total = Some(match total {
                Some(total) => f(&total, &here)?,
                None => here,
            });
        }
    }
    total.ok_or_else(|| candle_core::Error::Msg("an empty window".into()).into())
}

/// Number of entries of each window, without or with the stated padding.
fn divisors(
    window: &Window,
    counts: [usize; 2],
    sizes: [usize; 2],
    stated: &[[usize; 2]],
    with_pads: bool,
) -> Vec<f64> {
    let along = |axis: usize| {
        let [before, after] = stated[axis];
        let inside = match with_pads {
            true => 0..before + sizes[axis] + after,
            false => before..before + sizes[axis],
        };
        let entries = move |i: usize| {
            let places = (0..window.kernel[axis])
                .map(|j| i * window.strides[axis] + j * window.dilations[axis]);
            places.filter(|place| inside.contains(place)).count().max(1) as f64
        };
        (0..counts[axis]).map(entries).collect::<Vec<_>>()
    };
    let (rows, columns) = (along(0), along(1));
    let each = rows
        .iter()
        .flat_map(|row| columns.iter().map(move |column| row * column));
    each.collect()
}

pub(super) fn global_pool(call: &Call) -> Result<Tensor, Failure> {
    let x = call.floats(0)?;
    if x.rank() < 3 || x.dims().contains(&0) {
        return Err(call.problem(format_args!("has inputs of shape {:?}", x.dims())));
    }
    let pixels = x.flatten_from(2)?;
    let pooled = match call.node.op.as_str() {
        "GlobalMaxPool" => pixels.max_keepdim(2)?,
        _ => pixels.mean_keepdim(2)?,
    };
    let shape = [&x.dims()[..2], &vec![1; x.rank() - 2][..]].concat();
    Ok(pooled.reshape(shape)?)
}
