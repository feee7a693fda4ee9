//! Arithmetic on slices, the basis of layers, losses and candle operations. Nothing here depends on a layer or a
//! model.
//!
//! | file | contents |
//! | --- | --- |
//! | `scalar` | `f32` and `f64`, with elementary functions that vectorise |
//! | `simd`, `registers` | code for AVX-512, AVX2 and other processors, chosen at run time |
//! | `matrix`, `sparse` | matrix products; those of matrices without their zeros |
//! | `symmetric_eigen` | eigenpairs of a small symmetric matrix |
//! | `row_products` | products of matrices whose rows are separate vectors |
//! | `elementwise`, `transpose`, `channels` | sums of rows and of transposed matrices; sums and combinations channel by channel |
//! | `erf` | the error function of the values of a slice |
//! | `attention` | softmax of rows of scores, and its derivatives |
//! | `convolution` | convolution, by one of three methods |
//! | `image_grid`, `image_planes`, `correlation` | its layout of images, and sums of shifted planes |
//! | `image_patches` | convolution as products of matrices of patches |
//! | `winograd`, `winograd_tiles`, `outer_products` | kernels of 3 × 3 with fewer multiplications |
//! | `tiles` | samples in tiles, on all threads, with sums in a fixed order |

pub(crate) mod attention;
pub(crate) mod channels;
pub(crate) mod convolution;
mod correlation;
pub(crate) mod elementwise;
pub(crate) mod erf;
pub(crate) mod image_grid;
mod image_patches;
mod image_planes;
pub(crate) mod matrix;
mod outer_products;
mod registers;
pub(crate) mod row_products;
mod scalar;
pub(crate) mod simd;
pub(crate) mod sparse;
mod symmetric_eigen;
pub(crate) mod tiles;
pub(crate) mod transpose;
mod winograd;
mod winograd_tiles;

pub(crate) use scalar::Scalar;
pub(crate) use symmetric_eigen::{symmetric_eigen, symmetric_eigenvalues};
