//! Linear assignment: pairs each row with a different column.

use ndarray::Array2;
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

use crate::error::Result;
use crate::progress;

/// The largest entry is scaled to 2⁴⁸, so sums over a million rows fit into 64 bits.
const LEVELS: f64 = (1u64 << 48) as f64;

/// Number of rows from which an assignment can take longer than an interrupt may wait.
const MANY: usize = 256;

/// The permutation p that maximises Σᵢ gains\[i, p\[i\]\] for a square matrix of n rows, by the Kuhn–Munkres
/// algorithm on integers: at most 2⁻⁴⁸ n max|gains| below the maximum. Returns the identity if no other permutation
/// gains more than rounding.
///
/// # Errors
/// An interrupt.
pub(super) fn assign(gains: &Array2<f64>) -> Result<Vec<usize>> {
    let n = gains.nrows();
    let size = gains.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
    if size == 0.0 {
        return Ok((0..n).collect());
    }
    let whole = |at: (usize, usize)| (gains[at] / size * LEVELS).round() as i64;
    let whole = Matrix::from_fn(n, n, whole);
    let solve = move || kuhn_munkres(&whole).1;
    let best = match n < MANY {
        true => solve(),
        false => progress::abandon_on_interrupt(solve)?,
    };
    let total = |p: &mut dyn Iterator<Item = usize>| -> f64 {
        p.enumerate().map(|(i, j)| gains[[i, j]]).sum()
    };
    let gained = total(&mut best.iter().copied()) - total(&mut (0..n));
    Ok(match gained > 1e-12 * n as f64 * size {
        true => best,
        false => (0..n).collect(),
    })
}
