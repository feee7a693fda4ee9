//! [`Scales`]: a scale γ and a shift β of each channel, parameters of the network.

use std::ops::Range;

use super::super::Scalar;
use super::super::layer::Arranged;

/// γ and β at these places of θ, arranged as γ₁, β₁, γ₂, β₂, … for several vectors, as gradients are.
pub(super) struct Scales {
    pub(super) channels: usize,
    weight: Range<usize>,
    bias: Range<usize>,
}

impl Scales {
    /// None without a γ and a β for each channel.
    pub(super) fn new(channels: usize, weight: Range<usize>, bias: Range<usize>) -> Option<Self> {
        (weight.len() == channels && bias.len() == channels).then_some(Self {
            channels,
            weight,
            bias,
        })
    }

    pub(super) fn arrange<T: Scalar>(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut arranged = Vec::with_capacity(vectors.len() * 2 * self.channels);
        for vector in vectors {
            arranged.extend_from_slice(&vector[self.weight.clone()]);
            arranged.extend_from_slice(&vector[self.bias.clone()]);
        }
        arranged
    }

    /// γ and β of some channels in vector `j`.
    pub(super) fn of<'a, T: Scalar>(
        &self,
        arranged: &'a Arranged<T>,
        j: usize,
        channels: Range<usize>,
    ) -> [&'a [T]; 2] {
        let n = self.channels;
        let (weight, bias) = arranged.forward[2 * n * j..][..2 * n].split_at(n);
        [&weight[channels.clone()], &bias[channels]]
    }

    /// Adds dγ and dβ of each direction and channel to a gradient, or writes them if `first`.
    pub(super) fn write<T: Scalar>(&self, totals: &[[f64; 2]], gradient: &mut [T], first: bool) {
        if first {
            gradient.fill(T::ZERO);
        }
        let directions = gradient.chunks_exact_mut(2 * self.channels);
        for (gradient, totals) in directions.zip(totals.chunks_exact(self.channels)) {
            for (c, [weight, bias]) in totals.iter().enumerate() {
                gradient[c] += T::of(*weight);
                gradient[self.channels + c] += T::of(*bias);
            }
        }
    }

    pub(super) fn places(&self) -> Vec<Range<usize>> {
        vec![self.weight.clone(), self.bias.clone()]
    }
}
