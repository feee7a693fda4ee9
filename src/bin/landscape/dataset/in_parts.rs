//! Samples that are read in parts, because they do not fit into memory.

use std::path::Path;

use loss_landscape::Error;
use loss_landscape::data::{SampleSource, StoredSamples, TestSource, idx};
use loss_landscape::memory;
use loss_landscape::prelude::*;

use super::samples::About;
use super::source::has_ending;
use super::{Data, DatasetArgs, Needs, Source};
use crate::output::{path_text, print_note};

/// Smaller files are never read in parts, in bytes.
const LEAST_MEMORY: f64 = (1 << 20) as f64;

impl DatasetArgs {
    /// Whether samples may be read in parts.
    pub fn may_be_in_parts(&self, reads_text: bool) -> bool {
        match self.source(reads_text) {
            Source::Idx(_) => true,
            Source::File(file) => is_file_of_rows(&file),
            Source::Named(_) | Source::ImageFolder(_) => false,
        }
    }

    /// The samples of files that are larger than memory allows; `None` for smaller files, and for those that must be read as a
    /// whole.
    pub(super) fn stored(
        &self,
        reads_text: bool,
        tokens: bool,
        device: &Device,
        needs: Needs,
    ) -> Result<Option<Data>, Error> {
        let limit = needs.memory.max(LEAST_MEMORY);
        let limit = limit.min(0.5 * memory::available());
        let needs = Needs {
            memory: limit,
            ..needs
        };
        match self.source(reads_text) {
            Source::File(file) if is_file_of_rows(&file) => {
                let size = file.metadata().map_or(0.0, |file| file.len() as f64);
                let opened = self.reader(tokens).open(&file, needs.dtype, device);
                let Some((train, test)) = larger(opened, size, limit)? else {
                    return Ok(None);
                };
                self.check_tokens(&file, reads_text, &train.read(0..1)?)?;
                self.stored_data(path_text(&file), train, test, needs)
                    .map(Some)
            }
            Source::Idx(dir) => {
                let opened = idx::open(&dir, needs.dtype, device);
                let Some((train, test)) = larger(opened, 0.0, limit)? else {
                    return Ok(None);
                };
                let name = format!("IDX set in {}", path_text(&dir));
                self.stored_data(name, train, test, needs).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The training and test samples of files, as many as the command needs.
    fn stored_data(
        &self,
        name: String,
        mut train: StoredSamples,
        mut test: Option<StoredSamples>,
        needs: Needs,
    ) -> Result<Data, Error> {
        let limit = needs.memory;
        let test_source = match test {
            Some(_) => TestSource::Files,
            None => TestSource::Training,
        };
        let counts = [&train, test.as_ref().unwrap_or(&train)].map(SampleSource::len);
        let first = train.read(0..1)?;
        let class_counts = train.class_counts()?;
        let mut found = 0;
        if let Some(counts) = &class_counts {
            found = counts.len().max(train.num_tokens()?);
            if let Some(test) = &test {
                let counts = test.class_counts()?.unwrap_or_default();
                found = found.max(counts.len()).max(test.num_tokens()?);
            }
        }
        let shape = first.inputs().dims()[1..].to_vec();
        let outputs = self.count_outputs(&name, first.targets(), found)?;
        let normalization = self.normalization(&train.to_dtype(DType::F64)?, &shape)?;
        if let Some(normalization) = &normalization {
            train = train.normalized(normalization)?;
            test = test
                .map(|test| test.normalized(normalization))
                .transpose()?;
        }
        let used = needs.samples.map_or(counts[0], |n| n.min(counts[0]));
        let train = train.first(used)?;
        let test = test.filter(|_| needs.test);
        let bytes = train.bytes() + test.as_ref().map_or(0.0, StoredSamples::bytes);
        let part = match bytes <= limit {
            true => used,
            false if needs.in_parts => {
                let per_sample = train.bytes() / used as f64;
                ((0.5 * limit / per_sample) as usize).clamp(1, used)
            }
            false => {
                return Err(Error::Invalid(format!(
                    "{name}: {used} training samples{} have {}, memory allows {}, and this command needs all of them in memory: use {}\
                     a smaller file",
                    if test.is_some() {
                        " and the test samples"
                    } else {
                        ""
                    },
                    memory::size(bytes),
                    memory::size(limit),
                    if needs.has_samples_flag {
                        "fewer with --samples, or "
                    } else {
                        ""
                    }
                )));
            }
        };
        if part < used {
            print_note(format_args!(
                "{name}: {used} samples have {}, and memory allows {}: they are read in parts of {part}",
                memory::size(bytes),
                memory::size(limit)
            ));
        }
        let first = train.read(0..part)?;
        let test = match &test {
            Some(test) => test.read(0..test.len())?,
            None => first.clone(),
        };
        let empty_classes = class_counts.map_or_else(Vec::new, |counts| {
            let count = |class: usize| counts.get(class).copied().unwrap_or(0);
            (0..outputs).filter(|&class| count(class) == 0).collect()
        });
        Ok(Data {
            train: first,
            test,
            parts: (part < used).then_some(train),
            counts,
            shape,
            outputs,
            about: About {
                name,
                test_source,
                class_names: None,
                normalization,
                empty_classes,
            },
        })
    }
}

type Stored = (StoredSamples, Option<StoredSamples>);

/// The samples if they, or the `size` of their file, are above the `limit`, all in bytes.
fn larger(opened: Result<Stored, Error>, size: f64, limit: f64) -> Result<Option<Stored>, Error> {
    match opened {
        Ok((train, test)) => {
            let bytes = train.bytes() + test.as_ref().map_or(0.0, StoredSamples::bytes);
            Ok((bytes.max(size) > limit).then_some((train, test)))
        }
        // Reading the whole file gives the samples or a better message.
        Err(_) if size <= limit => Ok(None),
        Err(error) => Err(Error::Invalid(format!(
            "{error}. The file has {}, and memory allows {}: it must be read in parts",
            memory::size(size),
            memory::size(limit)
        ))),
    }
}

/// Whether ranges of rows of this file can be read.
fn is_file_of_rows(file: &Path) -> bool {
    has_ending(file, &["npz", "safetensors"])
}
