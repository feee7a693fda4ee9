//! Nodes with the weights of linear layers, embeddings, positions, tokens and normalisation over the last axis.

use super::function::{LayerFunction, as_written};
use super::network::{Norm, Part, Step};
use super::view::{Base, View};
use super::{Mapper, Value, is_along_last_axis, is_step, unmapped};
use crate::import::onnx::graph::{Node, index};
use crate::layers::{
    ClassToken, Conv2d, Embedding, GroupNorm, LayerKind, LayerNorm, Linear, LogSoftmax,
    PositionEmbedding, RmsNorm, SelfAttention, Shape,
};

impl Mapper<'_> {
    /// A row for each token, or entries with constant indices.
    pub(super) fn gather(&mut self, node: &Node) -> Result<View, String> {
        let view = self.view(node, 0)?;
        let axis = node.axis_or(0, view.dims.len())?;
        let axis = axis.ok_or_else(|| unmapped(node))?;
        let indices = node.required_input(1)?;
        if let Value::View(tokens) = self.value(indices) {
            let is_input =
                tokens.base == Base::Step(0) && tokens.is_whole() && tokens.dims.len() > 1;
            let is_table = !is_step(&view) && view.dims.len() == 2 && axis == 0;
            if !(is_input && is_table) {
                return Err(unmapped(node));
            }
            let table = self.parameter(node, &view, &view.dims[..], "weight")?;
            let dims = [&tokens.dims[..], &[view.dims[1]]].concat();
            let step = self.push_shaped(node, Embedding::new(table), 0, Shape::new(&dims[1..]));
            return Ok(View::whole(Base::Step(step), dims));
        }
        let view = self.settled(view).map_err(|e| node.problem(e))?;
        let size = view.dims[axis];
        let indices = self
            .graph
            .const_ints(indices)
            .ok_or_else(|| unmapped(node))?;
        let indices = indices.iter().map(|i| index(*i, size));
        let indices: Option<Vec<usize>> = indices.collect();
        let indices = indices.ok_or_else(|| unmapped(node))?;
        Ok(view.selected(axis, &indices, self.dims(node.output()?)?))
    }

    pub(super) fn gemm(&mut self, node: &Node) -> Result<View, String> {
        let number = |name: &str| node.float_or(name, 1.0);
        let has_bias = node.input(2).is_some();
        let is_plain = number("alpha")? == 1.0 && (!has_bias || number("beta")? == 1.0);
        if !is_plain || node.int_or("transA", 0)? != 0 {
            return Err(unmapped(node));
        }
        let (input, weight) = (self.view(node, 0)?, self.view(node, 1)?);
        let weight = match (&weight.dims[..], node.int_or("transB", 0)?) {
            ([_, _], 0) => weight,
            ([_, _], _) => weight.transposed(&[1, 0]),
            _ => return Err(unmapped(node)),
        };
        let bias = node.input(2).map(|_| self.view(node, 2)).transpose()?;
        self.linear(node, input, &weight, bias)
    }

    /// A linear layer with a weight of shape (inputs, outputs).
    pub(super) fn linear(
        &mut self,
        node: &Node,
        input: View,
        weight: &View,
        bias: Option<View>,
    ) -> Result<View, String> {
        let &[inputs, outputs] = &weight.dims[..] else {
            return Err(unmapped(node));
        };
        let input = self.resolved(input).map_err(|e| node.problem(e))?;
        if input.last() != inputs || is_step(weight) {
            return Err(unmapped(node));
        }
        let (from, rows) = self.rows_of(&input).map_err(|e| node.problem(e))?;
        let weight = weight.transposed(&[1, 0]);
        let weight = self.parameter(node, &weight, [outputs, inputs], "weight")?;
        let bias = match bias {
            None => None,
            Some(bias) if bias.len() == outputs => {
                Some(self.parameter(node, &bias, [outputs], "bias")?)
            }
            Some(_) => return Err(unmapped(node)),
        };
        let linear = Linear { weight, bias };
        let (kind, source) = match self.network.step(from) {
            Step::Part {
                part: Part::Heads(attention),
                from,
            } => {
                let attention = SelfAttention {
                    output: linear,
                    ..attention.clone()
                };
                (LayerKind::from(attention), *from)
            }
            _ => (linear.into(), from),
        };
        let mut dims = self.network.shape(from).dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        let step = self.push_shaped(node, kind, source, Shape::new(dims));
        Ok(self.view_of_rows(step, &rows, &input))
    }

    pub(super) fn layer_norm(&mut self, node: &Node) -> Result<View, String> {
        let input = self.input(node, 0)?;
        if !is_along_last_axis(node, input.dims.len())? {
            return Err(node.problem(
                "normalises over several axes, which has no hand-derived rules: they need the last axis alone",
            ));
        }
        if node.input(2).is_none() {
            return Err(node.problem("has no bias, which the hand-derived rules need"));
        }
        let (from, rows) = self.rows_of(&input).map_err(|e| node.problem(e))?;
        let [weight, bias] = self.weight_and_bias(node)?;
        let norm = LayerNorm::new(weight, bias);
        let norm = norm.with_epsilon(as_written(node.float_or("epsilon", 1e-5)?));
        let step = self.push_layer(node, norm, from);
        Ok(self.view_of_rows(step, &rows, &input))
    }

    pub(super) fn log_softmax(&mut self, node: &Node) -> Result<View, String> {
        let input = self.input(node, 0)?;
        if !is_along_last_axis(node, input.dims.len())? {
            return Err(unmapped(node));
        }
        let (from, rows) = self.rows_of(&input).map_err(|e| node.problem(e))?;
        let step = self.push_layer(node, LogSoftmax, from);
        Ok(self.view_of_rows(step, &rows, &input))
    }

    /// A layer's output plus a weight: a bias, or a row for each position.
    pub(super) fn plus_weight(
        &mut self,
        node: &Node,
        view: View,
        weight: &View,
    ) -> Result<View, String> {
        let view = self.resolved(view).map_err(|e| node.problem(e))?;
        let ones = weight.dims.iter().take_while(|size| **size == 1).count();
        let own = &weight.dims[ones..];
        if let Base::Step(step) = view.base
            && let Some(layer) = self.with_bias(node, &view, step, weight)?
        {
            return Ok(view.with_base(Base::Step(layer)));
        }
        let is_table = view.dims.len() == 3
            && weight.len() == view.len() / self.samples
            && view.dims.ends_with(own);
        if !is_table {
            return Err(unmapped(node));
        }
        let from = self.samples_of(&view).map_err(|e| node.problem(e))?;
        let width = view.last();
        // A table may have more rows than samples have positions.
        let (Base::Weight(name), true) = (
            &weight.base,
            (0..weight.len()).all(|i| weight.entry(i) == i),
        ) else {
            return Err(unmapped(node));
        };
        let table = &self.graph.weights[name];
        let rows = match table.dims() {
            [ones @ .., rows, last] if *last == width && ones.iter().all(|one| *one == 1) => *rows,
            _ => return Err(unmapped(node)),
        };
        let table = View::whole(weight.base.clone(), table.dims().to_vec());
        let table = self.parameter(node, &table, [rows, width], "weight")?;
        let step = self.push_layer(node, PositionEmbedding::new(table), from);
        Ok(View::whole(Base::Step(step), view.dims))
    }

    /// The layer of a step with a bias, if it has none yet, and the weight is one number for each of its outputs.
    fn with_bias(
        &mut self,
        node: &Node,
        view: &View,
        step: usize,
        weight: &View,
    ) -> Result<Option<usize>, String> {
        let shape = self.network.shape(step).clone();
        let is_last = weight.dims.last() == Some(&weight.len())
            && weight.len() == shape.last()
            && self.rows_in_order(view, step).is_some();
        let is_channel = self.is_per_channel(view, step, weight);
        let (kind, from) = match self.network.step(step) {
            Step::Layer { kind, from, .. } => (kind.clone(), *from),
            Step::Part {
                part:
                    Part::Scaled {
                        norm,
                        epsilon,
                        weight: scale,
                    },
                from,
            } => {
                let (norm, epsilon, scale, from) = (*norm, *epsilon, scale.clone(), *from);
                let kind: LayerKind = match norm {
                    Norm::LastAxis if is_last => LayerNorm::new(scale, self.bias(node, weight)?)
                        .with_epsilon(epsilon)
                        .into(),
                    Norm::Groups(groups) if is_channel => {
                        let norm = GroupNorm::new(scale, self.bias(node, weight)?, groups);
                        norm.with_epsilon(epsilon).into()
                    }
                    _ => return Ok(None),
                };
                return Ok(Some(self.push_shaped(node, kind, from, shape)));
            }
            _ => return Ok(None),
        };
        let kind: LayerKind = match kind {
            LayerKind::Linear(linear) if is_last && linear.bias.is_none() => {
                let bias = Some(self.bias(node, weight)?);
                Linear { bias, ..linear }.into()
            }
            LayerKind::SelfAttention(attention) if is_last && attention.output.bias.is_none() => {
                let output = Linear {
                    bias: Some(self.bias(node, weight)?),
                    ..attention.output
                };
                SelfAttention {
                    output,
                    ..attention
                }
                .into()
            }
            LayerKind::Conv2d(conv) if is_channel && conv.bias.is_none() => {
                let bias = Some(self.bias(node, weight)?);
                Conv2d { bias, ..conv }.into()
            }
            _ => return Ok(None),
        };
        Ok(Some(self.push_shaped(node, kind, from, shape)))
    }

    fn bias(&mut self, node: &Node, weight: &View) -> Result<String, String> {
        self.parameter(node, weight, [weight.len()], "bias")
    }

    /// The weight and the bias of a normalisation: inputs 1 and 2 of its node.
    pub(super) fn weight_and_bias(&mut self, node: &Node) -> Result<[String; 2], String> {
        let (weight, bias) = (self.view(node, 1)?, self.view(node, 2)?);
        let weight = self.parameter(node, &weight, [weight.len()], "weight")?;
        Ok([weight, self.bias(node, &bias)?])
    }

    /// Whether a weight has one number for each channel of a view's samples.
    fn is_per_channel(&self, view: &View, step: usize, weight: &View) -> bool {
        let shape = self.network.shape(step).dims();
        let channels = weight.len();
        let after = weight
            .dims
            .iter()
            .rev()
            .take_while(|size| **size == 1)
            .count();
        shape.first() == Some(&channels)
            && view.is_whole()
            && view.dims.get(1) == Some(&channels)
            && (channels == 1 || after + 2 == view.dims.len())
    }

    /// Normalised values times a weight.
    pub(super) fn times_weight(
        &mut self,
        node: &Node,
        view: &View,
        weight: &View,
    ) -> Result<View, String> {
        if let Some(function) = &view.function {
            let is_last = weight.dims.last() == Some(&weight.len()) && weight.len() == view.last();
            let plain = view.with_base(view.base.clone());
            let (from, rows) = self.rows_of(&plain).map_err(|e| node.problem(e))?;
            let step = match function.recognise() {
                Some(LayerFunction::LayerNorm { epsilon }) if is_last => {
                    let weight = self.parameter(node, weight, [weight.len()], "weight")?;
                    let norm = Norm::LastAxis;
                    let part = Part::Scaled {
                        norm,
                        epsilon,
                        weight,
                    };
                    self.push_part(node, part, from)
                }
                Some(LayerFunction::RmsNorm { epsilon }) if is_last => {
                    let weight = self.parameter(node, weight, [weight.len()], "weight")?;
                    self.push_layer(node, RmsNorm::new(weight).with_epsilon(epsilon), from)
                }
                _ => return Err(unmapped(node)),
            };
            return Ok(self.view_of_rows(step, &rows, view));
        }
        let Base::Step(step) = view.base else {
            return Err(unmapped(node));
        };
        let is_channel = self.is_per_channel(view, step, weight);
        match self.network.step(step) {
            Step::Part {
                part: Part::Normal { norm, epsilon },
                from,
            } if is_channel => {
                let (norm, epsilon, from) = (*norm, *epsilon, *from);
                let weight = self.parameter(node, weight, [weight.len()], "weight")?;
                let part = Part::Scaled {
                    norm,
                    epsilon,
                    weight,
                };
                let step = self.push_part(node, part, from);
                Ok(view.with_base(Base::Step(step)))
            }
            _ => Err(unmapped(node)),
        }
    }

    /// A learned token before a sequence.
    pub(super) fn class_token(
        &mut self,
        node: &Node,
        token: &View,
        axis: usize,
    ) -> Result<View, String> {
        let input = self.input(node, 1)?;
        let &[repetitions, tokens, width] = &token.dims[..] else {
            return Err(unmapped(node));
        };
        let one = token.selected(0, &[0], vec![tokens, width]);
        let is_repeated = (repetitions == 1 || repetitions == self.samples)
            && (0..token.len()).all(|i| token.entry(i) == one.entry(i % one.len()));
        if !is_repeated || axis != 1 || input.dims.len() != 3 || input.last() != width {
            return Err(unmapped(node));
        }
        let from = self.samples_of(&input).map_err(|e| node.problem(e))?;
        let weight = self.parameter(node, &one, [tokens, width], "weight")?;
        let sample = Shape::new([tokens + input.dims[1], width]);
        let dims = [&[self.samples], sample.dims()].concat();
        let step = self.push_shaped(node, ClassToken::new(weight), from, sample);
        Ok(View::whole(Base::Step(step), dims))
    }
}
