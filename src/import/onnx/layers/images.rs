//! Nodes on images: convolutions, pools and normalisation of channels.

use super::function::as_written;
use super::network::{Norm, Part, Step};
use super::view::{Base, View};
use super::{Mapper, unmapped};
use crate::import::onnx::graph::{Node, index};
use crate::layers::{
    AveragePool, BatchNorm, Conv2d, GlobalAveragePool, GroupNorm, LayerKind, Linear, MaxPool,
    Patches, PositionMean, SelectPosition, Shape,
};

/// Settings of a square window: each holds along both axes of an image.
struct Window {
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
}

/// Reads the settings of a node whose window is square. The kernel of a convolution is in its weight, and 0 here.
fn window(node: &Node) -> Result<Window, String> {
    let same = |name: &str, len: usize, default: usize| {
        let sizes = node.sizes_or(name, len, default)?;
        match sizes.iter().all(|size| *size == sizes[0]) {
            true => Ok(sizes[0]),
            false => Err(node.problem(format_args!(
                "has {name} {sizes:?}: hand-derived rules need one number"
            ))),
        }
    };
    match node.text_or("auto_pad", "NOTSET")? {
        "NOTSET" | "VALID" => {}
        other => {
            return Err(node.problem(format_args!(
                "has auto_pad {other}, which has no hand-derived rules"
            )));
        }
    }
    Ok(Window {
        kernel: match node.op.as_str() {
            "Conv" => 0,
            _ => same("kernel_shape", 2, 1)?,
        },
        stride: same("strides", 2, 1)?,
        padding: same("pads", 4, 0)?,
        dilation: same("dilations", 2, 1)?,
    })
}

impl Mapper<'_> {
    /// The step whose samples are the images that a node reads.
    fn images(&mut self, node: &Node) -> Result<(usize, [usize; 3]), String> {
        let view = self.input(node, 0)?;
        let &[_, channels, height, width] = &view.dims[..] else {
            return Err(node.problem(format_args!(
                "reads values of {} axes: hand-derived rules need images of shape (channels, height, width)",
                view.dims.len()
            )));
        };
        let from = self.samples_of(&view).map_err(|e| node.problem(e))?;
        Ok((from, [channels, height, width]))
    }

    /// The view of the whole output of a step, in the shape of a node's output.
    fn whole_output(&self, node: &Node, step: usize) -> Result<View, String> {
        let dims = self.dims(node.output()?)?;
        let expected = self.samples * self.network.shape(step).len();
        match dims.iter().product::<usize>() == expected {
            true => Ok(View::whole(Base::Step(step), dims)),
            false => Err(node.problem(format_args!(
                "has an output of shape {dims:?}, and its layer {expected} numbers"
            ))),
        }
    }

    pub(super) fn conv(&mut self, node: &Node) -> Result<View, String> {
        let (from, _) = self.images(node)?;
        let weight = self.view(node, 1)?;
        let Window {
            stride,
            padding,
            dilation,
            ..
        } = window(node)?;
        let groups = node.int_or("group", 1)?;
        let groups = usize::try_from(groups).map_err(|_| unmapped(node))?;
        let name = self.parameter(node, &weight, &weight.dims[..], "weight")?;
        let mut conv = Conv2d::new(name)
            .with_stride(stride)
            .with_padding(padding)
            .with_dilation(dilation)
            .with_groups(groups);
        if node.input(2).is_some() {
            let bias = self.view(node, 2)?;
            conv.bias = Some(self.parameter(node, &bias, [bias.len()], "bias")?);
        }
        let sample = Shape::new(&self.dims(node.output()?)?[1..]);
        let step = self.push_shaped(node, conv, from, sample);
        self.whole_output(node, step)
    }

    pub(super) fn batch_norm(&mut self, node: &Node) -> Result<View, String> {
        if node.int_or("training_mode", 0)? != 0 {
            return Err(node.problem("is in training mode: export the model after `model.eval()`"));
        }
        let input = self.input(node, 0)?;
        let from = self.samples_of(&input).map_err(|e| node.problem(e))?;
        let [weight, bias] = self.weight_and_bias(node)?;
        let mut statistic = |i: usize, part: &str| {
            let source = node.required_input(i)?;
            if !self.graph.statistics.contains_key(source) {
                return Err(unmapped(node));
            }
            let name = match weight.strip_suffix("weight") {
                Some(stem) => format!("{stem}{part}"),
                None => source.to_owned(),
            };
            self.statistics.insert(name.clone(), source.to_owned());
            Ok(name)
        };
        let norm = BatchNorm {
            mean: statistic(3, "running_mean")?,
            variance: statistic(4, "running_var")?,
            weight,
            bias,
            epsilon: as_written(node.float_or("epsilon", 1e-5)?),
            // ONNX weights the previous statistics.
            momentum: rounded(1.0 - as_written(node.float_or("momentum", 0.9)?)),
        };
        let step = self.push_layer(node, norm, from);
        Ok(View::whole(Base::Step(step), input.dims))
    }

    pub(super) fn group_norm(&mut self, node: &Node) -> Result<View, String> {
        let input = self.input(node, 0)?;
        let from = self.samples_of(&input).map_err(|e| node.problem(e))?;
        let groups = usize::try_from(node.int_or("num_groups", 1)?).map_err(|_| unmapped(node))?;
        for (i, part) in [(1, "weight"), (2, "bias")] {
            if Some(&self.view(node, i)?.len()) != input.dims.get(1) {
                return Err(node.problem(format_args!(
                    "has a {part} per group: hand-derived rules need one per channel"
                )));
            }
        }
        let [weight, bias] = self.weight_and_bias(node)?;
        let norm = GroupNorm::new(weight, bias, groups);
        let norm = norm.with_epsilon(as_written(node.float_or("epsilon", 1e-5)?));
        let step = self.push_layer(node, norm, from);
        Ok(View::whole(Base::Step(step), input.dims))
    }

    /// Normalised channels; exporters write groups of channels as one, with weights 1 and biases 0, and the group's weights after it.
    pub(super) fn instance_norm(&mut self, node: &Node) -> Result<View, String> {
        let input = self.input(node, 0)?;
        let epsilon = as_written(node.float_or("epsilon", 1e-5)?);
        let Base::Step(from) = input.base else {
            return Err(unmapped(node));
        };
        let channels = self.network.shape(from).dims().first();
        let groups = input.dims.get(1).copied().unwrap_or(0);
        let is_grouped = channels.is_some_and(|c| groups > 0 && c.is_multiple_of(groups));
        if !input.is_whole() || !is_grouped {
            return Err(unmapped(node));
        }
        if self.is_all(node, 1, 1.0) && self.is_all(node, 2, 0.0) {
            let norm = Norm::Groups(groups);
            let step = self.push_part(node, Part::Normal { norm, epsilon }, from);
            return Ok(View::whole(Base::Step(step), input.dims));
        }
        if channels != Some(&groups) {
            return Err(unmapped(node));
        }
        let [weight, bias] = self.weight_and_bias(node)?;
        let norm = GroupNorm::new(weight, bias, groups).with_epsilon(epsilon);
        let step = self.push_layer(node, norm, from);
        Ok(View::whole(Base::Step(step), input.dims))
    }

    /// Whether all values of an input are one number.
    fn is_all(&self, node: &Node, i: usize, value: f64) -> bool {
        let constant = node.input(i).and_then(|name| self.graph.const_floats(name));
        constant.is_some_and(|values| values.iter().all(|v| *v == value))
    }

    pub(super) fn pool(&mut self, node: &Node) -> Result<View, String> {
        let (from, [channels, height, width]) = self.images(node)?;
        if node.op == "GlobalAveragePool" {
            let shape = Shape::new([channels, 1, 1]);
            let step = self.push_shaped(node, GlobalAveragePool, from, shape);
            return self.whole_output(node, step);
        }
        let Window {
            kernel,
            stride,
            padding,
            dilation,
        } = window(node)?;
        let is_max = node.op == "MaxPool";
        if dilation != 1 || (!is_max && padding > 0) {
            return Err(node.problem("has dilation or padding, which has no hand-derived rules"));
        }
        let windows = |size: usize| {
            ((size + 2 * padding).checked_sub(kernel)? / stride.max(1)).checked_add(1)
        };
        let (Some(rows), Some(columns)) = (windows(height), windows(width)) else {
            return Err(unmapped(node));
        };
        // `ceil_mode` counts windows that extend beyond the image.
        if self.dims(node.output()?)?.get(2..) != Some(&[rows, columns]) {
            return Err(
                node.problem("has windows beyond the image, which has no hand-derived rules")
            );
        }
        if (kernel, stride, padding) == (1, 1, 0) {
            return self.whole_output(node, from);
        }
        let kind: LayerKind = match is_max {
            true => MaxPool::new(kernel, stride).with_padding(padding).into(),
            false => AveragePool::new(kernel, stride).into(),
        };
        let step = self.push_shaped(node, kind, from, Shape::new([channels, rows, columns]));
        self.whole_output(node, step)
    }

    /// The mean over pixels, over positions, or over the last axis as part of a normalisation.
    pub(super) fn mean(&mut self, node: &Node) -> Result<View, String> {
        let view = self.view(node, 0)?;
        let rank = view.dims.len();
        let axes = match (node.ints("axes")?, node.input(1)) {
            (Some(axes), _) => Some(axes.to_vec()),
            (None, Some(name)) => self.graph.const_ints(name),
            (None, None) => None,
        };
        let axes = axes
            .unwrap_or_default()
            .into_iter()
            .map(|axis| index(axis, rank));
        let mut axes: Vec<usize> = axes.collect::<Option<_>>().ok_or_else(|| unmapped(node))?;
        axes.sort_unstable();
        let keeps = node.int_or("keepdims", 1)? != 0;
        match (rank, &axes[..]) {
            (4, [2, 3]) => {
                let (from, [channels, ..]) = self.images(node)?;
                let shape = Shape::new([channels, 1, 1]);
                let step = self.push_shaped(node, GlobalAveragePool, from, shape);
                self.whole_output(node, step)
            }
            (3, [1]) => {
                let input = self.input(node, 0)?;
                let from = self.samples_of(&input).map_err(|e| node.problem(e))?;
                let shape = Shape::new([input.last()]);
                let step = self.push_shaped(node, PositionMean, from, shape);
                self.whole_output(node, step)
            }
            (_, [axis]) if axis + 1 == rank && keeps => {
                let mean = self.function(&view).mean();
                Ok(self.with_function(&view, mean))
            }
            _ => Err(unmapped(node)),
        }
    }

    /// A step with the samples of a view that shows a step's output in another arrangement, if there is a layer for it.
    pub(super) fn rearranged_by_layer(&mut self, view: &View, step: usize) -> Option<usize> {
        self.patches(view, step)
            .or_else(|| self.position(view, step))
    }

    /// A convolution that does not overlap, as a sequence of positions: a linear function of each patch.
    fn patches(&mut self, view: &View, step: usize) -> Option<usize> {
        let Step::Layer {
            kind: LayerKind::Conv2d(conv),
            from,
            ..
        } = self.network.step(step)
        else {
            return None;
        };
        let (conv, from) = (conv.clone(), *from);
        let ([features, rows, columns], [channels, height, width]) = (
            self.network.shape(step).image()?,
            self.network.shape(from).image()?,
        );
        let count = rows * columns;
        let side = conv.stride;
        let kernel = [features, channels, side, side];
        let fits = self.parameters.get(&conv.weight).shape == kernel
            && (conv.padding, conv.dilation, conv.groups) == (0, 1, 1)
            && (height, width) == (rows * side, columns * side)
            && view.dims == [self.samples, count, features]
            && (0..view.len()).all(|i| {
                let (sample, rest) = (i / (count * features), i % (count * features));
                let (patch, feature) = (rest / features, rest % features);
                view.entry(i) == (sample * features + feature) * count + patch
            });
        if !fits {
            return None;
        }
        let values = channels * side * side;
        self.parameters
            .reshape(&conv.weight, vec![features, values]);
        let node = self.network.node(step).to_owned();
        let patches =
            self.network
                .layer(Patches::new(side), from, Shape::new([count, values]), &node);
        let linear = Linear {
            weight: conv.weight,
            bias: conv.bias,
        };
        Some(
            self.network
                .layer(linear, patches, Shape::new([count, features]), &node),
        )
    }

    /// One position of a sequence.
    fn position(&mut self, view: &View, step: usize) -> Option<usize> {
        let &[positions, features] = self.network.shape(step).dims() else {
            return None;
        };
        let position = view.entry(0) / features;
        let fits = position < positions
            && view.len() == self.samples * features
            && (0..view.len()).all(|i| {
                let (sample, feature) = (i / features, i % features);
                view.entry(i) == (sample * positions + position) * features + feature
            });
        let node = self.network.node(step).to_owned();
        let select = SelectPosition::new(position);
        fits.then(|| {
            self.network
                .layer(select, step, Shape::new([features]), &node)
        })
    }
}

/// Removes the rounding error of a difference of short decimals: 0.1 for 1 − 0.9.
fn rounded(value: f64) -> f64 {
    (value * 1e12).round() / 1e12
}
