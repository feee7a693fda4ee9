//! [`Builder`]: from a model's list of its layers to the nodes of a network.

use std::ops::Range;

use super::Scalar;
use super::activation::Pointwise;
use super::conv::{Conv2d, Shape};
use super::graph::{Join, Node};
use super::layer::Layer;
use super::linear::Linear;
use super::norm::{BatchNorm, GroupNorm};
use super::pool::{Pool, Pooling};
use crate::model::{LayerKind, Parameters};

/// The nodes so far, and what the last one gives: channels, height and width of a sample. Every step gives
/// nothing where layers do not fit together.
pub(super) struct Builder<'a, T> {
    parameters: &'a Parameters,
    nodes: Vec<Node<T>>,
    inputs: usize,
    /// The boundary on top, and the shape there.
    top: usize,
    shape: [usize; 3],
    /// Whether steps of training drop numbers.
    pub(super) dropout: bool,
}

impl<'a, T: Scalar> Builder<'a, T> {
    /// For samples of this shape; what is not channels × height × width counts as that many channels.
    pub(super) fn new(parameters: &'a Parameters, shape: &[usize]) -> Option<Self> {
        let inputs = shape.iter().product();
        Some(Self {
            parameters,
            nodes: Vec::new(),
            inputs,
            top: 0,
            shape: match shape {
                [channels, height, width] => [*channels, *height, *width],
                _ => [inputs, 1, 1],
            },
            dropout: false,
        })
    }

    /// The nodes, and how many numbers of a sample go in and come out.
    pub(super) fn finish(self) -> Option<(Vec<Node<T>>, [usize; 2])> {
        let width = self.width();
        (!self.nodes.is_empty()).then_some((self.nodes, [self.inputs, width]))
    }

    pub(super) fn add(&mut self, kinds: &[LayerKind]) -> Option<()> {
        kinds.iter().try_for_each(|kind| self.add_one(kind))
    }

    fn add_one(&mut self, kind: &LayerKind) -> Option<()> {
        let width = self.width();
        match kind {
            LayerKind::Linear { weight, bias } => {
                let (outputs, inputs) = self.parameters.get(weight).ok()?.dims2().ok()?;
                let [weight, bias] = self.places(weight, bias)?;
                if inputs != width || bias.len() != outputs {
                    return None;
                }
                let linear = Linear {
                    inputs,
                    outputs,
                    weight,
                    bias,
                };
                self.push(linear, [outputs, 1, 1]);
            }
            LayerKind::Activation(activation) => {
                let pointwise = Pointwise {
                    activation: *activation,
                    width,
                };
                self.push(pointwise, self.shape);
            }
            LayerKind::Flatten => self.shape = [width, 1, 1],
            LayerKind::Unflatten(shape) => {
                self.shape = *shape;
                return (self.width() == width).then_some(());
            }
            LayerKind::Residual { body, shortcut } => {
                let (below, shape) = (self.top, self.shape);
                self.add(body)?;
                let (top, given) = (self.top, self.shape);
                (self.top, self.shape) = (below, shape);
                self.add(shortcut)?;
                if self.shape != given {
                    return None;
                }
                let join = Join::Sum {
                    width: self.width(),
                };
                self.join(join, [top, self.top]);
            }
            LayerKind::Concat { body } => {
                let (below, [channels, height, width]) = (self.top, self.shape);
                let before = self.width();
                self.add(body)?;
                if self.shape[1..] != [height, width] {
                    return None;
                }
                let widths = [before, self.width()];
                self.shape[0] += channels;
                self.join(Join::Concat { widths }, [below, self.top]);
            }
            LayerKind::Conv2d {
                weight,
                bias,
                stride,
                padding,
                dilation,
                groups,
            } => {
                let dims = self.parameters.get(weight).ok()?.dims();
                let [channels, _, height, width] = dims else {
                    return None;
                };
                let shape = Shape {
                    input: self.shape,
                    channels: *channels,
                    kernel: [*height, *width],
                    stride: *stride,
                    padding: *padding,
                    dilation: *dilation,
                    groups: *groups,
                };
                let bias = match bias {
                    Some(name) => Some(self.parameters.range(name).ok()?),
                    None => None,
                };
                let conv = Conv2d::new(shape, self.parameters.range(weight).ok()?, bias)?;
                let output = conv.output();
                self.push(conv, output);
            }
            LayerKind::GroupNorm {
                weight,
                bias,
                groups,
                epsilon,
            } => {
                let [weight, bias] = self.places(weight, bias)?;
                let norm = GroupNorm::new(self.shape, *groups, *epsilon, weight, bias)?;
                self.push(norm, self.shape);
            }
            LayerKind::BatchNorm {
                weight,
                bias,
                mean,
                variance,
                epsilon,
                momentum,
            } => {
                let statistic = |name| self.parameters.statistic_range(name).ok();
                let statistics = [statistic(mean)?, statistic(variance)?];
                let places = self.places(weight, bias)?;
                let norm = BatchNorm::new(self.shape, places, statistics, [*epsilon, *momentum])?;
                self.push(norm, self.shape);
            }
            LayerKind::Dropout { .. } => self.dropout = true,
            LayerKind::AveragePool { kernel, stride } => {
                self.pool(Pooling::Average, *kernel, *stride)?;
            }
            LayerKind::MaxPool { kernel, stride } => self.pool(Pooling::Max, *kernel, *stride)?,
            LayerKind::GlobalAveragePool => {
                let pool = Pool::global_average(self.shape)?;
                let output = pool.output();
                self.push(pool, output);
            }
        }
        Some(())
    }

    /// The places of two parameters in θ.
    fn places(&self, weight: &str, bias: &str) -> Option<[Range<usize>; 2]> {
        let place = |name| self.parameters.range(name).ok();
        Some([place(weight)?, place(bias)?])
    }

    fn pool(&mut self, pooling: Pooling, kernel: usize, stride: usize) -> Option<()> {
        let pool = Pool::new(pooling, self.shape, [kernel; 2], [stride; 2])?;
        let output = pool.output();
        self.push(pool, output);
        Some(())
    }

    fn width(&self) -> usize {
        self.shape.iter().product()
    }

    fn push(&mut self, layer: impl Layer<T> + 'static, shape: [usize; 3]) {
        self.nodes.push(Node::Layer {
            layer: Box::new(layer),
            from: self.top,
        });
        (self.top, self.shape) = (self.nodes.len(), shape);
    }

    fn join(&mut self, join: Join, from: [usize; 2]) {
        self.nodes.push(Node::Join { join, from });
        self.top = self.nodes.len();
    }
}
