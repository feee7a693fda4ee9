//! [`Conv2d`]: two-dimensional convolution.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::row_product::{RowLayout, RowProduct};
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Write};
use super::units::repeated;
use super::{Layer, LayerInit, LayerKind, Misfit, Pass, Shape, UnitGraph, param, var};
use crate::error::{Result, counted};
use crate::kernels::Scalar;
use crate::kernels::convolution::{Convolution, ConvolutionShape};
use crate::kernels::image_grid::Side;
use crate::parameters::Parameters;
use crate::tensor_functions::interruptible;

/// A two-dimensional convolution (cross-correlation, as in PyTorch) with zero padding.
///
/// # Shapes
/// Samples of shape (input channels, height, width) to (output channels, height, width).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Name of the weight, shape (output channels, input channels / groups, height, width).
    pub weight: String,
    /// Name of the bias, shape (output channels,); optional.
    pub bias: Option<String>,
    /// Step between output pixels.
    pub stride: usize,
    /// Rows and columns of zeros on each side of the image.
    pub padding: usize,
    /// Step between the kernel's taps.
    pub dilation: usize,
    /// Groups of output channels that each read their own group of input channels.
    pub groups: usize,
}

impl Conv2d {
    /// A convolution without bias and padding, with stride, dilation and groups 1.
    pub fn new(weight: impl Into<String>) -> Self {
        Self {
            weight: weight.into(),
            bias: None,
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: 1,
        }
    }

    /// Adds a bias.
    #[must_use]
    pub fn with_bias(mut self, bias: impl Into<String>) -> Self {
        self.bias = Some(bias.into());
        self
    }

    /// Sets the stride.
    #[must_use]
    pub fn with_stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Sets the zero padding.
    #[must_use]
    pub fn with_padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// Sets the dilation.
    #[must_use]
    pub fn with_dilation(mut self, dilation: usize) -> Self {
        self.dilation = dilation;
        self
    }

    /// Sets the number of groups.
    #[must_use]
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Draws weight and bias uniformly from ±1/√n for n inputs per output; the weight is scaled by the gain of hidden
    /// layers. The kernel is square, with padding that keeps an image's size at stride 1.
    pub(crate) fn init(
        init: &mut LayerInit,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        bias: Bias,
    ) -> Result<LayerKind> {
        let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
        let shape = [outputs, inputs, kernel, kernel];
        let weight = init.uniform(format!("{name}.weight"), &shape, init.gain() * bound)?;
        let bias = match bias {
            Bias::Uniform => Some(init.uniform(format!("{name}.bias"), &[outputs], bound)?),
            Bias::None => None,
        };
        let conv = Self {
            bias,
            ..Self::new(weight)
        };
        Ok(conv.with_stride(stride).with_padding(kernel / 2).into())
    }

    fn convolution(&self, input: &Shape, parameters: &Parameters) -> Result<Convolution, Misfit> {
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        let weight = param(self, input, parameters, &self.weight)?;
        let &[channels, inputs, height, width] = weight.dims() else {
            return Err(misfit(format!(
                "a weight of four axes, not of shape {:?}",
                weight.dims()
            )));
        };
        if let Some(name) = &self.bias {
            let bias = param(self, input, parameters, name)?;
            if bias.dims() != [channels] {
                return Err(misfit(format!(
                    "a bias of shape ({channels},), not {:?}",
                    bias.dims()
                )));
            }
        }
        let image = input.image();
        let image = image.ok_or_else(|| {
            misfit(
                "images of shape (channels, height, width): put an Unflatten layer before it"
                    .into(),
            )
        })?;
        if inputs.checked_mul(self.groups) != Some(image[0]) {
            return Err(misfit(format!(
                "{} in each of {}",
                counted(inputs, "input channel"),
                counted(self.groups, "group")
            )));
        }
        let shape = ConvolutionShape {
            input: image,
            channels,
            kernel: [height, width],
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
        };
        Convolution::new(shape).map_err(misfit)
    }
}

/// Whether a new convolution has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    None,
    Uniform,
}

impl Layer for Conv2d {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        Ok(Shape::new(self.convolution(input, parameters)?.output()))
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        pass.record((&self.weight, 1), x, 1)?;
        let weight = interruptible(&var(parameters, &self.weight)?)?;
        let y = x.conv2d(
            &weight,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
        )?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(&var(parameters, bias)?.reshape((1, (), 1, 1))?)?,
            None => y,
        };
        pass.record((&self.weight, 0), &y, 1)?;
        Ok(y)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let convolution = self.convolution(network.shape(), network.parameters())?;
        let output = Shape::new(convolution.output());
        let bias = self.bias.as_ref().map(|name| network.range(self, name));
        let rules = Conv2dRules {
            convolution,
            weight: network.range(self, &self.weight)?,
            bias: bias.transpose()?,
        };
        network.push(rules, output);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let convolution = self.convolution(graph.shape(), graph.parameters())?;
        let shape = Shape::new(convolution.output());
        let read = graph.read(self, 0);
        let channels = shape.dims()[0];
        let written = if self.groups == 1 {
            graph.name_axis(&self.weight, 1, &read);
            graph.begin(channels)
        } else if self.groups == read.len() {
            // Each channel becomes one or several by itself.
            repeated(&read, channels / read.len())
        } else {
            graph.stop(self, "it reads groups of channels", shape);
            return Ok(());
        };
        graph.write(&self.weight, self.bias.as_deref(), &written);
        graph.output(shape, 0, written);
        Ok(())
    }
}

/// The gradient holds W and then b, for each direction.
struct Conv2dRules {
    convolution: Convolution,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
}

impl Conv2dRules {
    /// The weights and the biases of [`Rules::pack_forward`].
    fn split<'a, T>(&self, packed: &'a Packed<T>) -> (&'a [T], &'a [T]) {
        let biases = packed.count * self.bias.as_ref().map_or(0, Range::len);
        packed.forward.split_at(packed.forward.len() - biases)
    }

    /// The weights of [`Rules::pack_backward`].
    fn backward_weights<'a, T>(&self, packed: &'a Packed<T>) -> &'a [T] {
        match self.convolution.packs_once() {
            true => self.split(packed).0,
            false => &packed.backward,
        }
    }

    fn pack<T: Scalar>(&self, to: Side, vectors: &[&[T]]) -> Vec<T> {
        let mut packed = Vec::new();
        for vector in vectors {
            let weight = &vector[self.weight.clone()];
            self.convolution.pack(to, weight, &mut packed);
        }
        packed
    }
}

impl<T: Scalar> Rules<T> for Conv2dRules {
    fn output_len(&self) -> usize {
        self.convolution.width(Side::Output)
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn reads_zero_directions(&self) -> bool {
        false
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        std::iter::once(&self.weight)
            .chain(&self.bias)
            .cloned()
            .collect()
    }

    /// One for each group of channels.
    fn row_products(&self) -> Vec<RowProduct> {
        let shape = self.convolution.shape;
        let [_, height, width] = self.convolution.output();
        let [down, right] = shape.kernel;
        let inputs = shape.input[0] / shape.groups * down * right;
        let outputs = shape.channels / shape.groups;
        let part = |range: &Range<usize>, group: usize, len: usize| {
            let start = range.start + group * len;
            start..start + len
        };
        let product = |group| RowProduct {
            positions: height * width,
            inputs,
            outputs,
            weights: vec![part(&self.weight, group, outputs * inputs)],
            biases: self
                .bias
                .iter()
                .map(|bias| part(bias, group, outputs))
                .collect(),
            layout: RowLayout::Windows {
                shape,
                output: [height, width],
                group,
            },
        };
        (0..shape.groups).map(product).collect()
    }

    /// W of every vector, then b of every vector.
    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut packed = self.pack(Side::Output, vectors);
        for vector in vectors {
            if let Some(bias) = &self.bias {
                packed.extend_from_slice(&vector[bias.clone()]);
            }
        }
        packed
    }

    fn pack_backward(&self, vectors: &[&[T]]) -> Vec<T> {
        match self.convolution.packs_once() {
            true => Vec::new(),
            false => self.pack(Side::Input, vectors),
        }
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        let (weights, bias) = self.split(theta);
        let factors = (Some((weights, x)), None);
        self.convolution.sums(Side::Output, factors, bias, y, 1);
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let own = tangent.rx.map(|rx| (self.split(primal.theta).0, rx));
        let (shared, biases) = match tangent.directions.is_zero {
            true => (None, &[][..]),
            false => {
                let (weights, biases) = self.split(tangent.directions);
                (Some((weights, primal.x)), biases)
            }
        };
        if own.is_none() && shared.is_none() {
            return ry.fill(T::ZERO);
        }
        let k = tangent.count();
        self.convolution
            .sums(Side::Output, (own, shared), biases, ry, k);
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let directions = tangent.directions;
        let bends = mode == Mode::Hessian && !directions.is_zero;
        let own = Some((self.backward_weights(primal.theta), tangent.rdy));
        let shared = bends.then(|| (self.backward_weights(directions), primal.dy));
        let k = tangent.count();
        self.convolution
            .sums(Side::Input, (own, shared), &[], rdx, k);
    }

    fn gradient_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        gradient: &mut [T],
        write: Write,
        mode: Mode,
    ) {
        write.prepare(gradient);
        let rx = tangent.rx.filter(|_| mode == Mode::Hessian);
        let second = rx.map(|rx| (rx, primal.dy));
        let k = tangent.count();
        self.convolution
            .add_gradient((primal.x, tangent.rdy), second, gradient, k);
    }
}

#[cfg(test)]
#[path = "conv2d_tests.rs"]
mod tests;
