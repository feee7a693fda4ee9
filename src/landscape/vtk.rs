//! Planes in VTK's legacy format.

use super::Plane;

impl Plane {
    /// The plane as a file in VTK's legacy binary format, which ParaView reads: a structured grid of the points (α, β, loss),
    /// with the loss and, if computed, `accuracy`, `smallest` and `largest` eigenvalue as point data.
    ///
    /// Points whose loss is not finite have the height of the largest finite loss, and NaN as point data.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// # let model =
    /// #     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// # let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("plane.vtk");
    /// let plane = Plane::random(&objective, 0, 1.0, 5)?;
    /// std::fs::write(&path, plane.vtk()).unwrap();
    /// assert!(plane.vtk().starts_with(b"# vtk DataFile Version 3.0\n"));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn vtk(&self) -> Vec<u8> {
        let (rows, columns) = self.losses.dim();
        let finite = self.losses.iter().copied().filter(|loss| loss.is_finite());
        let highest = finite.reduce(f64::max).unwrap_or(0.0);
        let points = self.losses.indexed_iter().flat_map(|((i, j), &loss)| {
            let height = if loss.is_finite() { loss } else { highest };
            [self.alphas[j], self.betas[i], height]
        });
        let count = rows * columns;
        let mut file = b"# vtk DataFile Version 3.0\nloss on a plane\nBINARY\n".to_vec();
        file.extend(
            format!(
                "DATASET STRUCTURED_GRID\nDIMENSIONS {columns} {rows} 1\nPOINTS {count} double\n"
            )
            .bytes(),
        );
        // Numbers are big-endian.
        file.extend(points.flat_map(f64::to_be_bytes));
        file.extend(format!("\nPOINT_DATA {count}\n").bytes());
        for (name, values) in self.scores() {
            file.extend(format!("SCALARS {name} double 1\nLOOKUP_TABLE default\n").bytes());
            file.extend(values.iter().flat_map(|value| value.to_be_bytes()));
            file.push(b'\n');
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::Plane;
    use crate::landscape::{ExtremeEigenvalues, StatisticsSource};

    /// Reads the file as VTK does: lines of text, with big-endian numbers after `POINTS` and `LOOKUP_TABLE`.
    fn read(mut file: &[u8]) -> (Vec<String>, Vec<Vec<f64>>) {
        let (mut lines, mut blocks, mut count) = (Vec::new(), Vec::new(), 0);
        while !file.is_empty() {
            let end = file.iter().position(|&byte| byte == b'\n').unwrap();
            let line = String::from_utf8(file[..end].to_vec()).unwrap();
            file = &file[end + 1..];
            let words: Vec<&str> = line.split(' ').collect();
            let numbers = match words[0] {
                "POINTS" => {
                    count = words[1].parse().unwrap();
                    3 * count
                }
                "LOOKUP_TABLE" => count,
                _ => 0,
            };
            if numbers > 0 {
                let (block, rest) = file.split_at(8 * numbers);
                let block = block
                    .chunks(8)
                    .map(|b| f64::from_be_bytes(b.try_into().unwrap()));
                blocks.push(block.collect());
                assert_eq!(rest[0], b'\n');
                file = &rest[1..];
            }
            lines.push(line);
        }
        (lines, blocks)
    }

    #[test]
    fn points_run_along_alpha_first_and_holes_keep_a_finite_height() {
        let plane = Plane {
            alphas: vec![-1.0, 0.0, 2.0],
            betas: vec![0.5, 0.75],
            losses: array![[1.0, 2.0, 3.0], [4.0, f64::NAN, 6.0]],
            accuracies: None,
            eigenvalues: Some(ExtremeEigenvalues {
                smallest: array![[-1.0, -2.0, -3.0], [-4.0, f64::NAN, -6.0]],
                largest: array![[10.0, 20.0, 30.0], [40.0, f64::NAN, 60.0]],
                errors: Array2::zeros((2, 3)),
                checked: Array2::default((2, 3)),
            }),
            center: 2.0,
            statistics: StatisticsSource::default(),
            fingerprint: 0,
        };
        let (lines, blocks) = read(&plane.vtk());
        let expected = [
            "# vtk DataFile Version 3.0",
            "loss on a plane",
            "BINARY",
            "DATASET STRUCTURED_GRID",
            "DIMENSIONS 3 2 1",
            "POINTS 6 double",
            "POINT_DATA 6",
            "SCALARS loss double 1",
            "LOOKUP_TABLE default",
            "SCALARS smallest double 1",
            "LOOKUP_TABLE default",
            "SCALARS largest double 1",
            "LOOKUP_TABLE default",
        ];
        assert_eq!(lines, expected);
        let points: Vec<&[f64]> = blocks[0].chunks(3).collect();
        assert_eq!(points[1], [0.0, 0.5, 2.0]);
        assert_eq!(points[3], [-1.0, 0.75, 4.0]);
        assert_eq!(points[4], [0.0, 0.75, 6.0]); // the hole
        assert!(blocks[1][4].is_nan());
        assert_eq!(blocks[1][5], 6.0);
        assert_eq!((blocks[2][3], blocks[3][2]), (-4.0, 30.0));
    }
}
