//! [`TrainTest`]: the training and test samples of files.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Dataset, Targets};
use crate::error::{Error, Result};

/// Training and test samples that a reader returns.
///
/// ```
/// use loss_landscape::data::{TestSource, idx};
/// use loss_landscape::prelude::*;
///
/// // Two images of 1 × 2 pixels and their labels in IDX files; no test files.
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// let images = [&[0u8, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[0, 51, 102, 255]];
/// let labels = [0u8, 0, 8, 1, 0, 0, 0, 2, 1, 0];
/// std::fs::write(dir.join("train-images-idx3-ubyte"), images.concat()).unwrap();
/// std::fs::write(dir.join("train-labels-idx1-ubyte"), labels).unwrap();
/// let samples = idx::load_from(dir, &Device::Cpu)?;
/// assert_eq!(samples.train.inputs().dims(), [2, 1, 1, 2]);
/// assert_eq!(samples.train.labels()?, [1, 0]);
/// assert_eq!(samples.test_source, TestSource::Training);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainTest {
    /// Training samples.
    pub train: Dataset,
    /// Test samples.
    pub test: Dataset,
    /// Source of the test samples.
    pub test_source: TestSource,
    /// Name of each class in the order of the labels, if classes have names: folders of images, or text labels.
    pub class_names: Option<Vec<String>>,
    /// Name of the dataset, if its checksums are known.
    pub name: Option<&'static str>,
}

/// Source of test samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TestSource {
    /// The files contain test samples.
    Files,
    /// A random share of the samples, which are not among the training samples.
    Share(f64),
    /// The training samples: the files contain no others.
    Training,
}

impl fmt::Display for TestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files => f.write_str("test samples of the files"),
            Self::Share(share) => write!(f, "random share {share} of the samples"),
            Self::Training => f.write_str("the training samples"),
        }
    }
}

impl TrainTest {
    /// Joins training samples and the test samples of the files. Without test samples, a random `share` of the training samples
    /// becomes the test samples, or all of them without a share.
    pub(super) fn new(
        train: Dataset,
        test: Option<Dataset>,
        share: Option<f64>,
        seed: u64,
    ) -> Result<Self> {
        let (train, test, test_source) = match (test, share) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "the files contain test samples: leave out the share of test samples",
                ));
            }
            (Some(test), None) => {
                check_alike(&train, &test)?;
                (train, test, TestSource::Files)
            }
            (None, Some(share)) => {
                let (rest, test) = train.split(share, seed)?;
                (rest, test, TestSource::Share(share))
            }
            (None, None) => (train.clone(), train, TestSource::Training),
        };
        Ok(Self {
            train,
            test,
            test_source,
            class_names: None,
            name: None,
        })
    }
}

/// Returns an error if test samples differ from training samples in shape or kind.
fn check_alike(train: &Dataset, test: &Dataset) -> Result<()> {
    let kind = |data: &Dataset| match data.targets() {
        Targets::Labels(_) => "labels",
        Targets::Values(_) => "values",
    };
    let tokens = |data: &Dataset| data.inputs().dtype().is_int();
    let describe = |data: &Dataset| {
        format!(
            "{} of shape {:?} with {} of shape {:?}",
            if tokens(data) { "tokens" } else { "inputs" },
            &data.inputs().dims()[1..],
            kind(data),
            data.targets().dims()
        )
    };
    let (found, expected) = (describe(test), describe(train));
    match found == expected {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "test samples differ from training samples: expected {expected}, found {found}"
        ))),
    }
}

impl Dataset {
    /// Splits the samples at random into training and test samples; `seed` determines the split. The test set has the rounded
    /// `share` of the samples. Both keep the order of the samples.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let (train, test) = data.split(0.25, 0)?;
    /// assert_eq!((train.len(), test.len()), (45, 15));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A share that leaves one of both without a sample.
    pub fn split(&self, share: f64, seed: u64) -> Result<(Self, Self)> {
        let count = (share * self.len() as f64).round();
        if !(count >= 1.0 && count < self.len() as f64) {
            return Err(Error::invalid(format!(
                "a share of {share} of {} samples leaves no sample for training or for the test: give a share between 0 and 1",
                self.len()
            )));
        }
        let order = self.random_order(seed);
        let (test, train) = order.split_at(count as usize);
        let part = |indices: &[usize]| {
            let mut indices = indices.to_vec();
            indices.sort_unstable();
            self.select(&indices)
        };
        Ok((part(train)?, part(test)?))
    }
}
