//! Nodes that compute entry by entry: functions of rows, and sums of branches.

use candle_core::{DType, Device, Tensor};

use super::function::{Function, LayerFunction};
use super::network::Step;
use super::view::{Base, View};
use super::{Mapper, Value, is_step, unmapped};
use crate::import::onnx::evaluate::{Call, Mode};
use crate::import::onnx::graph::Node;
use crate::import::onnx::operators;
use crate::layers::Shape;

impl Mapper<'_> {
    /// The function of a view's rows.
    pub(super) fn function(&self, view: &View) -> Function {
        let function = view.function.clone();
        function.unwrap_or_else(|| Function::scale(view.last(), view.scale))
    }

    /// A view with another function, or a factor if it is one.
    pub(super) fn with_function(&self, view: &View, function: Function) -> View {
        let (scale, function) = match function.recognise() {
            Some(LayerFunction::Scale(scale)) => (scale, None),
            _ => (1.0, Some(function)),
        };
        let mut view = view.clone();
        (view.scale, view.function) = (scale, function);
        view
    }

    /// A function of each entry.
    pub(super) fn elementwise(&mut self, node: &Node) -> Result<View, String> {
        let view = self.view(node, 0)?;
        if matches!(view.base, Base::Weight(_)) {
            return Err(unmapped(node));
        }
        let others = node.inputs.iter().skip(1).map(|name| match name.as_str() {
            "" => Ok(None),
            name => self.constant(node, name).map(Some),
        });
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let values = self.function(&view).map_tensor(|x| {
            let mut call = Call {
                node,
                inputs: [&[Some(x.clone())], &others[..]].concat(),
                dtype: DType::F64,
                device: &Device::Cpu,
                mode: &mut Mode::Inference,
            };
            let outputs = operators::apply(&mut call);
            outputs.ok().and_then(|outputs| outputs.into_iter().next())
        });
        let values = values.ok_or_else(|| unmapped(node))?;
        Ok(self.with_function(&view, values))
    }

    /// A constant of one number, in `f64`.
    pub(super) fn constant(&self, node: &Node, name: &str) -> Result<Tensor, String> {
        let value = self
            .graph
            .const_scalar(name)
            .ok_or_else(|| unmapped(node))?;
        let tensor = Tensor::new(value, &Device::Cpu);
        tensor.map_err(|e| node.problem(e))
    }

    /// Adds the layer that computes the view's function, if it has one. The result has no function, but may have a factor.
    pub(super) fn settled(&mut self, view: View) -> Result<View, String> {
        let Some(function) = &view.function else {
            return Ok(view);
        };
        match (function.recognise(), &view.base) {
            (Some(LayerFunction::Activation(activation)), Base::Step(from)) => {
                let shape = self.network.shape(*from).clone();
                let node = format!("{activation:?}");
                let step = self.network.layer(activation, *from, shape, &node);
                Ok(view.with_base(Base::Step(step)))
            }
            (Some(LayerFunction::LayerNorm { .. } | LayerFunction::RmsNorm { .. }), _) => {
                Err("reads a normalised value without a weight".into())
            }
            _ => Err(
                "reads a function of a layer's output for which there are no hand-derived rules"
                    .into(),
            ),
        }
    }

    /// As [`settled`](Self::settled), for a view without a factor.
    pub(super) fn resolved(&mut self, view: View) -> Result<View, String> {
        let view = self.settled(view)?;
        match view.scale == 1.0 {
            true => Ok(view),
            false => Err(format!(
                "reads a layer's output times {}, which has no hand-derived rules",
                view.scale
            )),
        }
    }

    /// The resolved input `i` of a node.
    pub(super) fn input(&mut self, node: &Node, i: usize) -> Result<View, String> {
        let view = self.view(node, i)?;
        self.resolved(view).map_err(|e| node.problem(e))
    }

    pub(super) fn binary(&mut self, node: &Node) -> Result<Value, String> {
        let names = [node.required_input(0)?, node.required_input(1)?];
        let [a, b] = names.map(|name| self.value(name));
        let op = node.op.as_str();
        let f = |a: f64, b: f64| match op {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            "Div" => a / b,
            _ => a.powf(b),
        };
        let scalar = |i: usize| self.graph.const_scalar(names[i]);
        match (a, b) {
            (Value::Scores(scores), Value::Known) => self.changed_scores(node, &scores, names[1]),
            (Value::Known, Value::Scores(scores)) if matches!(op, "Add" | "Mul") => {
                self.changed_scores(node, &scores, names[0])
            }
            (Value::View(view), Value::Known) if is_step(&view) => {
                let c = scalar(1).ok_or_else(|| unmapped(node))?;
                let function = self.function(&view).map(|x| f(x, c));
                Ok(Value::View(self.with_function(&view, function)))
            }
            (Value::Known, Value::View(view)) if is_step(&view) => {
                let c = scalar(0).ok_or_else(|| unmapped(node))?;
                let function = self.function(&view).map(|x| f(c, x));
                Ok(Value::View(self.with_function(&view, function)))
            }
            (Value::View(a), Value::View(b)) => {
                let view = match (is_step(&a), is_step(&b), op) {
                    (true, true, _) if a.shows_the_same(&b) => {
                        let function = self.function(&a).combine(&self.function(&b), f);
                        self.with_function(&a, function)
                    }
                    (true, true, "Add") => self.sum(node, a, b)?,
                    (true, false, "Add") => self.plus_weight(node, a, &b)?,
                    (false, true, "Add") => self.plus_weight(node, b, &a)?,
                    (true, false, "Mul") => self.times_weight(node, &a, &b)?,
                    (false, true, "Mul") => self.times_weight(node, &b, &a)?,
                    _ => return Err(unmapped(node)),
                };
                Ok(Value::View(view))
            }
            _ => Err(unmapped(node)),
        }
    }

    /// The sum of two branches.
    pub(super) fn sum(&mut self, node: &Node, a: View, b: View) -> Result<View, String> {
        if a.dims != b.dims {
            return Err(node.problem(format_args!(
                "adds values of shapes {:?} and {:?}: hand-derived rules need one shape",
                a.dims, b.dims
            )));
        }
        let about = |e: String| node.problem(e);
        let [a, b] = [
            self.resolved(a).map_err(about)?,
            self.resolved(b).map_err(about)?,
        ];
        let (Base::Step(first), Base::Step(second)) = (&a.base, &b.base) else {
            return Err(unmapped(node));
        };
        // Rows in another order than the samples' are added as they are if both have the same order.
        let alike = self.network.shape(*first) == self.network.shape(*second)
            && a.shows_the_same(&b.with_base(a.base.clone()));
        let (ends, view) = match alike {
            true => ([*first, *second], a),
            false => {
                let ends = [
                    self.samples_of(&a).map_err(about)?,
                    self.samples_of(&b).map_err(about)?,
                ];
                (ends, View::whole(Base::Step(0), a.dims))
            }
        };
        let shape = self.network.shape(ends[0]).clone();
        let step = self.network.push(Step::Sum(ends), shape, node.to_string());
        Ok(view.with_base(Base::Step(step)))
    }

    pub(super) fn concat(&mut self, node: &Node) -> Result<View, String> {
        let dims = self.dims(node.output()?)?;
        let axis = node.axis_or(0, dims.len())?;
        let axis = axis
            .filter(|axis| *axis > 0)
            .ok_or_else(|| unmapped(node))?;
        if let [first, _] = &node.inputs[..]
            && let Value::View(token) = self.value(first)
            && !is_step(&token)
        {
            return self.class_token(node, &token, axis);
        }
        let mut ends = Vec::new();
        for i in 0..node.inputs.len() {
            let view = self.input(node, i)?;
            ends.push(self.samples_of(&view).map_err(|e| node.problem(e))?);
        }
        let step = Step::Concat {
            from: self.network.begins_with(&ends, axis - 1),
            all: ends,
            axis: axis - 1,
        };
        let step = self
            .network
            .push(step, Shape::new(&dims[1..]), node.to_string());
        Ok(View::whole(Base::Step(step), dims))
    }
}
