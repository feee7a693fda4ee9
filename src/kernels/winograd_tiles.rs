//! The linear maps of F(2 × 2, 3 × 3), for images whose channels lie side by side.
//!
//! In one dimension, two outputs y of three weights g and four inputs d are y = Aᵀ[(G g) ⊙ (Bᵀ d)]. In two, each map
//! is applied to rows and to columns. A [`Window`] is a part of an image; the tiles of all its channels are transformed
//! together.

use super::Scalar;
use super::outer_products::LANES;
use super::registers::{Array, Register, Registers, registers};
use crate::kernels::simd::vectorised;

/// Number of products per tile.
pub(super) const PRODUCTS: usize = 16;

/// A rectangle of an image of shape (channels, height, width), which may reach beyond the image.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) image: [usize; 3],
    /// Rows and columns of zeros before the image.
    pub(super) before: usize,
    /// Number of rows before the window, including these zeros.
    pub(super) start: usize,
    pub(super) size: [usize; 2],
}

impl Window {
    fn blocks(self) -> usize {
        padded(self.image[0]) / LANES
    }

    /// Number of pixels of a channel's image.
    fn pixels(self) -> usize {
        self.image[1] * self.image[2]
    }

    /// The first pixel of the image inside the window, and the index in the window of each pixel from it to the last.
    fn indices(self) -> (usize, Vec<usize>) {
        let [_, height, width] = self.image;
        let first = self.start.saturating_sub(self.before);
        let end = (self.start + self.size[0]).saturating_sub(self.before);
        let index = |row| (row + self.before - self.start) * self.size[1] + self.before;
        let indices = (first..end.min(height)).flat_map(|row| index(row)..index(row) + width);
        (first * width, indices.collect())
    }
}

/// Channels, padded with zeros to whole [`LANES`].
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(LANES)
}

vectorised! {
    /// Writes a window of an image with its channels side by side, and zeros elsewhere.
    pub(super) fn load<T: Scalar>(image: &[T], window: Window, target: &mut [T]) {
        target.fill(T::ZERO);
        let (channels, pitch) = (window.blocks() * LANES, window.pixels());
        let (first, indices) = window.indices();
        for (group, images) in image.chunks(4 * pitch).enumerate() {
            let mut start = 0;
            if images.len() == 4 * pitch {
                let (indices, _) = indices.as_chunks::<4>();
                for to in indices {
                    let mut rows = [[T::ZERO; 4]; 4];
                    for i in 0..4 {
                        rows[i].copy_from_slice(&images[i * pitch + first + start..][..4]);
                    }
                    for (to, pixel) in to.iter().zip(T::transposed(rows)) {
                        target[to * channels + 4 * group..][..4].copy_from_slice(&pixel);
                    }
                    start += 4;
                }
            }
            for (lane, image) in images.chunks_exact(pitch).enumerate() {
                for (to, x) in indices[start..].iter().zip(&image[first + start..]) {
                    target[to * channels + 4 * group + lane] = *x;
                }
            }
        }
    }

    /// Writes the part of the window that lies in the image, with `bias` added per channel.
    pub(super) fn store<T: Scalar>(source: &[T], window: Window, bias: &[T], image: &mut [T]) {
        let (channels, pitch) = (window.blocks() * LANES, window.pixels());
        let (first, indices) = window.indices();
        for (group, images) in image.chunks_mut(4 * pitch).enumerate() {
            let mut biases = [T::ZERO; 4];
            for (b, bias) in biases.iter_mut().zip(bias.iter().skip(4 * group)) {
                *b = *bias;
            }
            let mut start = 0;
            if images.len() == 4 * pitch {
                let (indices, _) = indices.as_chunks::<4>();
                for from in indices {
                    let mut pixels = [[T::ZERO; 4]; 4];
                    for i in 0..4 {
                        pixels[i].copy_from_slice(&source[from[i] * channels + 4 * group..][..4]);
                    }
                    let rows = T::transposed(pixels);
                    for i in 0..4 {
                        let target = &mut images[i * pitch + first + start..][..4];
                        for j in 0..4 {
                            target[j] = rows[i][j] + biases[i];
                        }
                    }
                    start += 4;
                }
            }
            for (lane, image) in images.chunks_exact_mut(pitch).enumerate() {
                for (from, x) in indices[start..].iter().zip(&mut image[first + start..]) {
                    *x = source[from * channels + 4 * group + lane] + biases[lane];
                }
            }
        }
    }

    /// Writes Bᵀ d B of each tile, with d of 4 × 4 pixels, 2 apart, from a window's pixels. The entries of all tiles are `pitch` apart.
    pub(super) fn transform_inputs<T: Scalar>(
        image: &[T],
        window: Window,
        tiles: &mut [T],
        pitch: usize,
    ) {
        match registers() {
            Registers::Wide => to_tiles::<T, T::Wide, Inputs, 4>(image, window, tiles, pitch),
            Registers::Fused => to_tiles::<T, T::Fused, Inputs, 4>(image, window, tiles, pitch),
            Registers::Plain => to_tiles::<T, Array<T, false>, Inputs, 4>(image, window, tiles, pitch),
        }
    }

    /// Writes A dy Aᵀ of each tile, with dy of 2 × 2 pixels.
    pub(super) fn transform_output_gradients<T: Scalar>(
        image: &[T],
        window: Window,
        tiles: &mut [T],
        pitch: usize,
    ) {
        match registers() {
            Registers::Wide => to_tiles::<T, T::Wide, OutputGradients, 2>(image, window, tiles, pitch),
            Registers::Fused => to_tiles::<T, T::Fused, OutputGradients, 2>(image, window, tiles, pitch),
            Registers::Plain => to_tiles::<T, Array<T, false>, OutputGradients, 2>(image, window, tiles, pitch),
        }
    }

    /// Writes Aᵀ m A of each tile, 2 × 2 pixels of a window.
    pub(super) fn transform_outputs<T: Scalar>(
        tiles: &[T],
        pitch: usize,
        window: Window,
        image: &mut [T],
    ) {
        match registers() {
            Registers::Wide => to_image::<T, T::Wide>(tiles, pitch, window, image),
            Registers::Fused => to_image::<T, T::Fused>(tiles, pitch, window, image),
            Registers::Plain => to_image::<T, Array<T, false>>(tiles, pitch, window, image),
        }
    }
}

/// A linear map of N values to P, applied to rows and then to columns of a tile.
trait TileMap<const N: usize, const P: usize> {
    fn apply<T: Scalar, V: Register<T>>(values: [V; N]) -> [V; P];
}

/// Bᵀ
struct Inputs;
/// Aᵀ
struct Outputs;
/// A
struct OutputGradients;

impl TileMap<4, 4> for Inputs {
    #[inline(always)]
    fn apply<T: Scalar, V: Register<T>>([a, b, c, d]: [V; 4]) -> [V; 4] {
        [subtract(a, c), add(b, c), subtract(c, b), subtract(b, d)]
    }
}

impl TileMap<4, 2> for Outputs {
    #[inline(always)]
    fn apply<T: Scalar, V: Register<T>>([a, b, c, d]: [V; 4]) -> [V; 2] {
        [add(add(a, b), c), subtract(subtract(b, c), d)]
    }
}

impl TileMap<2, 4> for OutputGradients {
    #[inline(always)]
    fn apply<T: Scalar, V: Register<T>>([a, b]: [V; 2]) -> [V; 4] {
        let zero = V::splat(T::ZERO);
        [a, add(a, b), subtract(a, b), subtract(zero, b)]
    }
}

#[inline(always)]
fn add<T: Scalar, V: Register<T>>(a: V, b: V) -> V {
    a.mul_add(V::splat(T::ONE), b)
}

#[inline(always)]
fn subtract<T: Scalar, V: Register<T>>(a: V, b: V) -> V {
    b.mul_add(V::splat(-T::ONE), a)
}

/// Maps tiles of N × N pixels, 2 apart.
#[inline(always)]
fn to_tiles<T: Scalar, V: Register<T>, M: TileMap<N, 4>, const N: usize>(
    image: &[T],
    window: Window,
    tiles: &mut [T],
    pitch: usize,
) {
    let (image, tiles) = (
        image.as_chunks::<LANES>().0,
        tiles.as_chunks_mut::<LANES>().0,
    );
    let (blocks, columns, pitch) = (window.blocks(), window.size[1], pitch / LANES);
    let [down, right] = window.size.map(|size| (size + 2 - N) / 2);
    for tile in 0..down * right {
        let corner = tile / right * 2 * columns + tile % right * 2;
        for block in 0..blocks {
            for part in 0..LANES * size_of::<T>() / size_of::<V>() {
                let mut rows = [[V::splat(T::ZERO); 4]; N];
                for i in 0..N {
                    let mut row = [V::splat(T::ZERO); N];
                    for j in 0..N {
                        let pixel = &image[(corner + i * columns + j) * blocks + block];
                        row[j] = V::load(&V::lanes(pixel)[part]);
                    }
                    rows[i] = M::apply(row);
                }
                for j in 0..4 {
                    let mut column = [V::splat(T::ZERO); N];
                    for i in 0..N {
                        column[i] = rows[i][j];
                    }
                    let column = M::apply(column);
                    for i in 0..4 {
                        let values = &mut tiles[(4 * i + j) * pitch + tile * blocks + block];
                        V::lanes_mut(values)[part] = column[i].store();
                    }
                }
            }
        }
    }
}

/// Maps tiles to 2 × 2 pixels.
#[inline(always)]
fn to_image<T: Scalar, V: Register<T>>(tiles: &[T], pitch: usize, window: Window, image: &mut [T]) {
    let (image, tiles) = (
        image.as_chunks_mut::<LANES>().0,
        tiles.as_chunks::<LANES>().0,
    );
    let (blocks, columns, pitch) = (window.blocks(), window.size[1], pitch / LANES);
    let [down, right] = window.size.map(|size| size / 2);
    for tile in 0..down * right {
        let corner = tile / right * 2 * columns + tile % right * 2;
        for block in 0..blocks {
            for part in 0..LANES * size_of::<T>() / size_of::<V>() {
                let mut rows = [[V::splat(T::ZERO); 2]; 4];
                for i in 0..4 {
                    let mut row = [V::splat(T::ZERO); 4];
                    for j in 0..4 {
                        let values = &tiles[(4 * i + j) * pitch + tile * blocks + block];
                        row[j] = V::load(&V::lanes(values)[part]);
                    }
                    rows[i] = Outputs::apply(row);
                }
                for j in 0..2 {
                    let column = [rows[0][j], rows[1][j], rows[2][j], rows[3][j]];
                    let column = Outputs::apply(column);
                    for i in 0..2 {
                        let pixel = &mut image[(corner + i * columns + j) * blocks + block];
                        V::lanes_mut(pixel)[part] = column[i].store();
                    }
                }
            }
        }
    }
}

/// G g Gᵀ
pub(super) fn transform_weights<T: Scalar>(kernel: &[T; 9]) -> [T; PRODUCTS] {
    let half = T::from_f64(0.5);
    let map = |[a, b, c]: [T; 3]| {
        let sum = (a + c) * half;
        let middle = b * half;
        [a, sum + middle, sum - middle, c]
    };
    let rows: [[T; 4]; 3] =
        std::array::from_fn(|i| map([kernel[3 * i], kernel[3 * i + 1], kernel[3 * i + 2]]));
    let columns: [[T; 4]; 4] = std::array::from_fn(|p| map(rows.map(|row| row[p])));
    std::array::from_fn(|i| columns[i % 4][i / 4])
}

vectorised! {
    /// Adds Gᵀ s G, for matrices s whose entries are `pitch` apart, to kernels of 3 × 3.
    pub(super) fn add_weight_gradients<T: Scalar>(sums: &[T], pitch: usize, kernels: &mut [T]) {
        let (sums, pitch) = (sums.as_chunks::<LANES>().0, pitch / LANES);
        for (block, kernels) in kernels.chunks_mut(9 * LANES).enumerate() {
            let mut rows = [[[T::ZERO; LANES]; 3]; 4];
            for i in 0..4 {
                let row = &sums[(4 * i) * pitch + block..];
                rows[i] = weight_gradients([row[0], row[pitch], row[2 * pitch], row[3 * pitch]]);
            }
            let mut columns = [[[T::ZERO; LANES]; 3]; 3];
            for j in 0..3 {
                columns[j] = weight_gradients([rows[0][j], rows[1][j], rows[2][j], rows[3][j]]);
            }
            for (lane, kernel) in kernels.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                for i in 0..9 {
                    kernel[i] += columns[i % 3][i / 3][lane];
                }
            }
        }
    }
}

/// Gᵀ s
#[inline(always)]
fn weight_gradients<T: Scalar>(s: [[T; LANES]; 4]) -> [[T; LANES]; 3] {
    let (half, mut g) = (T::from_f64(0.5), [[T::ZERO; LANES]; 3]);
    for lane in 0..LANES {
        let sum = (s[1][lane] + s[2][lane]) * half;
        g[0][lane] = s[0][lane] + sum;
        g[1][lane] = (s[1][lane] - s[2][lane]) * half;
        g[2][lane] = s[3][lane] + sum;
    }
    g
}
