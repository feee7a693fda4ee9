//! Flags for the dataset.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::data::synthetic::sum_of_two;
use loss_landscape::data::{
    Cifar10, Cifar100, DataReader, FashionMnist, InputNormalization, SampleSource, StoredSamples,
    TestSource, Text, TrainTest, idx,
};
use loss_landscape::memory;
use loss_landscape::prelude::*;
use loss_landscape::serde::{Serialize, Serializer};
use loss_landscape::serde_json::{Value, json};

use crate::limits::at_least;
use crate::output::{number, path_text, print_note};
use crate::path_args::{expand, path};
use crate::{Ignored, config_file};

/// The dataset.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct DatasetArgs {
    /// Dataset: a name, a file, idx:DIR or imagefolder:DIR [default: mnist; for `gpt` shakespeare, or text with --data]
    #[arg(long, value_name = "DATASET", value_parser = source(), long_help = dataset_help())]
    #[serde(skip_serializing_if = "is_missing_or_not_utf8")]
    pub dataset: Option<Source>,
    /// Directory of the dataset's files, or the text file [default: NAME in LOSS_LANDSCAPE_DATA; what is not there is downloaded]
    #[arg(long, value_name = "PATH", value_parser = path())]
    #[serde(skip_serializing_if = "config_file::is_missing_or_not_utf8")]
    pub data: Option<PathBuf>,
    /// Names of the arrays or columns of inputs in a file [default: inputs; in a table without that column, all but the targets]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Vec<String>>,
    /// Name of the array or column of targets in a file: integers or text for classes, floats for values [default: targets]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<String>,
    /// Number of classes of a file [default: the largest label plus 1]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<usize>,
    /// Random share of the samples of a file or image folder to use as test samples [default: the training samples are the test samples]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    test_share: Option<f64>,
    /// Resize the images of an image folder to N × N, or to HEIGHTxWIDTH
    #[arg(long, value_name = "N|HxW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<ImageSize>,
    /// Convert the images of an image folder to grey
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set)]
    grey: bool,
    /// Normalise inputs by mean and deviation of the training samples, or by these: means:deviations, such as 0.1307:0.3081
    #[arg(
        long,
        num_args = 0..=1,
        value_name = "MEANS:DEVIATIONS",
        require_equals = true,
        default_missing_value = "true",
        long_help = NORMALIZE_HELP
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    normalize: Option<Normalize>,
    /// Number of characters in a sequence that `gpt` reads [default: 64]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<usize>,
}

const NORMALIZE_HELP: &str = "Normalise inputs by mean and deviation of the training samples, or by these: \
    means:deviations, such as 0.1307:0.3081 or 0.49,0.48,0.45:0.25,0.24,0.26. Images have a mean and deviation per channel, tables per \
    column, other inputs one";

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum DatasetName {
    /// MNIST, handwritten digits, 28 × 28; or another set of this shape in --data
    Mnist,
    /// Fashion-MNIST: clothes, 28 × 28; downloaded unless in --data or LOSS_LANDSCAPE_DATA
    FashionMnist,
    /// CIFAR-10: photographs, 3 × 32 × 32; downloaded unless in --data or LOSS_LANDSCAPE_DATA
    Cifar10,
    /// CIFAR-100 with 100 fine classes; needs --data
    Cifar100,
    /// CIFAR-100 with 20 coarse classes; needs --data
    Cifar100Coarse,
    /// 800 training and 200 test samples of 20 features; the class depends on two of them
    Synthetic,
    /// Two plays by Shakespeare: 10,000 training and 1,000 test sequences of characters
    Shakespeare,
    /// Short stories, the validation text of TinyStories; downloaded unless in --data or LOSS_LANDSCAPE_DATA
    #[value(name = "tinystories")]
    TinyStories,
    /// The UTF-8 text file in --data: at most 10,000 training and 1,000 test sequences of characters
    Text,
}

/// Source of the samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Named(DatasetName),
    /// A directory of IDX files.
    Idx(PathBuf),
    /// A directory with a folder of images for each class.
    ImageFolder(PathBuf),
    /// A file of arrays or a table.
    File(PathBuf),
}

/// What a command needs of the samples.
#[derive(Clone, Copy)]
pub struct Needs {
    /// The command uses only this many training samples, or all if there are fewer.
    pub samples: Option<usize>,
    /// Whether it needs the test samples.
    pub test: bool,
    /// Whether it can read the training samples in parts.
    pub in_parts: bool,
    /// Largest size of the samples in memory, in bytes. At most half of the free memory is used.
    pub memory: f64,
    pub dtype: DType,
}

impl Needs {
    /// Training and test samples in memory, in the type in which models are trained.
    pub fn training(samples: Option<usize>) -> Self {
        Self {
            samples,
            test: true,
            in_parts: false,
            memory: f64::INFINITY,
            dtype: DType::F32,
        }
    }
}

/// Smaller files are never read in parts, in bytes.
const LEAST_MEMORY: f64 = (1 << 20) as f64;

/// Training and test samples. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Data {
    /// Training samples, or the first of them: as many as the command uses, or a part.
    pub train: Dataset,
    /// Test samples, if the command uses them.
    pub test: Dataset,
    /// The training samples that the command uses, if they are read in parts of the size of `train`.
    pub parts: Option<StoredSamples>,
    /// Numbers of all training and test samples.
    pub counts: [usize; 2],
    /// Shape of a sample. A network sees it although MNIST's images are flattened.
    pub shape: Vec<usize>,
    /// Number of classes, or of values to fit.
    pub outputs: usize,
    about: About,
}

/// Description of the samples for reports.
#[derive(Clone, Debug)]
struct About {
    name: String,
    test_source: TestSource,
    class_names: Option<Vec<String>>,
    normalization: Option<InputNormalization>,
    /// Classes without training samples.
    empty_classes: Vec<usize>,
}

/// The samples of this process.
static LOADED: OnceLock<Data> = OnceLock::new();

/// The samples, if they are loaded.
pub fn loaded() -> Option<&'static Data> {
    LOADED.get()
}

/// Number of training samples in the synthetic dataset.
const SYNTHETIC_TRAIN: usize = 800;

/// Largest numbers of training and test sequences of a text. A shorter text has one per position.
const SEQUENCES: [usize; 2] = [10_000, 1_000];

impl DatasetArgs {
    pub fn ignored(&self, reads_text: bool) -> Ignored {
        let mut ignored: Ignored = Vec::new();
        let source = self.source(reads_text);
        let named = match &source {
            Source::Named(name) => Some(*name),
            _ => None,
        };
        let (is_file, is_folder) = match &source {
            Source::File(_) => (true, false),
            Source::ImageFolder(_) => (false, true),
            _ => (false, false),
        };
        if !reads_text {
            ignored.push((&["context"], "only `gpt` reads sequences"));
        } else if is_file {
            ignored.push((&["context"], "the sequences of the file have a length"));
        }
        match named {
            Some(DatasetName::Synthetic) => ignored.push((
                &["data"],
                "the synthetic dataset is generated, not read from files",
            )),
            Some(DatasetName::Shakespeare) => ignored.push((
                &["data"],
                "the plays are part of this program; use --dataset text for another text",
            )),
            Some(_) => {}
            None => ignored.push((&["data"], "--dataset states the path")),
        }
        if !is_file {
            ignored.push((
                &["inputs", "targets"],
                "only files have names of arrays or columns",
            ));
        }
        if !is_folder {
            ignored.push((
                &["size", "grey"],
                "only imagefolder:DIR has images to convert",
            ));
        }
        if !is_file && !is_folder {
            ignored.push((
                &["test-share"],
                "the dataset has a fixed division into training and test samples",
            ));
        }
        if !self.takes_classes(reads_text) {
            ignored.push((&["classes"], "the dataset has a fixed number of classes"));
        }
        if named.is_some_and(DatasetName::is_text) {
            ignored.push((&["normalize"], "text has no values"));
        }
        ignored
    }

    /// Whether the number of classes is that of the labels unless --classes states another.
    pub fn takes_classes(&self, reads_text: bool) -> bool {
        matches!(self.source(reads_text), Source::Idx(_) | Source::File(_))
    }

    /// Whether --dataset names a text.
    pub fn is_text(&self) -> bool {
        self.dataset.as_ref().is_some_and(Source::is_text)
    }

    /// Checks the flags for a model, before any work.
    pub fn check(&self, model: &str, reads_text: bool) -> Result<(), Error> {
        at_least(1, "context", self.context())?;
        at_least(1, "classes", self.classes.unwrap_or(1))?;
        if let Some(share) = self.test_share
            && !(share > 0.0 && share < 1.0)
        {
            return Err(Error::Invalid(format!(
                "--test-share must be above 0 and below 1, found {share}"
            )));
        }
        let source = self.source(reads_text);
        match (reads_text, source.is_text()) {
            (true, false) if !matches!(source, Source::File(_)) => Err(Error::Invalid(format!(
                "`{model}` reads text, and dataset `{}` has none: use --dataset shakespeare, or --dataset text with --data",
                source.to_text()
            ))),
            (false, true) => Err(Error::Invalid(format!(
                "`{model}` does not read text, and dataset `{}` is text: use --model gpt or another --dataset",
                source.to_text()
            ))),
            _ => Ok(()),
        }
    }

    /// Loads the samples for [`loaded`]. Integer inputs of files are tokens if the model reads `tokens`, else values.
    pub fn load(
        &self,
        reads_text: bool,
        tokens: bool,
        device: &Device,
        needs: Needs,
    ) -> Result<Data, Error> {
        let data = match self.stored(reads_text, tokens, device, needs)? {
            Some(data) => data,
            None => {
                let mut data = self.read(reads_text, tokens, device)?;
                if let Some(normalization) = self.normalization(&data.train, &data.shape)? {
                    data.train = data.train.normalized(&normalization)?;
                    data.test = data.test.normalized(&normalization)?;
                    data.about.normalization = Some(normalization);
                }
                data
            }
        };
        Ok(LOADED.get_or_init(|| data).clone())
    }

    /// Whether samples may be read in parts.
    pub fn is_file_of_rows(&self, reads_text: bool) -> bool {
        match self.source(reads_text) {
            Source::File(file) => has_ending(&file, &["npz", "safetensors"]),
            _ => false,
        }
    }

    /// The samples of a file that is larger than memory allows; `None` for a smaller file, and for one that must be read as a whole.
    fn stored(
        &self,
        reads_text: bool,
        tokens: bool,
        device: &Device,
        needs: Needs,
    ) -> Result<Option<Data>, Error> {
        let (Source::File(file), true) =
            (self.source(reads_text), self.is_file_of_rows(reads_text))
        else {
            return Ok(None);
        };
        let limit = needs.memory.max(LEAST_MEMORY);
        let limit = limit.min(0.5 * memory::available());
        let size = file.metadata().map_or(0.0, |file| file.len() as f64);
        let (train, test) = match self.reader(tokens).open(&file, needs.dtype, device) {
            Ok((train, _)) if train.bytes() <= limit && size <= limit => return Ok(None),
            Ok(found) => found,
            // Reading the whole file gives the samples or a better message.
            Err(_) if size <= limit => return Ok(None),
            Err(error) => {
                let size = memory::size(size);
                return Err(Error::Invalid(format!(
                    "{error}. The file has {size}, and memory allows {}: it must be read in parts",
                    memory::size(limit)
                )));
            }
        };
        let needs = Needs {
            memory: limit,
            ..needs
        };
        self.check_tokens(&file, reads_text, &train.read(0..1)?)?;
        self.stored_data(&file, train, test, needs).map(Some)
    }

    /// The training and test samples of a file, as many as the command needs.
    fn stored_data(
        &self,
        file: &Path,
        mut train: StoredSamples,
        mut test: Option<StoredSamples>,
        needs: Needs,
    ) -> Result<Data, Error> {
        let limit = needs.memory;
        let name = path_text(file);
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
                    "{name}: {used} training samples{} have {}, memory allows {}, and this command needs all of them in memory: use a \
                     smaller file, or --samples N of train, sweep or connect",
                    if test.is_some() {
                        " and the test samples"
                    } else {
                        ""
                    },
                    memory::size(bytes),
                    memory::size(limit)
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

    /// The path in the flags that is not UTF-8.
    pub fn path_not_utf8(&self) -> Option<&Path> {
        let source = self.dataset.as_ref().and_then(Source::path);
        let mut paths = source.into_iter().chain(self.data.as_deref());
        paths.find(|path| config_file::is_not_utf8(path))
    }

    fn source(&self, reads_text: bool) -> Source {
        let named = match (&self.dataset, reads_text, &self.data) {
            (Some(source), ..) => return source.clone(),
            (None, true, Some(_)) => DatasetName::Text,
            (None, true, None) => DatasetName::Shakespeare,
            (None, false, _) => DatasetName::Mnist,
        };
        Source::Named(named)
    }

    fn context(&self) -> usize {
        self.context.unwrap_or(64)
    }

    fn reader(&self, tokens: bool) -> DataReader {
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
    fn check_tokens(&self, file: &Path, reads_text: bool, train: &Dataset) -> Result<(), Error> {
        match reads_text && train.inputs().dtype() != DType::U32 {
            true => Err(Error::Invalid(format!(
                "{}: `gpt` reads tokens, and the inputs are floating point: store tokens as integers",
                file.display()
            ))),
            false => Ok(()),
        }
    }

    /// The normalisation of inputs of this shape, if one is asked for.
    fn normalization(
        &self,
        train: &dyn SampleSource,
        shape: &[usize],
    ) -> Result<Option<InputNormalization>, Error> {
        Ok(match &self.normalize {
            None => None,
            Some(Normalize::Given(normalization)) => Some(normalization.clone()),
            // MNIST's images are flattened: its pixels are no features.
            Some(Normalize::Training) if matches!(shape, [1, _, _]) => {
                Some(InputNormalization::overall(train)?)
            }
            Some(Normalize::Training) => Some(InputNormalization::per_channel(train)?),
        })
    }

    fn read(&self, reads_text: bool, tokens: bool, device: &Device) -> Result<Data, Error> {
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

    fn read_named(&self, name: DatasetName, device: &Device) -> Result<Data, Error> {
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
        let shape = train.inputs().dims()[1..].to_vec();
        let mut data = Data::new(name, train, test, test_source, shape, outputs)?;
        data.about.class_names = class_names;
        Ok(data)
    }

    /// Number of values to fit, or of classes, of which `found` are in the data.
    fn count_outputs(&self, name: &str, targets: &Targets, found: usize) -> Result<usize, Error> {
        match (targets, self.classes) {
            (Targets::Values(_), Some(_)) => Err(Error::Invalid(format!(
                "{name}: --classes has no effect, because the targets are floating point: store classes as integers"
            ))),
            (Targets::Values(values), None) => Ok(values.dims()[1..].iter().product()),
            (Targets::Labels(_), Some(classes)) if classes < found => Err(Error::Invalid(format!(
                "{name}: --classes is {classes}, and the largest label is {}: give at least {found}",
                found - 1
            ))),
            (Targets::Labels(_), Some(classes)) => Ok(classes),
            (Targets::Labels(_), None) if found == 1 => Err(Error::Invalid(format!(
                "{name}: all samples are of class 0, and cross-entropy needs two classes: give --classes N if others are missing"
            ))),
            (Targets::Labels(_), None) => Ok(found),
        }
    }
}

impl Data {
    fn new(
        name: String,
        train: Dataset,
        test: Dataset,
        test_source: TestSource,
        shape: Vec<usize>,
        outputs: usize,
    ) -> Result<Self, Error> {
        let mut empty_classes = Vec::new();
        if let Targets::Labels(_) = train.targets() {
            let mut is_empty = vec![true; outputs];
            for label in train.labels()? {
                if let Some(is_empty) = is_empty.get_mut(label as usize) {
                    *is_empty = false;
                }
            }
            empty_classes = (0..outputs).filter(|&class| is_empty[class]).collect();
        }
        Ok(Self {
            counts: [train.len(), test.len()],
            train,
            test,
            parts: None,
            shape,
            outputs,
            about: About {
                name,
                test_source,
                class_names: None,
                normalization: None,
                empty_classes,
            },
        })
    }

    /// The default loss: cross-entropy for classes, mean squared error for values.
    pub fn loss(&self) -> Loss {
        match self.train.targets() {
            Targets::Labels(_) => Loss::CrossEntropy,
            Targets::Values(_) => Loss::Mse,
        }
    }

    /// The samples in `f32`, in which models are trained.
    pub fn in_f32(mut self) -> Result<Self, Error> {
        self.train = self.train.to_dtype(DType::F32)?;
        self.test = self.test.to_dtype(DType::F32)?;
        Ok(self)
    }

    /// "10 classes" or "2 values".
    pub fn describe_outputs(&self) -> String {
        match (self.train.targets(), self.outputs) {
            (Targets::Labels(_), count) => format!("{count} classes"),
            (Targets::Values(_), 1) => "1 value".to_owned(),
            (Targets::Values(_), count) => format!("{count} values"),
        }
    }

    /// Lines about the dataset for reports.
    pub fn text(&self) -> String {
        let shape = self.shape.iter().map(usize::to_string);
        let mut text = format!(
            "dataset: {}, samples of shape {}, {}\n",
            self.about.name,
            shape.collect::<Vec<_>>().join(" × "),
            self.describe_outputs()
        );
        if self.parts.is_some() {
            let _ = writeln!(
                text,
                "samples are read in parts of {}, because they do not fit into memory",
                self.train.len()
            );
        }
        if self.about.test_source != TestSource::Files {
            let _ = writeln!(text, "test samples: {}", self.about.test_source);
        }
        let empty = &self.about.empty_classes;
        if !empty.is_empty() {
            let _ = writeln!(text, "classes without training samples: {}", list(empty));
        }
        if let Some(InputNormalization {
            mean, deviation, ..
        }) = &self.about.normalization
        {
            let numbers = |values: &[f64]| {
                let values = values.iter().map(|value| number(*value, 4));
                list(&values.collect::<Vec<_>>())
            };
            let _ = writeln!(
                text,
                "inputs normalised: mean {}; deviation {}",
                numbers(mean),
                numbers(deviation)
            );
        }
        text
    }

    pub fn json(&self) -> Value {
        let is_labelled = matches!(self.train.targets(), Targets::Labels(_));
        json!({
            "name": self.about.name,
            "shape": self.shape,
            "classes": is_labelled.then_some(self.outputs),
            "values": (!is_labelled).then_some(self.outputs),
            "training_samples": self.counts[0],
            "test_samples": self.counts[1],
            "samples_per_part": self.parts.as_ref().map(|_| self.train.len()),
            "test_source": self.about.test_source,
            "class_names": self.about.class_names,
            "empty_classes": self.about.empty_classes,
            "normalization": self.about.normalization,
        })
    }
}

/// At most 12 items, separated by commas, and the number of the others.
fn list(items: &[impl ToString]) -> String {
    const SHOWN: usize = 12;
    let shown = items.iter().take(SHOWN).map(ToString::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        let _ = write!(text, " and {} more", items.len() - SHOWN);
    }
    text
}

impl DatasetName {
    fn is_text(self) -> bool {
        matches!(self, Self::Shakespeare | Self::TinyStories | Self::Text)
    }

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn source() -> impl TypedValueParser<Value = Source> {
    OsStringValueParser::new().try_map(Source::parse)
}

/// Endings of files that a [`DataReader`] reads.
const ENDINGS: [&str; 6] = ["npz", "safetensors", "pth", "pt", "csv", "parquet"];

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    endings.contains(&ending.to_lowercase().as_str())
}

impl Source {
    fn parse(text: OsString) -> Result<Self, String> {
        let is_prefixed = |prefix| text.to_string_lossy().starts_with(prefix);
        match text.to_str() {
            Some(text) => {
                if let Ok(name) = DatasetName::from_str(text, false) {
                    return Ok(Self::Named(name));
                }
                if let Some(dir) = text.strip_prefix("idx:") {
                    return expand(Path::new(dir)).map(Self::Idx);
                }
                if let Some(dir) = text.strip_prefix("imagefolder:") {
                    return expand(Path::new(dir)).map(Self::ImageFolder);
                }
            }
            None if is_prefixed("idx:") || is_prefixed("imagefolder:") => {
                return Err("the path is not UTF-8: rename the directory".into());
            }
            None => {}
        }
        let path = expand(Path::new(&text))?;
        if has_ending(&path, &ENDINGS) {
            return Ok(Self::File(path));
        }
        let names = DatasetName::value_variants().iter();
        let names: Vec<String> = names.map(|name| name.name()).collect();
        let expected = format!(
            "expected one of {}, idx:DIR, imagefolder:DIR, or a file ending in .{}",
            names.join(", "),
            ENDINGS.join(", .")
        );
        Err(match path.is_dir() {
            true => format!(
                "{expected}; for this directory, use idx:{0} or imagefolder:{0}",
                path.display()
            ),
            false if has_ending(&path, &["txt"]) => format!(
                "{expected}; for this text, use --dataset text --data {}",
                path.display()
            ),
            false => expected,
        })
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Named(name) if name.is_text())
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Named(_) => None,
            Self::Idx(path) | Self::ImageFolder(path) | Self::File(path) => Some(path),
        }
    }

    /// As on the command line.
    fn to_text(&self) -> String {
        match self {
            Self::Named(name) => name.name(),
            Self::Idx(dir) => format!("idx:{}", dir.display()),
            Self::ImageFolder(dir) => format!("imagefolder:{}", dir.display()),
            Self::File(file) => file.display().to_string(),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

#[allow(clippy::ref_option)] // serde's signature
fn is_missing_or_not_utf8(source: &Option<Source>) -> bool {
    let path = source.as_ref().map(Source::path);
    path.is_none_or(|path| path.is_some_and(config_file::is_not_utf8))
}

fn dataset_help() -> String {
    let mut help =
        "Dataset [default: mnist; for `gpt` shakespeare, or text with --data]\n".to_owned();
    for name in DatasetName::value_variants() {
        let value = name.to_possible_value();
        let about = value.and_then(|value| value.get_help().map(ToString::to_string));
        let _ = write!(help, "\n- {}: {}", name.name(), about.unwrap_or_default());
    }
    help += "\n- FILE: arrays in .npz, .safetensors or .pth, or a table in .csv or .parquet; see --inputs and --targets";
    help += "\n- idx:DIR: IDX files, such as KMNIST or EMNIST";
    help += "\n- imagefolder:DIR: PNG and JPEG images in a folder for each class, perhaps in DIR/train and DIR/test";
    help
}

/// Height and width of images.
#[derive(Clone, Copy, Debug)]
struct ImageSize([usize; 2]);

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (height, width) = text.split_once(['x', '×']).unwrap_or((text, text));
        match (height.parse(), width.parse()) {
            (Ok(height), Ok(width)) => Ok(Self([height, width])),
            _ => Err("expected N or HEIGHTxWIDTH, such as 32 or 32x48".into()),
        }
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [height, width] = self.0;
        serializer.serialize_str(&format!("{height}x{width}"))
    }
}

/// Normalisation of inputs.
#[derive(Clone, Debug)]
enum Normalize {
    /// By mean and deviation of the training samples.
    Training,
    Given(InputNormalization),
}

impl FromStr for Normalize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "true" {
            return Ok(Self::Training);
        }
        let numbers = |text: &str| -> Result<Vec<f64>, String> {
            let number = |text: &str| {
                let number = text.trim().parse::<f64>();
                number.map_err(|_| format!("`{text}` is not a number"))
            };
            text.split(',').map(number).collect()
        };
        let (mean, deviation) = text
            .split_once(':')
            .ok_or("expected means:deviations, such as 0.1307:0.3081")?;
        let normalization = InputNormalization::new(numbers(mean)?, numbers(deviation)?);
        normalization.map(Self::Given).map_err(|e| e.to_string())
    }
}

impl Serialize for Normalize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self::Given(normalization) = self else {
            return serializer.serialize_bool(true);
        };
        let join = |values: &[f64]| {
            let values = values.iter().map(f64::to_string);
            values.collect::<Vec<_>>().join(",")
        };
        let (mean, deviation) = (&normalization.mean, &normalization.deviation);
        serializer.serialize_str(&format!("{}:{}", join(mean), join(deviation)))
    }
}
