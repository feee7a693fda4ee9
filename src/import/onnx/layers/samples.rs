//! From views to the layers that they read: the samples of a step, or its rows.

use super::Mapper;
use super::view::{Base, View};
use crate::layers::{Flatten, LayerKind, Shape, Unflatten};

impl Mapper<'_> {
    /// The step whose samples a resolved view shows, with a reshaping if the shape of a sample changes.
    ///
    /// # Errors
    /// A view that shows samples in another arrangement.
    pub(super) fn samples_of(&mut self, view: &View) -> Result<usize, String> {
        let Base::Step(step) = view.base else {
            return Err("reads a weight in place of a layer's output".into());
        };
        let sample = match view.dims.split_first() {
            Some((samples, sample)) if *samples == self.samples => sample,
            _ => {
                return Err(
                    "reads a layer's output in a shape without the batch axis first".into(),
                );
            }
        };
        let from = match view.is_whole() {
            true => step,
            false => self.rearranged_by_layer(view, step).ok_or(
                "reads a layer's output in an arrangement for which there are no hand-derived rules",
            )?,
        };
        Ok(self.reshaped_step(from, sample))
    }

    /// A step with samples of this shape.
    pub(super) fn reshaped_step(&mut self, from: usize, sample: &[usize]) -> usize {
        let current = self.network.shape(from).dims();
        if current == sample {
            return from;
        }
        let kind: LayerKind = match sample {
            [_] => Flatten.into(),
            _ => Unflatten(sample.to_vec()).into(),
        };
        let node = self.network.node(from).to_owned();
        self.network.layer(kind, from, Shape::new(sample), &node)
    }

    /// The step whose rows along the last axis a resolved view shows in some order, and the row of each row of the view.
    pub(super) fn rows_of(&mut self, view: &View) -> Result<(usize, Vec<usize>), String> {
        if let Base::Step(step) = view.base
            && let Some(rows) = self.rows_in_order(view, step)
        {
            return Ok((step, rows));
        }
        let step = self.samples_of(view)?;
        Ok((step, (0..view.len() / view.last()).collect()))
    }

    /// For each row of a view the row of a step's samples that it shows, if it shows each once.
    pub(super) fn rows_in_order(&self, view: &View, step: usize) -> Option<Vec<usize>> {
        let width = view.last();
        let total = self.samples * self.network.shape(step).len();
        if self.network.shape(step).last() != width || view.len() != total {
            return None;
        }
        let mut seen = vec![false; view.len() / width];
        let rows = (0..view.len() / width).map(|row| {
            let start = view.entry(row * width);
            let is_row = start.is_multiple_of(width)
                && (1..width).all(|i| view.entry(row * width + i) == start + i);
            let is_new = is_row && !std::mem::replace(&mut seen[start / width], true);
            is_new.then_some(start / width)
        });
        rows.collect()
    }

    /// The view of a step whose rows along the last axis are in the order of `rows`, in the shape of `view` with another last axis.
    pub(super) fn view_of_rows(&self, step: usize, rows: &[usize], view: &View) -> View {
        let width = self.network.shape(step).last();
        let mut dims = view.dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = width;
        }
        let entries = rows.iter().flat_map(|row| row * width..(row + 1) * width);
        let total = self.samples * self.network.shape(step).len();
        View::of_entries(Base::Step(step), total, dims, entries.collect())
    }
}
