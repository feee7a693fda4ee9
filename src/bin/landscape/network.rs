//! [`Network`]: a network of the command line, and [`model_name`], which parses `--model`.

use std::ffi::OsStr;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::sync::Once;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::{Arg, Command};
use loss_landscape::Error;
use loss_landscape::candle::Result;
use loss_landscape::import::{Onnx, OnnxSettings};
use loss_landscape::layers::Shape;
use loss_landscape::model::LayerKind;
use loss_landscape::prelude::*;

use crate::network_args::ModelName;
use crate::output::print_note;
use crate::path_args::path;

/// A network of this crate, or one from an ONNX file.
#[derive(Clone, Debug)]
pub enum Network {
    Layered(Layered),
    Onnx(Box<Onnx>),
}

impl Network {
    /// Reads an ONNX file for samples of this shape.
    pub fn from_onnx(
        path: &Path,
        shape: &[usize],
        parameters: Option<&str>,
        device: &Device,
    ) -> std::result::Result<Self, Error> {
        let mut settings = OnnxSettings::default().with_sample_shape(shape);
        settings.parameters = parameters.map(str::to_owned);
        let model = Onnx::load_with(path, &settings, device)?;
        static SAID: Once = Once::new();
        if model.sample_shape() != shape {
            let shapes = [Shape::new(shape), Shape::new(model.sample_shape())];
            SAID.call_once(|| {
                print_note(format_args!(
                    "samples of shape {} are reshaped to {}",
                    shapes[0], shapes[1]
                ));
            });
        }
        Ok(Self::Onnx(Box::new(model)))
    }

    /// A copy in another floating-point dtype, with its own parameters.
    pub fn to_dtype(&self, dtype: DType) -> std::result::Result<Self, Error> {
        Ok(match self {
            Self::Layered(model) => Self::Layered(model.to_dtype(dtype)?),
            Self::Onnx(model) => Self::Onnx(Box::new(model.to_dtype(dtype)?)),
        })
    }

    fn model(&self) -> &dyn Model {
        match self {
            Self::Layered(model) => model,
            Self::Onnx(model) => model.as_ref(),
        }
    }
}

impl Module for Network {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.model().forward(x)
    }
}

impl Model for Network {
    fn parameters(&self) -> &Parameters {
        self.model().parameters()
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        self.model().layers()
    }

    fn without_layers(&self) -> Option<String> {
        self.model().without_layers()
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> Result<Tensor> {
        self.model().forward_training(x, seed)
    }
}

/// Parses the name of an architecture, or the path of an ONNX file: one that ends in `.onnx` or has a directory.
pub fn model_name() -> impl TypedValueParser<Value = ModelName> {
    ModelNameParser
}

#[derive(Clone)]
struct ModelNameParser;

impl TypedValueParser for ModelNameParser {
    type Value = ModelName;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> std::result::Result<ModelName, clap::Error> {
        let bytes = value.as_encoded_bytes();
        let is_path = bytes.ends_with(b".onnx") || bytes.contains(&(MAIN_SEPARATOR as u8));
        match is_path {
            true => {
                let path: PathBuf = path().parse_ref(command, argument, value)?;
                Ok(ModelName::Onnx(path))
            }
            false => EnumValueParser::new().parse_ref(command, argument, value),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = EnumValueParser::<ModelName>::new();
        let names: Vec<_> = names.possible_values().into_iter().flatten().collect();
        Some(Box::new(names.into_iter()))
    }
}
