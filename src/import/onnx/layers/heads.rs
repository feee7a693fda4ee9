//! Nodes of attention.

use std::rc::Rc;

use candle_core::{Device, Tensor};

use super::attention::{self, Scores};
use super::network::{Part, Step};
use super::view::{Base, View};
use super::{Mapper, Value, is_along_last_axis, is_step, unmapped};
use crate::import::onnx::graph::Node;
use crate::layers::{LayerKind, Linear, SelfAttention, Shape};
use crate::tensor_functions::entries;

impl Mapper<'_> {
    /// Queries times keys, attention times values, or a linear layer.
    pub(super) fn matmul(&mut self, node: &Node) -> Result<Value, String> {
        let [a, b] = [
            self.value(node.required_input(0)?),
            self.value(node.required_input(1)?),
        ];
        match (a, b) {
            (Value::Scores(scores), Value::View(values)) if scores.is_softmax => {
                Ok(Value::View(self.heads(node, &scores, values)?))
            }
            (Value::View(query), Value::View(key)) if is_step(&query) && is_step(&key) => {
                let [query, key] = [
                    self.settled(query).map_err(|e| node.problem(e))?,
                    self.settled(key).map_err(|e| node.problem(e))?,
                ];
                let scores = Scores::new(query, key).ok_or_else(|| unmapped(node))?;
                Ok(Value::Scores(Rc::new(scores)))
            }
            (Value::View(input), Value::View(weight)) if is_step(&input) => {
                Ok(Value::View(self.linear(node, input, &weight, None)?))
            }
            _ => Err(unmapped(node)),
        }
    }

    /// Scores times or divided by a number, or with a mask.
    pub(super) fn changed_scores(
        &mut self,
        node: &Node,
        scores: &Rc<Scores>,
        name: &str,
    ) -> Result<Value, String> {
        let mut changed = Scores::clone(scores);
        if scores.is_softmax {
            return Err(unmapped(node));
        }
        match (node.op.as_str(), self.graph.const_scalar(name)) {
            ("Mul", Some(c)) => changed.scale *= c,
            ("Div", Some(c)) => changed.scale /= c,
            ("Add", _) => {
                let added = self.graph.constants.get(name);
                changed = masked(node, changed, added.ok_or_else(|| unmapped(node))?)?;
            }
            _ => return Err(unmapped(node)),
        }
        Ok(Value::Scores(Rc::new(changed)))
    }

    /// Scores that `Where` replaces by the number in input `i`: input 1 where the condition is true, input 2 where it is false.
    fn replaced_scores(&self, node: &Node, scores: &Scores, i: usize) -> Result<Value, String> {
        let condition = self.graph.constants.get(&node.inputs[0]);
        let condition = condition.ok_or_else(|| unmapped(node))?;
        let number = self.graph.const_scalar(&node.inputs[i]);
        let number = number.ok_or_else(|| unmapped(node))?;
        let added = || {
            let is_true = entries(condition)?.into_iter().map(|c| c != 0.0);
            let added = is_true.map(|is_true| if is_true == (i == 1) { number } else { 0.0 });
            Tensor::from_iter(added, &Device::Cpu)?.reshape(condition.dims())
        };
        let added = added().map_err(|e: candle_core::Error| node.problem(e))?;
        let masked = masked(node, scores.clone(), &added)?;
        Ok(Value::Scores(Rc::new(masked)))
    }

    /// Softmax and masks of scores.
    pub(super) fn attention(&mut self, node: &Node) -> Result<Value, String> {
        let values: Vec<Value> = node.inputs.iter().map(|name| self.value(name)).collect();
        let number = |i: usize| self.graph.const_scalar(&node.inputs[i]);
        match (node.op.as_str(), &values[..]) {
            ("Softmax", [Value::Scores(scores)]) if !scores.is_softmax => {
                if !is_along_last_axis(node, scores.query.dims.len())? {
                    return Err(unmapped(node));
                }
                let softmax = Scores {
                    is_softmax: true,
                    ..Scores::clone(scores)
                };
                Ok(Value::Scores(Rc::new(softmax)))
            }
            ("IsNaN", [Value::Scores(scores)]) => Ok(Value::IsNan(scores.clone())),
            // In rows without a visible score the softmax is NaN, which the graph replaces by 0.
            ("Where", [Value::IsNan(tested), Value::Known, Value::Scores(scores)])
                if Rc::ptr_eq(tested, scores) && number(1) == Some(0.0) =>
            {
                Ok(values[2].clone())
            }
            ("Where", [Value::Known, Value::Known, Value::Scores(scores)])
                if !scores.is_softmax =>
            {
                self.replaced_scores(node, scores, 1)
            }
            ("Where", [Value::Known, Value::Scores(scores), Value::Known])
                if !scores.is_softmax =>
            {
                self.replaced_scores(node, scores, 2)
            }
            _ => Err(unmapped(node)),
        }
    }

    /// Scores whose axes before the last two are merged or split.
    pub(super) fn reshaped_scores(&self, node: &Node, scores: Rc<Scores>) -> Result<Value, String> {
        let dims = self.dims(node.output()?)?;
        let positions = scores.positions();
        match dims.ends_with(&[positions, positions]) {
            true => Ok(Value::Scores(scores)),
            false => Err(unmapped(node)),
        }
    }

    /// Attention times values: the heads' outputs.
    pub(super) fn heads(
        &mut self,
        node: &Node,
        scores: &Scores,
        values: View,
    ) -> Result<View, String> {
        let values = self.resolved(values).map_err(|e| node.problem(e))?;
        if !scores.has_usual_scale() {
            return Err(node.problem(
                "computes attention with another scale than 1/√d, which has no hand-derived rules",
            ));
        }
        let rank = scores.key.dims.len();
        let swap: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
        let key = scores.key.transposed(&swap);
        let views = [&scores.query, &key, &values];
        let mut layers = Vec::new();
        let mut found: Option<(usize, usize)> = None;
        for (view, part) in views.into_iter().zip(["query", "key", "value"]) {
            let (from, heads, layer) = self.projection(view, part).ok_or_else(|| {
                node.problem(format_args!(
                    "computes attention, and its {part} is not that of heads of a linear layer"
                ))
            })?;
            if *found.get_or_insert((from, heads)) != (from, heads) {
                return Err(
                    node.problem("computes attention between different values or numbers of heads")
                );
            }
            layers.push(layer);
        }
        let (Some((from, count)), Ok([query, key, value])) =
            (found, <[Linear; 3]>::try_from(layers))
        else {
            return Err(unmapped(node));
        };
        let (positions, features) = (scores.positions(), values.last());
        let attention = SelfAttention {
            output: query.clone(),
            query,
            key,
            value,
            heads: count,
            causal: scores.causal,
        };
        let part = Step::Part {
            part: Part::Heads(attention),
            from,
        };
        let shape = Shape::new([positions, count * features]);
        let step = self.network.push(part, shape, node.to_string());
        let by_head = View::whole(
            Base::Step(step),
            vec![self.samples, positions, count, features],
        );
        Ok(by_head
            .transposed(&[0, 2, 1, 3])
            .reshaped(self.dims(node.output()?)?))
    }

    /// The input, the number of heads and the linear layer of a view of heads.
    pub(super) fn projection(&mut self, view: &View, part: &str) -> Option<(usize, usize, Linear)> {
        let Base::Step(step) = view.base else {
            return None;
        };
        let &[_, outputs] = self.network.shape(step).dims() else {
            return None;
        };
        let heads = attention::heads(view, self.samples, outputs)?;
        let Step::Layer {
            kind: LayerKind::Linear(linear),
            from,
            ..
        } = self.network.step(step)
        else {
            return None;
        };
        let (linear, from) = (linear.clone(), *from);
        let mut rows = |name: &String| self.parameters.rows(name, &heads.rows, part);
        let linear = Linear {
            weight: rows(&linear.weight),
            bias: linear.bias.as_ref().map(rows),
        };
        Some((from, heads.count, linear))
    }
}

/// Scores to which a mask is added.
fn masked(node: &Node, scores: Scores, added: &Tensor) -> Result<Scores, String> {
    scores.masked(added).ok_or_else(|| {
        node.problem("masks attention other than causally, which has no hand-derived rules")
    })
}
