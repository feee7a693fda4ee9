//! Samples of datasets with names.

use loss_landscape::Error;
use loss_landscape::data::synthetic::sum_of_two;
use loss_landscape::data::{Cifar10, Cifar100, FashionMnist, Mnist, TestSource, Text};
use loss_landscape::prelude::*;

use super::{Data, DatasetArgs, DatasetName};

/// Number of training samples in the synthetic dataset.
const SYNTHETIC_TRAIN: usize = 800;

/// Largest numbers of training and test sequences of a text. A shorter text has one per position.
const SEQUENCES: [usize; 2] = [10_000, 1_000];

impl DatasetArgs {
    pub(super) fn read_named(&self, name: DatasetName, device: &Device) -> Result<Data, Error> {
        let data = |title: &str, [train, test]: [Dataset; 2], shape: &[usize], classes| {
            let test_source = TestSource::Files;
            Data::new(
                title.into(),
                train,
                test,
                test_source,
                shape.to_vec(),
                classes,
            )
        };
        match (name, &self.data) {
            (DatasetName::Mnist, dir) => {
                let Mnist {
                    train, test, name, ..
                } = match dir {
                    None => Mnist::load(device)?,
                    Some(dir) => Mnist::load_from(dir, device)?,
                };
                let classes = train.num_classes()?.max(test.num_classes()?).max(10);
                let title = name.unwrap_or("unknown set of MNIST's shape");
                data(title, [train, test], &[1, 28, 28], classes)
            }
            (DatasetName::FashionMnist, dir) => {
                let FashionMnist { train, test } = match dir {
                    None => FashionMnist::load(device)?,
                    Some(dir) => FashionMnist::load_from(dir, device)?,
                };
                data("Fashion-MNIST", [train, test], &[1, 28, 28], 10)
            }
            (DatasetName::Cifar10, dir) => {
                let Cifar10 { train, test, .. } = match dir {
                    None => Cifar10::load(device)?,
                    Some(dir) => Cifar10::load_from(dir, device)?,
                };
                data("CIFAR-10", [train, test], &[3, 32, 32], 10)
            }
            (DatasetName::Cifar100 | DatasetName::Cifar100Coarse, Some(dir)) => {
                let cifar = Cifar100::load_from(dir, device)?;
                let (title, sets, classes) = match name {
                    DatasetName::Cifar100 => ("CIFAR-100", [cifar.train, cifar.test], 100),
                    _ => {
                        let sets = [cifar.coarse_train, cifar.coarse_test];
                        ("CIFAR-100 with coarse labels", sets, 20)
                    }
                };
                data(title, sets, &[3, 32, 32], classes)
            }
            (DatasetName::Cifar100 | DatasetName::Cifar100Coarse, None) => Err(Error::Invalid(
                "CIFAR-100 is not included: give the directory of its binary version with --data"
                    .into(),
            )),
            (DatasetName::Synthetic, _) => {
                let all = sum_of_two(0, device)?.to_dtype(DType::F32)?;
                let rest: Vec<usize> = (SYNTHETIC_TRAIN..all.len()).collect();
                let sets = [all.first(SYNTHETIC_TRAIN)?, all.select(&rest)?];
                data("synthetic", sets, &[20], 2)
            }
            (DatasetName::Shakespeare | DatasetName::TinyStories | DatasetName::Text, file) => {
                let text = self.text(name)?;
                let (train, test) = text.split(0.1)?;
                let windows = |text: &Text, most: usize| {
                    let count = most.min(text.len() - self.context());
                    text.windows(self.context(), count, 0, device)
                };
                let sets = [
                    windows(&train, SEQUENCES[0])?,
                    windows(&test, SEQUENCES[1])?,
                ];
                let title = match (name, file) {
                    (DatasetName::TinyStories, _) => "TinyStories".to_owned(),
                    (_, Some(file)) => file.display().to_string(),
                    (_, None) => "two plays by Shakespeare".to_owned(),
                };
                data(&title, sets, &[self.context()], text.vocabulary().len())
            }
        }
    }

    fn text(&self, name: DatasetName) -> Result<Text, Error> {
        let text = match (name, &self.data) {
            (DatasetName::Text, Some(file)) => Text::load(file)?,
            (DatasetName::Text, None) => {
                return Err(Error::Invalid(
                    "no text is given: add --data FILE, or use --dataset shakespeare".into(),
                ));
            }
            (DatasetName::TinyStories, Some(dir)) => Text::load_tiny_stories(dir)?,
            (DatasetName::TinyStories, None) => Text::tiny_stories()?,
            _ => Text::shakespeare()?,
        };
        // The last tenth is for the test, and must hold a sequence and the character after it.
        let least = self.context().saturating_add(1).saturating_mul(10);
        match text.len() >= least {
            true => Ok(text),
            false => Err(Error::Invalid(format!(
                "the text has {} characters, and --context {} needs at least {least}: use a longer text or a smaller --context",
                text.len(),
                self.context()
            ))),
        }
    }
}
