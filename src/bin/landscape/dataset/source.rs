//! Source of the samples as a flag: a name, a file or a directory.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clap::builder::{OsStringValueParser, TypedValueParser};
use loss_landscape::serde::{Serialize, Serializer};

use crate::config_file;
use crate::path_args::expand;

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

impl DatasetName {
    pub fn is_text(self) -> bool {
        matches!(self, Self::Shakespeare | Self::TinyStories | Self::Text)
    }

    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub fn source() -> impl TypedValueParser<Value = Source> {
    OsStringValueParser::new().try_map(Source::parse)
}

/// Endings of files that a `DataReader` reads.
const ENDINGS: [&str; 6] = ["npz", "safetensors", "pth", "pt", "csv", "parquet"];

pub fn has_ending(path: &Path, endings: &[&str]) -> bool {
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

    pub fn is_text(&self) -> bool {
        matches!(self, Self::Named(name) if name.is_text())
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Named(_) => None,
            Self::Idx(path) | Self::ImageFolder(path) | Self::File(path) => Some(path),
        }
    }

    /// As on the command line.
    pub fn to_text(&self) -> String {
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
pub fn is_missing_or_not_utf8(source: &Option<Source>) -> bool {
    let path = source.as_ref().map(Source::path);
    path.is_none_or(|path| path.is_some_and(config_file::is_not_utf8))
}

pub fn dataset_help() -> String {
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
