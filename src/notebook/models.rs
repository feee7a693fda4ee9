//! Models and their parameters.

use candle_core::Var;
use candle_nn::{VarBuilder, VarMap};

use super::arrays::device;
use super::table::{Align, Table};
use super::{Bundle, Show};
use crate::error::{Result, counted};
use crate::import::{Onnx, OnnxSummary};
use crate::model::{Layered, Mlp, Model, Parameters};

impl Show for Mlp {
    fn bundle(&self) -> Result<Bundle> {
        let widths: Vec<_> = self.widths().iter().map(usize::to_string).collect();
        Ok(Bundle::text(format!(
            "Mlp {} with {:?}, {} ({:?})",
            widths.join("-"),
            self.activation(),
            counted(self.parameters().len(), "parameter"),
            self.parameters().dtype()
        )))
    }
}

impl Show for Onnx {
    fn bundle(&self) -> Result<Bundle> {
        self.summary().bundle()
    }
}

impl Show for OnnxSummary {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(self.to_string()))
    }
}

/// One row per layer.
impl Show for Layered {
    fn bundle(&self) -> Result<Bundle> {
        let layers = self.layers().unwrap_or_default();
        let table = Table::new(layers.len());
        let lines = table.rows().map(|i| layers[i].inline());
        let lines = lines.collect::<Result<Vec<_>>>()?;
        Ok(table
            .with_column(self.inline()?, Align::Left, lines)
            .bundle())
    }

    fn inline(&self) -> Result<String> {
        Ok(format!(
            "Layered with {}, {} ({:?})",
            counted(self.layers().unwrap_or_default().len(), "layer"),
            counted(self.parameters().len(), "parameter"),
            self.parameters().dtype()
        ))
    }
}

/// Name, shape, type and number of entries of each variable; the sum of these numbers.
fn variables<'a>(variables: impl Iterator<Item = &'a (String, Var)>) -> Bundle {
    let rows: Vec<_> = variables.collect();
    let counts = || rows.iter().map(|(_, var)| var.elem_count());
    let column = |last: &str, text: &dyn Fn(&(String, Var)) -> String| {
        let cells = rows.iter().map(|row| text(row)).chain([last.to_owned()]);
        cells.collect::<Vec<_>>()
    };
    let total = counts().sum::<usize>().to_string();
    Table::new(rows.len() + 1)
        .with_cells(
            "name",
            Align::Left,
            &column("total", &|(name, _)| name.clone()),
        )
        .with_cells(
            "shape",
            Align::Left,
            &column("", &|(_, var)| format!("{:?}", var.dims())),
        )
        .with_cells(
            "dtype",
            Align::Left,
            &column("", &|(_, var)| format!("{:?}", var.dtype())),
        )
        .with_cells(
            "count",
            Align::Right,
            &column(&total, &|(_, var)| var.elem_count().to_string()),
        )
        .bundle()
}

impl Show for Parameters {
    fn bundle(&self) -> Result<Bundle> {
        Ok(variables(self.iter()))
    }

    fn inline(&self) -> Result<String> {
        Ok(format!(
            "{} ({:?})",
            counted(self.len(), "parameter"),
            self.dtype()
        ))
    }
}

impl Show for VarMap {
    fn bundle(&self) -> Result<Bundle> {
        let map = self.data().lock().unwrap_or_else(|e| e.into_inner());
        let mut named: Vec<_> = map.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(variables(named.iter()))
    }

    fn inline(&self) -> Result<String> {
        Ok(format!(
            "VarMap of {}",
            counted(self.all_vars().len(), "variable")
        ))
    }
}

impl Show for VarBuilder<'_> {
    fn bundle(&self) -> Result<Bundle> {
        let (prefix, dtype) = (self.prefix(), self.dtype());
        let device = device(self.device());
        Ok(Bundle::text(format!(
            "VarBuilder at {prefix:?} ({dtype:?}, {device})"
        )))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::model::{Activation, Architecture};

    #[test]
    fn parameters_are_a_table_with_their_number() {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
        candle_nn::linear(3, 2, vb.pp("a<b")).unwrap();
        let bundle = map.bundle().unwrap();
        let text = "name        shape   dtype  count\n\
                    a<b.bias    [2]     F64        2\n\
                    a<b.weight  [2, 3]  F64        6\n\
                    total                          8";
        assert_eq!(bundle.get("text/plain"), Some(text));
        assert!(bundle.get("text/html").unwrap().contains("a&lt;b.bias"));
        assert_eq!(
            Parameters::try_from(&map).unwrap().bundle().unwrap(),
            bundle
        );
        assert_eq!(
            vb.pp("x").inline().unwrap(),
            "VarBuilder at \"x\" (F64, CPU)"
        );
    }

    #[test]
    fn models_say_their_layers_and_size() {
        let mlp = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
        assert_eq!(
            mlp.inline().unwrap(),
            "Mlp 2-3-1 with Tanh, 13 parameters (F32)"
        );
        let layered = Layered::new(mlp.layers().unwrap(), mlp.parameters().clone());
        let bundle = layered.bundle().unwrap();
        let lines: Vec<_> = bundle.get("text/plain").unwrap().lines().collect();
        assert_eq!(
            lines,
            [
                "Layered with 4 layers, 13 parameters (F32)",
                "Flatten",
                "Linear { weight: \"layers.0.weight\", bias: \"layers.0.bias\" }",
                "Activation(Tanh)",
                "Linear { weight: \"layers.1.weight\", bias: \"layers.1.bias\" }",
            ]
        );
        assert_eq!(Architecture::ResNet20.inline().unwrap(), "ResNet20");
    }
}
