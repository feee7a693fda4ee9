//! Linear assignment: pairs each row with a different column.

use ndarray::{Array2, s};
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

use crate::error::Result;
use crate::progress;

/// The largest entry is scaled to 2⁴⁸, so sums over a million rows fit into 64 bits.
const LEVELS: f64 = (1u64 << 48) as f64;

/// From this number of rows on, an assignment can take longer than an interrupt may wait.
const MIN_ROWS_ON_THREAD: usize = 256;

/// The permutation of each kind of units that maximises the sum of all gains. Permutations exchange units within a cluster, and whole
/// clusters together with those of the other kinds. `gains\[k\]` is a square matrix for the units of kind k, which are divided into
/// `clusters` clusters.
///
/// The best permutation between every two clusters gives the gain of exchanging them, so the result is the maximum up to rounding, as
/// for [`assign`].
///
/// # Errors
/// An interrupt.
pub(super) fn assign_clusters(gains: &[Array2<f64>], clusters: usize) -> Result<Vec<Vec<usize>>> {
    if clusters == 1 {
        return gains.iter().map(assign).collect();
    }
    let size = |gains: &Array2<f64>| gains.nrows() / clusters;
    let mut between = Array2::zeros((clusters, clusters));
    let mut within = Vec::with_capacity(clusters * clusters);
    for i in 0..clusters {
        for j in 0..clusters {
            let mut permutations = Vec::with_capacity(gains.len());
            for gains in gains {
                let n = size(gains);
                let part = gains.slice(s![i * n..(i + 1) * n, j * n..(j + 1) * n]);
                let best = assign(&part.to_owned())?;
                let gained = best.iter().enumerate().map(|(u, v)| part[[u, *v]]);
                between[[i, j]] += gained.sum::<f64>();
                permutations.push(best);
            }
            within.push(permutations);
        }
    }
    let order = assign(&between)?;
    let kinds = gains.iter().enumerate().map(|(k, gains)| {
        let pairs = order.iter().enumerate();
        let moved = pairs.flat_map(|(i, j)| {
            let permutation = &within[i * clusters + j][k];
            permutation.iter().map(move |v| j * size(gains) + v)
        });
        moved.collect()
    });
    Ok(kinds.collect())
}

/// The permutation p that maximises Σᵢ gains\[i, p\[i\]\] for a square matrix of n rows, by the Kuhn–Munkres
/// algorithm on integers: at most 2⁻⁴⁸ n max|gains| below the maximum. Returns the identity if no other permutation
/// gains more than rounding.
///
/// # Errors
/// An interrupt.
fn assign(gains: &Array2<f64>) -> Result<Vec<usize>> {
    let n = gains.nrows();
    let size = gains.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
    if size == 0.0 {
        return Ok((0..n).collect());
    }
    let whole = |at: (usize, usize)| (gains[at] / size * LEVELS).round() as i64;
    let whole = Matrix::from_fn(n, n, whole);
    let solve = move || kuhn_munkres(&whole).1;
    let best = match n < MIN_ROWS_ON_THREAD {
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
