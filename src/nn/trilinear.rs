//! [`convolve`]: convolution as a candle operation with custom derivatives.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};

use super::batched_convolution::BatchedConvolution;
use crate::kernels::Scalar;

/// x ∗ W + b, for CPU tensors that are both `f32` or both `f64`; `theta` is W, followed by b if there is a bias.
pub(super) fn convolve(
    convolution: BatchedConvolution,
    x: &Tensor,
    theta: &Tensor,
) -> Result<Tensor> {
    derivative(Slot::Output, true, &Arc::new(convolution), x, theta)
}

#[derive(Clone, Copy)]
enum Slot {
    Input,
    Parameters,
    Output,
}

/// The derivative of t(x, θ, y) = ⟨x ∗ W + s b, y⟩ in one argument: a function of the other two, in their order.
///
/// In y it is the convolution; in x and θ it is what backpropagation needs. t is linear in θ, in y, and in (x, s),
/// where s is 1 for images and 0 for the tangents that replace them when a derivative with respect to x is differentiated. So
/// backpropagation through any of these functions needs only the other two.
struct Derivative {
    by: Slot,
    with_bias: bool,
    convolution: Arc<BatchedConvolution>,
}

fn derivative(
    by: Slot,
    with_bias: bool,
    convolution: &Arc<BatchedConvolution>,
    a: &Tensor,
    b: &Tensor,
) -> Result<Tensor> {
    let derivative = Derivative {
        by,
        with_bias,
        convolution: convolution.clone(),
    };
    a.contiguous()?.apply_op2(&b.contiguous()?, derivative)
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
            Slot::Input => self.convolution.input_gradient(a, b)?,
            Slot::Parameters => self.convolution.gradient(a, b, self.with_bias)?,
            Slot::Output => self.convolution.forward(a, b, self.with_bias)?,
        }))
    }
}

impl CustomOp2 for Derivative {
    fn name(&self) -> &'static str {
        match self.by {
            Slot::Input => "conv2d-input-gradient",
            Slot::Parameters => "conv2d-weight-gradient",
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
            Slot::Input => images(b_layout, self.convolution.input()),
            Slot::Parameters => Shape::from(self.convolution.num_params()),
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
        let by =
            |slot, with_bias, a, b| derivative(slot, with_bias, &self.convolution, a, b).map(Some);
        // Data and constants need no derivative.
        let wanted = |tensor: &Tensor, compute: &dyn Fn() -> Result<Option<Tensor>>| match tensor
            .track_op()
        {
            true => compute(),
            false => Ok(None),
        };
        let (g, s) = (gradient, self.with_bias);
        Ok(match self.by {
            // (x, θ) ↦ y
            Slot::Output => (
                wanted(a, &|| by(Slot::Input, s, b, g))?,
                wanted(b, &|| by(Slot::Parameters, s, a, g))?,
            ),
            // (θ, y) ↦ x
            Slot::Input => (
                wanted(a, &|| by(Slot::Parameters, false, g, b))?,
                wanted(b, &|| by(Slot::Output, false, g, a))?,
            ),
            // (x, y) ↦ θ
            Slot::Parameters => (
                wanted(a, &|| by(Slot::Input, s, g, b))?,
                wanted(b, &|| by(Slot::Output, s, a, g))?,
            ),
        })
    }
}
