//! [`convolve`]: convolution as an operation of candle's, with derivatives of its own kind.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};

use crate::objective::{Convolution, Scalar};

/// x ∗ W, for tensors on the CPU that are both `f32` or both `f64`.
pub(super) fn convolve(convolution: Convolution, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    derivative(Slot::Output, &Arc::new(convolution), x, weight)
}

#[derive(Clone, Copy)]
enum Slot {
    Input,
    Weight,
    Output,
}

/// The derivative of t(x, W, y) = ⟨x ∗ W, y⟩ by one of the three: a function of the other two, in their order.
///
/// By y it is the convolution; by x and by W it is what backpropagation through that needs. As t is linear in
/// each of the three, backpropagation through any of these functions needs the other two, and no more.
struct Derivative {
    by: Slot,
    convolution: Arc<Convolution>,
}

fn derivative(by: Slot, of: &Arc<Convolution>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let convolution = of.clone();
    a.contiguous()?
        .apply_op2(&b.contiguous()?, Derivative { by, convolution })
}

impl Derivative {
    fn compute<T: Scalar + WithDType>(
        &self,
        (a, a_layout): (&CpuStorage, &Layout),
        (b, b_layout): (&CpuStorage, &Layout),
    ) -> Result<CpuStorage> {
        let (a, b) = (a.as_slice::<T>()?, b.as_slice::<T>()?);
        let (a, b) = match (a_layout.contiguous_offsets(), b_layout.contiguous_offsets()) {
            (Some((from, to)), Some((b_from, b_to))) => (&a[from..to], &b[b_from..b_to]),
            _ => bail!("{} of tensors that are not contiguous", self.name()),
        };
        Ok(T::to_cpu_storage_owned(match self.by {
            Slot::Input => self.convolution.input_gradient(a, b),
            Slot::Weight => self.convolution.weight_gradient(a, b),
            Slot::Output => self.convolution.forward(a, b),
        }))
    }
}

impl CustomOp2 for Derivative {
    fn name(&self) -> &'static str {
        match self.by {
            Slot::Input => "conv2d-input-gradient",
            Slot::Weight => "conv2d-weight-gradient",
            Slot::Output => "conv2d",
        }
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let result = match a {
            CpuStorage::F32(_) => self.compute::<f32>((a, a_layout), (b, b_layout)),
            _ => self.compute::<f64>((a, a_layout), (b, b_layout)),
        };
        let images = |layout: &Layout, [channels, height, width]: [usize; 3]| {
            Shape::from(&[layout.dims()[0], channels, height, width])
        };
        let shape = match self.by {
            Slot::Input => images(b_layout, self.convolution.input),
            Slot::Weight => Shape::from(&self.convolution.weight),
            Slot::Output => images(a_layout, self.convolution.output()),
        };
        Ok((result?, shape))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let by = |slot, a, b| derivative(slot, &self.convolution, a, b).map(Some);
        // Data and constants need none.
        let wanted =
            |tensor: &Tensor, of: &dyn Fn() -> Result<Option<Tensor>>| match tensor.track_op() {
                true => of(),
                false => Ok(None),
            };
        let g = gradient;
        Ok(match self.by {
            // (x, W) ↦ y
            Slot::Output => (
                wanted(a, &|| by(Slot::Input, b, g))?,
                wanted(b, &|| by(Slot::Weight, a, g))?,
            ),
            // (W, y) ↦ x
            Slot::Input => (
                wanted(a, &|| by(Slot::Weight, g, b))?,
                wanted(b, &|| by(Slot::Output, g, a))?,
            ),
            // (x, y) ↦ W
            Slot::Weight => (
                wanted(a, &|| by(Slot::Input, g, b))?,
                wanted(b, &|| by(Slot::Output, a, g))?,
            ),
        })
    }
}
