//! [`ImageFolder`]: a directory of images with a folder for each class.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Dataset, TrainTest};
use crate::error::{Error, Result, counted};
use crate::files::unreadable;
use crate::memory;

/// Reads a directory of PNG and JPEG images with a folder for each class.
///
/// ```text
/// flowers/train/daisy/1.png        flowers/daisy/1.png
/// flowers/train/rose/1.jpg    or   flowers/rose/1.jpg
/// flowers/test/daisy/2.png
/// ```
///
/// Classes are the names of the folders in sorted order. If there is a folder `train`, the test samples are in `test` or `val`, if one
/// of them exists. Without them, the test samples are a random share of the samples if [`ImageFolder::with_test_share`] is set, or else
/// the training samples. A class may contain further folders. Other files and names that start with a dot are ignored.
///
/// Pixels are in [0, 1], `f32`, of 8 bits per channel; transparency is dropped. If an image has colour, all get three channels: red,
/// green, blue. All images need one size, or are resized to the size that is set.
///
/// Samples are in a fixed order, in which the classes alternate: the first image of each class, the second of each class, and so on. So the
/// first `n` samples contain all classes.
///
/// # Shapes
/// Inputs `(n, channels, height, width)`, labels `(n,)`.
///
/// ```
/// use image::GrayImage;
/// use loss_landscape::data::ImageFolder;
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// for class in ["black", "white"] {
///     std::fs::create_dir(dir.join(class)).unwrap();
/// }
/// let white = GrayImage::from_pixel(3, 2, [255].into());
/// white.save(dir.join("white/1.png")).unwrap();
/// GrayImage::new(3, 2).save(dir.join("black/1.png")).unwrap();
///
/// let samples = ImageFolder::default().read(dir, &Device::Cpu)?;
/// assert_eq!(samples.train.inputs().dims(), [2, 1, 2, 3]);
/// assert_eq!(samples.train.labels()?, [0, 1]);
/// assert_eq!(samples.class_names.unwrap(), ["black", "white"]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ImageFolder {
    /// Height and width to which images are resized.
    pub size: Option<[usize; 2]>,
    /// Whether images get one channel of grey.
    pub grey: bool,
    /// Share of the samples that become test samples.
    pub test_share: Option<f64>,
    /// Seed of the random share of test samples.
    pub seed: u64,
}

impl ImageFolder {
    /// Sets the height and width to which images are resized, by linear interpolation; smaller images average pixels.
    #[must_use]
    pub fn with_size(mut self, height: usize, width: usize) -> Self {
        self.size = Some([height, width]);
        self
    }

    /// Sets whether images get one channel of grey: luma of Rec. 709.
    #[must_use]
    pub fn with_grey(mut self, grey: bool) -> Self {
        self.grey = grey;
        self
    }

    /// Sets the share of the samples that become test samples; see [`Dataset::split`].
    #[must_use]
    pub fn with_test_share(mut self, share: f64) -> Self {
        self.test_share = Some(share);
        self
    }

    /// Sets the seed of the random share of test samples.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Reads the directory.
    ///
    /// # Errors
    /// A directory without folders of images; a folder of a class without images; an image that cannot be decoded, of another size or of
    /// another format; a test folder of an unknown class. The message names the path.
    pub fn read(&self, dir: impl AsRef<Path>, device: &Device) -> Result<TrainTest> {
        let dir = dir.as_ref();
        let is_possible = |side: usize| side > 0 && u32::try_from(side).is_ok();
        if let Some([height, width]) = self.size
            && !(is_possible(height) && is_possible(width))
        {
            return Err(Error::invalid(format!(
                "images cannot have the size {height} × {width}"
            )));
        }
        let train = dir.join("train");
        let (train, test) = match train.is_dir() {
            false => (dir.to_path_buf(), None),
            true => {
                let test = ["test", "val"].map(|name| dir.join(name));
                (train, test.into_iter().find(|test| test.is_dir()))
            }
        };
        let classes = Classes::find(&train)?;
        if let Some((folder, _)) = classes.images.iter().find(|(_, images)| images.is_empty()) {
            let folder = train.join(folder);
            return Err(Error::file(
                &folder,
                "contains no PNG or JPEG image",
                ADVICE,
            ));
        }
        let names: Vec<String> = classes.images.keys().cloned().collect();
        let test = test.map(|dir| Classes::find(&dir)).transpose()?;
        let mut images = classes.alternating(&names)?;
        let split = images.len();
        if let Some(test) = &test {
            images.extend(test.alternating(&names)?);
        }
        let (pixels, labels) = self.decode(&images, device)?;
        let all = Dataset::classification(&pixels, &labels)?;
        let (train, test) = match test {
            None => (all, None),
            Some(_) => {
                let test = all.narrow(split, all.len() - split)?;
                (all.narrow(0, split)?, Some(test))
            }
        };
        let samples =
            TrainTest::new(train, test, self.test_share, self.seed).map_err(|e| e.in_file(dir))?;
        Ok(TrainTest {
            class_names: Some(names),
            ..samples
        })
    }

    /// Returns an error if memory does not hold the images. Without a size to which they are resized, all have that of the first.
    fn check_memory(&self, images: &[Image]) -> Result<()> {
        let size = self.size.or_else(|| {
            let first = ImageReader::open(&images[0].path).ok()?;
            let mut first = first.with_guessed_format().ok()?;
            first.no_limits(); // only the header is read
            let (width, height) = first.into_dimensions().ok()?;
            Some([height as usize, width as usize])
        });
        let Some([height, width]) = size else {
            return Ok(()); // decoding finds the problem
        };
        let count = images.len() as f64;
        let images = counted(images.len(), "image");
        let what = format!("{images} of {height} × {width} pixels");
        let bytes = BYTES_PER_PIXEL * count * height as f64 * width as f64;
        memory::check_or(bytes, &what, |_| {
            "resize them with a smaller --size, or use fewer images".into()
        })
    }

    /// The pixels and labels of images.
    fn decode(&self, images: &[Image], device: &Device) -> Result<(Tensor, Tensor)> {
        self.check_memory(images)?;
        let decoded = images.par_iter().map(|image| self.open(&image.path));
        let decoded = decoded.collect::<Result<Vec<_>>>()?;
        let size = |image: &DynamicImage| (image.height(), image.width());
        let (height, width) = size(&decoded[0]);
        let others = images.iter().zip(&decoded);
        if let Some((image, other)) = others.into_iter().find(|(_, i)| size(i) != (height, width)) {
            let problem = format!(
                "has {} × {} pixels, and {} has {height} × {width}",
                other.height(),
                other.width(),
                images[0].path.display()
            );
            let advice = "Set a size to which images are resized, on the command line with --size";
            return Err(Error::file(&image.path, problem, advice));
        }
        let is_grey = self.grey || decoded.iter().all(|image| !image.color().has_color());
        let (height, width) = (height as usize, width as usize);
        let channels = if is_grey { 1 } else { 3 };
        let mut pixels = Vec::with_capacity(images.len() * channels * height * width);
        for image in decoded {
            let bytes = match is_grey {
                true => image.into_luma8().into_raw(),
                false => image.into_rgb8().into_raw(),
            };
            for channel in 0..channels {
                let values = bytes.iter().skip(channel).step_by(channels);
                pixels.extend(values.map(|&byte| f32::from(byte) / 255.0));
            }
        }
        let labels: Vec<u32> = images.iter().map(|image| image.label).collect();
        let dims = (images.len(), channels, height, width);
        Ok((
            Tensor::from_vec(pixels, dims, device)?,
            Tensor::from_vec(labels, images.len(), device)?,
        ))
    }

    fn open(&self, path: &Path) -> Result<DynamicImage> {
        let opened = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
        let opened = opened.map_err(|e| unreadable(path, e, ADVICE))?;
        let image = opened.decode().map_err(|e| {
            let problem = format!("cannot be decoded ({e})");
            Error::file(path, problem, "Replace or remove it")
        })?;
        Ok(match self.size {
            Some([height, width])
                if [image.height(), image.width()] != [height as u32, width as u32] =>
            {
                image.resize_exact(width as u32, height as u32, FilterType::Triangle)
            }
            _ => image,
        })
    }
}

/// Memory for a pixel: three channels as bytes and as `f32`.
const BYTES_PER_PIXEL: f64 = 15.0;

const ADVICE: &str = "Give a directory with a folder of PNG or JPEG images for each class";

/// An image file and its class.
struct Image {
    path: PathBuf,
    label: u32,
}

/// The image files of each class in sorted order.
struct Classes {
    dir: PathBuf,
    images: BTreeMap<String, Vec<PathBuf>>,
}

impl Classes {
    fn find(dir: &Path) -> Result<Self> {
        let mut images = BTreeMap::new();
        for path in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
            let name = path.file_name().and_then(OsStr::to_str).ok_or_else(|| {
                Error::file(
                    &path,
                    "is a class whose name is not UTF-8",
                    "Rename the folder",
                )
            })?;
            let mut found = Vec::new();
            collect(&path, &mut Vec::new(), &mut found)?;
            images.insert(name.to_owned(), found);
        }
        if images.is_empty() {
            return Err(Error::file(dir, "contains no folders of images", ADVICE));
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            images,
        })
    }

    /// The first image of each class, the second of each class, and so on.
    fn alternating(&self, names: &[String]) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for (name, paths) in &self.images {
            let Ok(label) = names.binary_search(name) else {
                let path = self.dir.join(name);
                let problem = format!("is a class without training images; classes are {names:?}");
                return Err(Error::file(&path, problem, ADVICE));
            };
            let image = |(i, path): (usize, &PathBuf)| {
                let path = path.clone();
                let label = label as u32;
                (i, Image { path, label })
            };
            images.extend(paths.iter().enumerate().map(image));
        }
        if images.is_empty() {
            return Err(Error::file(
                &self.dir,
                "contains no PNG or JPEG image",
                ADVICE,
            ));
        }
        // A stable sort keeps the order of the classes.
        images.sort_by_key(|(i, _)| *i);
        Ok(images.into_iter().map(|(_, image)| image).collect())
    }
}

/// Files and directories in sorted order, without those whose name starts with a dot.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read: std::io::Result<Vec<_>> = fs::read_dir(dir).and_then(Iterator::collect);
    let entries = read.map_err(|e| unreadable(dir, e, ADVICE))?;
    let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    let entries = entries.iter().filter(|entry| !is_hidden(entry));
    let mut paths: Vec<PathBuf> = entries.map(fs::DirEntry::path).collect();
    paths.sort_unstable();
    Ok(paths)
}

/// Adds the images in `dir` and its folders. `parents` are the folders that contain it, with links followed.
fn collect(dir: &Path, parents: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let real = fs::canonicalize(dir).map_err(|e| unreadable(dir, e, ADVICE))?;
    if parents.contains(&real) {
        let problem = "contains itself through a link";
        return Err(Error::file(dir, problem, "Remove the link"));
    }
    parents.push(real);
    for path in entries(dir)? {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_lowercase().as_str() {
            _ if path.is_dir() => collect(&path, parents, found)?,
            "png" | "jpg" | "jpeg" => found.push(path),
            format @ ("gif" | "bmp" | "webp" | "tif" | "tiff" | "ppm" | "pgm") => {
                let problem = format!("is an image of the format {format}, which cannot be read");
                return Err(Error::file(&path, problem, "Convert it to PNG or JPEG"));
            }
            _ => {}
        }
    }
    parents.pop();
    Ok(())
}
