//! [`BlockCheckpoint`]: a file with the spectra of finished blocks.

use std::ops::Range;
use std::path::Path;

use super::{BlockSettings, BlockSpectrum, Bracket, Density, Quadrature};
use crate::checkpoint::{Checkpoint, key};
use crate::error::Result;
use crate::operator::{LinearOperator, checked_products};
use crate::random::{Purpose, normal};

/// A file with the spectra of finished blocks, in order.
pub(super) struct BlockCheckpoint {
    file: Checkpoint,
    numbers: Vec<f64>,
}

impl BlockCheckpoint {
    /// Opens the file for these settings and blocks of `operator`. The product with a fixed vector identifies the operator.
    pub(super) fn open(
        path: &Path,
        settings: &BlockSettings,
        operator: &dyn LinearOperator,
        blocks: &[(String, Vec<Range<usize>>)],
    ) -> Result<Self> {
        let probe = normal(operator.dim(), Purpose::Fingerprint, 0, 0);
        let product = checked_products(operator, &[probe])?.swap_remove(0);
        let sizes = [settings.probes, settings.steps].map(|size| size as f64);
        let seed = [f64::from_bits(settings.seed)];
        let rows: Vec<f64> = (blocks.iter())
            .flat_map(|(_, ranges)| {
                let rows = ranges.iter().flat_map(|range| [range.start, range.end]);
                [ranges.len()].into_iter().chain(rows)
            })
            .map(|row| row as f64)
            .collect();
        let key = key("block spectra", &[&sizes, &seed, &rows, &product]);
        let file = Checkpoint::new(path, key);
        let numbers = file.read()?;
        Ok(Self { file, numbers })
    }

    /// The spectra in the file.
    pub(super) fn spectra(
        &self,
        blocks: &[(String, Vec<Range<usize>>)],
    ) -> Result<Vec<BlockSpectrum>> {
        let mut numbers = self.numbers.iter().copied();
        let mut spectra = Vec::new();
        while numbers.len() > 0 {
            let spectrum = (blocks.get(spectra.len()))
                .and_then(|(name, ranges)| read_spectrum(name, ranges, &mut numbers));
            spectra.push(spectrum.ok_or_else(|| self.file.misfit())?);
        }
        Ok(spectra)
    }

    /// Adds the next block and writes the file.
    pub(super) fn add(&mut self, spectrum: &BlockSpectrum) -> Result<()> {
        let density = &spectrum.density;
        for bracket in [spectrum.largest, spectrum.smallest] {
            self.numbers
                .extend([bracket.value, bracket.low, bracket.high]);
        }
        let counts = [density.products, density.probes.len()].map(|count| count as f64);
        self.numbers.push(density.epsilon);
        self.numbers.extend(counts);
        for probe in &density.probes {
            self.numbers.push(probe.nodes.len() as f64);
            self.numbers
                .extend(probe.nodes.iter().chain(&probe.weights));
        }
        self.file.write(&self.numbers)
    }
}

/// Reads a spectrum; `None` if the numbers end.
fn read_spectrum(
    name: &str,
    ranges: &[Range<usize>],
    numbers: &mut impl Iterator<Item = f64>,
) -> Option<BlockSpectrum> {
    let mut bracket = || {
        Some(Bracket {
            value: numbers.next()?,
            low: numbers.next()?,
            high: numbers.next()?,
        })
    };
    let (largest, smallest) = (bracket()?, bracket()?);
    let (epsilon, products, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let mut probes = Vec::new();
    for _ in 0..count as usize {
        let size = numbers.next()? as usize;
        let [nodes, weights]: [Vec<f64>; 2] =
            std::array::from_fn(|_| numbers.by_ref().take(size).collect());
        probes.push(Quadrature { nodes, weights });
    }
    Some(BlockSpectrum {
        name: name.to_owned(),
        largest,
        smallest,
        density: Density {
            probes,
            dim: ranges.iter().map(ExactSizeIterator::len).sum(),
            products: products as usize,
            epsilon,
        },
    })
}
