//! Samples of the user's files that fit into memory.

use std::path::Path;

use loss_landscape::Error;
use loss_landscape::data::{DataReader, TrainTest, idx};
use loss_landscape::prelude::*;

use super::{Data, DatasetArgs, ImageSize, Source};
use crate::output::print_note;

/// Largest number of classes. A label beyond is a number of another kind, such as an identifier.
const MOST_CLASSES: usize = 1 << 24;

impl DatasetArgs {
    pub(super) fn read(
        &self,
        reads_text: bool,
        tokens: bool,
        device: &Device,
    ) -> Result<Data, Error> {
        match self.source(reads_text) {
            Source::Named(name) => self.read_named(name, device),
            Source::Idx(dir) => {
                let samples = idx::load_from(&dir, device)?;
                let name = samples.name.map(str::to_owned);
                let name = name.unwrap_or_else(|| format!("unknown IDX set in {}", dir.display()));
                self.own_data(name, samples)
            }
            Source::ImageFolder(dir) => {
                self.own_data(dir.display().to_string(), self.read_images(&dir, device)?)
            }
            Source::File(file) => {
                let samples = self.reader(tokens).read(&file, device)?;
                self.check_tokens(&file, reads_text, &samples.train)?;
                self.own_data(file.display().to_string(), samples)
            }
        }
    }

    #[cfg(feature = "datasets")]
    fn read_images(&self, dir: &Path, device: &Device) -> Result<TrainTest, Error> {
        let mut folder = loss_landscape::data::ImageFolder::default().with_grey(self.grey);
        if let Some(ImageSize([height, width])) = self.size {
            folder = folder.with_size(height, width);
        }
        if let Some(share) = self.test_share {
            folder = folder.with_test_share(share);
        }
        folder.read(dir, device)
    }

    #[cfg(not(feature = "datasets"))]
    fn read_images(&self, _: &Path, _: &Device) -> Result<TrainTest, Error> {
        Err(Error::Invalid(
            "this program cannot read images: compile it with --features datasets".into(),
        ))
    }

    pub(super) fn reader(&self, tokens: bool) -> DataReader {
        let mut reader = DataReader::default().with_tokens(tokens);
        if let Some(inputs) = &self.inputs {
            reader = reader.with_inputs(inputs);
        }
        if let Some(targets) = &self.targets {
            reader = reader.with_targets(targets);
        }
        if let Some(share) = self.test_share {
            reader = reader.with_test_share(share);
        }
        reader
    }

    /// Returns an error if the model reads text and the samples are not tokens.
    pub(super) fn check_tokens(
        &self,
        file: &Path,
        reads_text: bool,
        train: &Dataset,
    ) -> Result<(), Error> {
        match reads_text && train.inputs().dtype() != DType::U32 {
            true => Err(Error::Invalid(format!(
                "{}: `gpt` reads tokens, and the inputs are floating point: store tokens as integers",
                file.display()
            ))),
            false => Ok(()),
        }
    }

    /// Samples of the user's files.
    fn own_data(&self, name: String, samples: TrainTest) -> Result<Data, Error> {
        let TrainTest {
            train,
            test,
            test_source,
            class_names,
            ..
        } = samples;
        let mut found = class_names.as_ref().map_or(0, Vec::len);
        if let Targets::Labels(_) = train.targets() {
            found = found.max(train.num_classes()?).max(test.num_classes()?);
            if train.inputs().dtype() == DType::U32 {
                let tokens =
                    |data: &Dataset| data.inputs().flatten_all()?.max(0)?.to_scalar::<u32>();
                found = found.max(tokens(&train)?.max(tokens(&test)?) as usize + 1);
            }
        }
        let outputs = self.count_outputs(&name, train.targets(), found)?;
        if are_whole_numbers(train.targets())? {
            print_note(format_args!(
                "{name}: the targets are values to fit, because they are floating point, although all are whole numbers: store classes as \
                 integers"
            ));
        }
        let shape = train.inputs().dims()[1..].to_vec();
        let mut data = Data::new(name, train, test, test_source, shape, outputs)?;
        data.about.class_names = class_names;
        Ok(data)
    }

    /// Number of values to fit, or of classes, of which `found` are in the data.
    pub(super) fn count_outputs(
        &self,
        name: &str,
        targets: &Targets,
        found: usize,
    ) -> Result<usize, Error> {
        match (targets, self.classes) {
            (Targets::Values(_), Some(_)) => Err(Error::Invalid(format!(
                "{name}: --classes has no effect, because the targets are floating point: store classes as integers"
            ))),
            (Targets::Values(values), None) => Ok(values.dims()[1..].iter().product()),
            (Targets::Labels(_), classes) if classes.unwrap_or(found) > MOST_CLASSES => {
                let problem = match classes {
                    Some(classes) => format!("--classes is {classes}"),
                    None => format!("the largest label or token is {}", found - 1),
                };
                Err(Error::Invalid(format!(
                    "{name}: {problem}, and at most {MOST_CLASSES} classes are supported: number the classes from 0, or store values to fit as \
                     floating-point numbers"
                )))
            }
            (Targets::Labels(_), Some(classes)) if classes < found => Err(Error::Invalid(format!(
                "{name}: --classes is {classes}, and the largest label is {}: give at least {found}",
                found - 1
            ))),
            (Targets::Labels(_), Some(classes)) => Ok(classes),
            (Targets::Labels(_), None) if found == 1 => Err(Error::Invalid(format!(
                "{name}: all samples are of class 0, and cross-entropy needs two classes: {}",
                match self.dataset {
                    Some(Source::ImageFolder(_)) => "add the folder of another class",
                    _ => "give --classes N if others are missing",
                }
            ))),
            (Targets::Labels(_), None) => Ok(found),
        }
    }
}

/// Whether targets are values that could be classes: one for each sample, different whole numbers, and none negative.
fn are_whole_numbers(targets: &Targets) -> Result<bool, Error> {
    let Targets::Values(values) = targets else {
        return Ok(false);
    };
    if values.elem_count() != values.dims()[0] {
        return Ok(false);
    }
    let values = values.flatten_all()?.to_dtype(DType::F64)?;
    let values = values.to_vec1::<f64>()?;
    let are_whole = values
        .iter()
        .all(|value| *value >= 0.0 && value.fract() == 0.0);
    Ok(are_whole && values.iter().any(|value| *value != values[0]))
}
