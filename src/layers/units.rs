//! [`UnitGraph`]: which axes of a model's parameters run along the same hidden units.

use super::shape::named;
use super::{Layer, LayerKind, Misfit, Shape};
use crate::parameters::Parameters;

/// The unit of all inputs, all outputs, and everything else that cannot be permuted.
pub(crate) const FIXED: usize = 0;

/// A value between layers: the shape of a sample, and the unit of each entry along one of its axes. All values at an
/// entry belong to its unit.
#[derive(Clone)]
pub(crate) struct Value {
    shape: Shape,
    axis: usize,
    units: Vec<usize>,
}

impl Value {
    fn fixed(shape: Shape, axis: usize) -> Self {
        let size = shape.dims().get(axis).copied().unwrap_or(1);
        Self {
            shape,
            axis,
            units: vec![FIXED; size],
        }
    }

    /// The unit of each number of the sample.
    fn flat(&self) -> Vec<usize> {
        let inner = self.shape.dims().iter().skip(self.axis + 1).product();
        let one = repeated(&self.units, inner);
        match one.len() {
            0 => one,
            len => one.repeat(self.shape.len() / len),
        }
    }
}

/// Each unit `count` times in a row.
pub(crate) fn repeated(units: &[usize], count: usize) -> Vec<usize> {
    let units = units.iter();
    units
        .flat_map(|unit| std::iter::repeat_n(*unit, count))
        .collect()
}

/// An axis of a parameter or of a running statistic.
pub(crate) struct ParamAxis {
    pub(crate) name: String,
    pub(crate) axis: usize,
    /// The unit of each entry.
    pub(crate) units: Vec<usize>,
}

/// A unit in a group that a layer treats as a whole, such as a channel of a group that is normalised together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) unit: usize,
    /// Number of the division into groups.
    pub(crate) division: usize,
    pub(crate) group: usize,
}

/// Hidden units along the axes of parameters. Units that layers write separately are one unit if their values are added.
///
/// Layers call its methods for the value that reaches them, as they do with [`GraphBuilder`](super::graph::GraphBuilder).
pub(crate) struct UnitGraph<'a> {
    parameters: &'a Parameters,
    value: Value,
    /// A unit that equals each unit, or the unit itself.
    parents: Vec<usize>,
    /// Axes of parameters, in the order of the layers.
    pub(crate) axes: Vec<ParamAxis>,
    /// The units of each value between layers.
    pub(crate) values: Vec<Vec<usize>>,
    pub(crate) members: Vec<Member>,
    divisions: usize,
    /// Why some units cannot be permuted.
    pub(crate) reasons: Vec<String>,
}

impl<'a> UnitGraph<'a> {
    /// Follows the units of these layers for samples of a shape.
    ///
    /// # Errors
    /// The first layer that does not fit.
    pub(crate) fn build(
        layers: &[LayerKind],
        parameters: &'a Parameters,
        input: Shape,
    ) -> Result<Self, Misfit> {
        let mut graph = Self {
            parameters,
            value: Value::fixed(input, 0),
            parents: vec![FIXED],
            axes: Vec::new(),
            values: Vec::new(),
            members: Vec::new(),
            divisions: 0,
            reasons: Vec::new(),
        };
        graph.add(layers)?;
        for unit in graph.value.units.clone() {
            graph.unify(unit, FIXED);
        }
        graph.name_units_once();
        Ok(graph)
    }

    /// Adds layers, one after another.
    pub(crate) fn add(&mut self, layers: &[LayerKind]) -> Result<(), Misfit> {
        layers.iter().try_for_each(|layer| layer.add_units(self))
    }

    pub(crate) fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// The shape of a sample at the current position.
    pub(crate) fn shape(&self) -> &Shape {
        &self.value.shape
    }

    /// The units along an axis of the current value. If its units run along another axis, they are fixed.
    pub(crate) fn read(&mut self, layer: &impl Layer, axis: usize) -> Vec<usize> {
        let value = self.value.clone();
        self.along(layer, &value, axis)
    }

    /// Creates units.
    pub(crate) fn begin(&mut self, count: usize) -> Vec<usize> {
        let first = self.parents.len();
        self.parents.extend(first..first + count);
        (first..first + count).collect()
    }

    /// Declares the units along an axis of a parameter or a running statistic. Layers that share it share the units.
    pub(crate) fn name_axis(&mut self, name: &str, axis: usize, units: &[usize]) {
        let is_same = |known: &&ParamAxis| known.name == name && known.axis == axis;
        match self.axes.iter().find(is_same) {
            Some(known) => {
                let known = known.units.clone();
                let pairs = known.into_iter().zip(units);
                pairs.for_each(|(a, b)| self.unify(a, *b));
            }
            None => self.axes.push(ParamAxis {
                name: name.to_owned(),
                axis,
                units: units.to_vec(),
            }),
        }
    }

    /// Declares the units that a layer writes, along axis 0 of its weight and its bias.
    pub(crate) fn write(&mut self, weight: &str, bias: Option<&str>, units: &[usize]) {
        self.name_axis(weight, 0, units);
        if let Some(bias) = bias {
            self.name_axis(bias, 0, units);
        }
    }

    /// Divides each of these lists into groups of neighbours. Group i of all lists is treated as a whole: a permutation can
    /// exchange units within it, or exchange it with another.
    pub(crate) fn divide(&mut self, lists: &[&[usize]], groups: usize) {
        let division = self.divisions;
        self.divisions += 1;
        for units in lists {
            let size = (units.len() / groups).max(1);
            let members = units.iter().enumerate().map(|(i, unit)| Member {
                unit: *unit,
                division,
                group: i / size,
            });
            self.members.extend(members);
        }
    }

    /// Sets the current value.
    pub(crate) fn output(&mut self, shape: Shape, axis: usize, units: Vec<usize>) {
        self.values.push(units.clone());
        self.value = Value { shape, axis, units };
    }

    /// Sets the current value to one whose entries cannot be permuted, and fixes the units that reach the layer.
    pub(crate) fn stop(&mut self, layer: &impl Layer, why: &str, output: Shape) {
        self.fix(layer, &self.value.units.clone(), why);
        self.value = Value::fixed(output, 0);
    }

    /// Flattens the current value into a vector.
    pub(crate) fn flatten(&mut self) {
        let flat = self.value.flat();
        self.output(Shape::new([flat.len()]), 0, flat);
    }

    /// Changes the shape of the current value, whose units must run along one of its axes.
    pub(crate) fn unflatten(&mut self, layer: &impl Layer, shape: Shape) {
        let flat = self.value.flat();
        let flat: Vec<usize> = flat.into_iter().map(|unit| self.root(unit)).collect();
        let found = (0..shape.dims().len()).find_map(|axis| {
            let inner: usize = shape.dims()[axis + 1..].iter().product();
            let size = shape.dims()[axis];
            let units: Vec<usize> = (0..size).map(|entry| flat[entry * inner]).collect();
            let mut all = flat.iter().enumerate();
            let fits = all.all(|(i, unit)| units[i / inner % size] == *unit);
            fits.then_some((axis, units))
        });
        match found {
            Some((axis, units)) => self.output(shape, axis, units),
            None => self.stop(layer, "it spreads them over several axes", shape),
        }
    }

    /// Adds each branch at the current position, and returns where they end.
    pub(crate) fn branch(&mut self, branches: &[&[LayerKind]]) -> Result<Vec<Value>, Misfit> {
        let start = self.value.clone();
        let mut ends = Vec::with_capacity(branches.len());
        for branch in branches {
            self.value = start.clone();
            self.add(branch)?;
            ends.push(self.value.clone());
        }
        self.value = start;
        Ok(ends)
    }

    /// The sum of values: their units are the same.
    pub(crate) fn sum(&mut self, layer: &impl Layer, ends: &[Value]) {
        let axis = self.common_axis(ends);
        let units = self.same_units(layer, ends, axis);
        self.output(ends[0].shape.clone(), axis, units);
    }

    /// The concatenation of values along an axis.
    pub(crate) fn concat(
        &mut self,
        layer: &impl Layer,
        ends: &[Value],
        joined: usize,
        shape: Shape,
    ) {
        let axis = self.common_axis(ends);
        if axis == joined || ends.iter().all(|end| self.is_fixed(&end.units)) {
            let sides = ends.iter().map(|end| self.along(layer, end, joined));
            let units = sides.collect::<Vec<_>>().concat();
            self.output(shape, joined, units);
        } else {
            let units = self.same_units(layer, ends, axis);
            self.output(shape, axis, units);
        }
    }

    /// The axis along which the units of the first value run that has any.
    fn common_axis(&self, ends: &[Value]) -> usize {
        let mut with_units = ends.iter().filter(|end| !self.is_fixed(&end.units));
        with_units.next().unwrap_or(&ends[0]).axis
    }

    /// Makes the units of values along an axis the same.
    fn same_units(&mut self, layer: &impl Layer, ends: &[Value], axis: usize) -> Vec<usize> {
        let units = self.along(layer, &ends[0], axis);
        for end in &ends[1..] {
            let others = self.along(layer, end, axis);
            let pairs = units.iter().zip(others);
            pairs.for_each(|(a, b)| self.unify(*a, b));
        }
        units
    }

    fn along(&mut self, layer: &impl Layer, value: &Value, axis: usize) -> Vec<usize> {
        if value.axis == axis {
            return value.units.clone();
        }
        self.fix(layer, &value.units, "it reads them along another axis");
        Value::fixed(value.shape.clone(), axis).units
    }

    fn fix(&mut self, layer: &impl Layer, units: &[usize], why: &str) {
        if !self.is_fixed(units) {
            self.reasons.push(format!("{}: {why}", named(layer)));
        }
        units.iter().for_each(|unit| self.unify(*unit, FIXED));
    }

    fn is_fixed(&self, units: &[usize]) -> bool {
        units.iter().all(|unit| self.root(*unit) == FIXED)
    }

    fn unify(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }

    /// The smallest unit that equals a unit.
    fn root(&self, mut unit: usize) -> usize {
        while self.parents[unit] != unit {
            unit = self.parents[unit];
        }
        unit
    }

    /// Replaces each unit by the smallest that equals it.
    fn name_units_once(&mut self) {
        let roots: Vec<usize> = (0..self.parents.len())
            .map(|unit| self.root(unit))
            .collect();
        let axes = self.axes.iter_mut().flat_map(|axis| &mut axis.units);
        for unit in axes.chain(self.values.iter_mut().flatten()) {
            *unit = roots[*unit];
        }
        for member in &mut self.members {
            member.unit = roots[member.unit];
        }
        self.members.sort_unstable();
        self.members.dedup();
    }
}
