//! Datasets.

use super::{Bundle, Show};
use crate::data::synthetic::TeacherStudent;
use crate::data::{
    Cifar10, Cifar100, Dataset, FashionMnist, Mnist, Targets, TestSource, TrainTest,
};
use crate::error::{Result, counted};

impl Show for Dataset {
    fn bundle(&self) -> Result<Bundle> {
        let targets = match self.targets() {
            Targets::Labels(_) => "labels".to_owned(),
            Targets::Values(values) => {
                format!("{} each", counted(values.dims()[1], "target value"))
            }
        };
        Ok(Bundle::text(format!(
            "{} of shape {:?} ({:?}) with {targets}",
            counted(self.len(), "sample"),
            &self.inputs().dims()[1..],
            self.inputs().dtype()
        )))
    }
}

impl Show for Targets {
    fn bundle(&self) -> Result<Bundle> {
        match self {
            Self::Labels(tensor) | Self::Values(tensor) => tensor.bundle(),
        }
    }

    fn inline(&self) -> Result<String> {
        Ok(match self {
            Self::Labels(labels) => format!("Labels({})", labels.inline()?),
            Self::Values(values) => format!("Values({})", values.inline()?),
        })
    }
}

fn train_and_test(train: &Dataset, test: &Dataset) -> Result<Bundle> {
    let (train, test) = (train.inline()?, test.inline()?);
    Ok(Bundle::text(format!("train: {train}\ntest: {test}")))
}

impl Show for Mnist {
    fn bundle(&self) -> Result<Bundle> {
        train_and_test(&self.train, &self.test)
    }
}

impl Show for FashionMnist {
    fn bundle(&self) -> Result<Bundle> {
        train_and_test(&self.train, &self.test)
    }
}

impl Show for Cifar10 {
    fn bundle(&self) -> Result<Bundle> {
        train_and_test(&self.train, &self.test)
    }
}

impl Show for Cifar100 {
    fn bundle(&self) -> Result<Bundle> {
        train_and_test(&self.train, &self.test)
    }
}

impl Show for TrainTest {
    fn bundle(&self) -> Result<Bundle> {
        let mut test = self.test.inline()?;
        if self.test_source != TestSource::Files {
            test += &format!(" ({})", self.test_source);
        }
        Ok(Bundle::text(format!(
            "train: {}\ntest: {test}",
            self.train.inline()?
        )))
    }
}

impl Show for TestSource {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(self.to_string()))
    }
}

impl Show for TeacherStudent {
    fn bundle(&self) -> Result<Bundle> {
        let (data, teacher) = (self.data.inline()?, self.teacher.inline()?);
        Ok(Bundle::text(format!("data: {data}\nteacher: {teacher}")))
    }
}
