//! Nodes that reshape, transpose, slice and repeat.

use super::view::View;
use super::{Mapper, Value, unmapped};
use crate::import::onnx::graph::{Node, from_start, index};

impl Mapper<'_> {
    /// A node that changes the arrangement of entries.
    pub(super) fn rearranged(&mut self, node: &Node) -> Result<View, String> {
        let view = self.view(node, 0)?;
        let view = self.settled(view).map_err(|e| node.problem(e))?;
        let dims = self.dims(node.output()?)?;
        let rank = view.dims.len();
        let misfit = || node.problem("has sizes that do not fit its input");
        Ok(match node.op.as_str() {
            "Transpose" => {
                let perm = match node.ints("perm")? {
                    Some(perm) => perm
                        .iter()
                        .map(|axis| usize::try_from(*axis).ok())
                        .collect(),
                    None => Some((0..rank).rev().collect::<Vec<_>>()),
                };
                let perm: Vec<usize> = perm.ok_or_else(misfit)?;
                let mut axes = perm.clone();
                axes.sort_unstable();
                if !axes.into_iter().eq(0..rank) {
                    return Err(misfit());
                }
                view.transposed(&perm)
            }
            "Expand" => view.expanded(dims).ok_or_else(misfit)?,
            "Slice" => self.sliced(node, &view)?,
            _ if dims.iter().product::<usize>() == view.len() => view.reshaped(dims),
            _ => return Err(misfit()),
        })
    }

    pub(super) fn sliced(&self, node: &Node, view: &View) -> Result<View, String> {
        let constant = |i: usize| {
            node.input(i)
                .map(|name| self.graph.const_ints(name))
                .unwrap_or_default()
        };
        let (Some(starts), Some(ends)) = (constant(1), constant(2)) else {
            return Err(unmapped(node));
        };
        let axes = constant(3).unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = constant(4).unwrap_or_else(|| vec![1; starts.len()]);
        let mut view = view.clone();
        for (((start, end), axis), step) in starts.iter().zip(&ends).zip(axes).zip(steps) {
            let rank = view.dims.len();
            let axis = index(axis, rank)
                .filter(|_| step > 0)
                .ok_or_else(|| unmapped(node))?;
            let size = view.dims[axis];
            let bound = |i: i64| from_start(i, size).clamp(0, size as i64);
            let indices: Vec<usize> = (bound(*start)..bound(*end))
                .step_by(usize::try_from(step).unwrap_or(1))
                .map(|i| i as usize)
                .collect();
            let mut dims = view.dims.clone();
            dims[axis] = indices.len();
            view = view.selected(axis, &indices, dims);
        }
        Ok(view)
    }

    pub(super) fn split(&mut self, node: &Node) -> Result<Vec<Value>, String> {
        let view = self.view(node, 0)?;
        let view = self.settled(view).map_err(|e| node.problem(e))?;
        let axis = node.axis_or(0, view.dims.len())?;
        let axis = axis.ok_or_else(|| unmapped(node))?;
        let mut start = 0;
        let mut parts = Vec::new();
        for name in &node.outputs {
            let dims = self.dims(name)?;
            let end = start + dims.get(axis).copied().unwrap_or(0);
            if end > view.dims[axis] {
                return Err(node.problem("has sizes that do not fit its input"));
            }
            let indices: Vec<usize> = (start..end).collect();
            parts.push(Value::View(view.selected(axis, &indices, dims)));
            start = end;
        }
        Ok(parts)
    }
}
