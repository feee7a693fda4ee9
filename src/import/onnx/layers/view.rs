//! [`View`]: a value of the graph as entries of a layer's output or of a weight.

use std::rc::Rc;

use super::function::Function;

/// What a view shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The weight of this name in the file.
    Weight(String),
    /// The output of this step, with the batch axis first.
    Step(usize),
}

/// A value of the graph whose entries are entries of its base, in any order: the result of reshaping, transposing, slicing and repeating.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub base: Base,
    /// Number of entries of the base.
    base_len: usize,
    pub dims: Vec<usize>,
    /// Index in the base of each entry; `None` for all entries of the base in order.
    entries: Option<Rc<[usize]>>,
    /// Factor of all entries.
    pub scale: f64,
    /// A function of the rows along the last axis, instead of the factor.
    pub function: Option<Function>,
}

impl View {
    /// All entries of the base in order.
    pub fn whole(base: Base, dims: Vec<usize>) -> Self {
        Self {
            base,
            base_len: dims.iter().product(),
            dims,
            entries: None,
            scale: 1.0,
            function: None,
        }
    }

    /// These entries of a base with `base_len` entries.
    pub fn of_entries(base: Base, base_len: usize, dims: Vec<usize>, entries: Vec<usize>) -> Self {
        let in_order =
            entries.len() == base_len && entries.iter().enumerate().all(|(i, e)| i == *e);
        Self {
            base,
            base_len,
            dims,
            entries: (!in_order).then(|| entries.into()),
            scale: 1.0,
            function: None,
        }
    }

    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Size of the last axis; 1 without axes.
    pub fn last(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Whether the view shows all entries of its base in order.
    pub fn is_whole(&self) -> bool {
        self.entries.is_none()
    }

    /// Index in the base of entry `i`.
    pub fn entry(&self, i: usize) -> usize {
        self.entries.as_ref().map_or(i, |entries| entries[i])
    }

    /// Index in the base of every entry.
    pub fn entries(&self) -> Vec<usize> {
        (0..self.len()).map(|i| self.entry(i)).collect()
    }

    /// Whether both show the same entries of the same base.
    pub fn shows_the_same(&self, other: &Self) -> bool {
        let entries = match (&self.entries, &other.entries) {
            (None, None) => true,
            (Some(a), Some(b)) => Rc::ptr_eq(a, b) || a == b,
            _ => false,
        };
        self.base == other.base && self.dims == other.dims && entries
    }

    /// The same entries of another base of the same length, without factor and function.
    pub fn with_base(&self, base: Base) -> Self {
        Self {
            base,
            scale: 1.0,
            function: None,
            ..self.clone()
        }
    }

    /// The same entries in another shape.
    pub fn reshaped(&self, dims: Vec<usize>) -> Self {
        Self {
            dims,
            ..self.clone()
        }
    }

    /// The entries at these positions of the view.
    fn picked(&self, dims: Vec<usize>, positions: impl Iterator<Item = usize>) -> Self {
        let entries = positions.map(|i| self.entry(i)).collect();
        Self {
            scale: self.scale,
            ..Self::of_entries(self.base.clone(), self.base_len, dims, entries)
        }
    }

    /// Axis `perm[i]` becomes axis i.
    pub fn transposed(&self, perm: &[usize]) -> Self {
        let steps = steps(&self.dims);
        let dims: Vec<usize> = perm.iter().map(|axis| self.dims[*axis]).collect();
        let steps: Vec<usize> = perm.iter().map(|axis| steps[*axis]).collect();
        self.picked(dims.clone(), positions(&dims, &steps).into_iter())
    }

    /// Repeats axes of size 1; new axes come first. `None` if the shapes do not fit.
    pub fn expanded(&self, dims: Vec<usize>) -> Option<Self> {
        let new = dims.len().checked_sub(self.dims.len())?;
        let mut expanded = vec![0; new];
        let own = steps(&self.dims);
        for ((size, step), wanted) in self.dims.iter().zip(own).zip(&dims[new..]) {
            match size {
                _ if size == wanted => expanded.push(step),
                1 => expanded.push(0),
                _ => return None,
            }
        }
        let positions = positions(&dims, &expanded);
        Some(self.picked(dims, positions.into_iter()))
    }

    /// The entries with these indices along an axis, in a shape with as many entries.
    pub fn selected(&self, axis: usize, indices: &[usize], dims: Vec<usize>) -> Self {
        let inner: usize = self.dims[axis + 1..].iter().product();
        let outer: usize = self.dims[..axis].iter().product();
        let size = self.dims[axis];
        let rows = (0..outer).flat_map(|o| indices.iter().map(move |i| (o * size + i) * inner));
        self.picked(dims, rows.flat_map(|start| start..start + inner))
    }
}

/// Distance of neighbours along each axis.
fn steps(dims: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        steps[axis - 1] = steps[axis] * dims[axis];
    }
    steps
}

/// The position of each entry of a tensor whose neighbours along each axis are `steps` apart.
fn positions(dims: &[usize], steps: &[usize]) -> Vec<usize> {
    let mut positions = vec![0];
    for (size, step) in dims.iter().zip(steps) {
        let along = |start: usize| (0..*size).map(move |i| start + i * step);
        positions = positions.into_iter().flat_map(along).collect();
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(dims: &[usize]) -> View {
        View::whole(Base::Step(0), dims.to_vec())
    }

    #[test]
    fn views_rearrange_entries() {
        let matrix = view(&[2, 3]);
        let transposed = matrix.transposed(&[1, 0]);
        assert_eq!(transposed.dims, [3, 2]);
        assert_eq!(transposed.entries(), [0, 3, 1, 4, 2, 5]);
        assert!(transposed.transposed(&[1, 0]).is_whole());
        assert!(!transposed.is_whole() && !transposed.shows_the_same(&matrix));
        let column = matrix.selected(1, &[2], vec![2]);
        assert_eq!(column.entries(), [2, 5]);
        let repeated = column.reshaped(vec![2, 1]).expanded(vec![2, 2, 3]).unwrap();
        assert_eq!(repeated.entries(), [2, 2, 2, 5, 5, 5, 2, 2, 2, 5, 5, 5]);
        assert!(matrix.expanded(vec![2, 4]).is_none());
        let cube = view(&[2, 3, 4]).transposed(&[2, 0, 1]);
        assert_eq!(cube.dims, [4, 2, 3]);
        assert_eq!(cube.entry(7), 5); // (1, 0, 1) is (0, 1, 1).
    }
}
