//! Labelled images: what every data set is read into, and how it is split.

use anyhow::{Result, ensure};
use xxhash_rust::xxh3::Xxh3Default;

use crate::task::HeldOut;

/// How many classes there are: the digits.
pub const CLASSES: usize = 10;

/// Grey images of one size, each with its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// All pixels, image by image and row by row.
    pub pixels: Vec<f32>,
    /// The class of each image, below [`CLASSES`].
    pub labels: Vec<u8>,
}

impl Images {
    /// The number of images.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// The number of pixels of one image.
    pub fn size(&self) -> usize {
        self.height * self.width
    }

    /// The images with these indices, in this order.
    pub fn select(&self, indices: &[usize]) -> Images {
        let size = self.size();
        Images {
            height: self.height,
            width: self.width,
            pixels: indices.iter().flat_map(|&i| &self.pixels[i * size..][..size]).copied().collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    fn hash_into(&self, hash: &mut Xxh3Default) {
        for length in [self.height, self.width, self.count()] {
            hash.update(&(length as u64).to_le_bytes());
        }
        for image in self.pixels.chunks(self.size()) {
            let bytes: Vec<u8> = image.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
            hash.update(&bytes);
        }
        hash.update(&self.labels);
    }

    /// Splits off every fifth image of each class. The two parts keep the order and the proportions of the classes,
    /// and depend on nothing but the data.
    pub fn split(&self) -> (Images, Images) {
        let mut seen = [0_usize; CLASSES];
        let (fifth, rest): (Vec<usize>, Vec<usize>) = (0..self.count()).partition(|&i| {
            let seen = &mut seen[usize::from(self.labels[i])];
            *seen += 1;
            seen.is_multiple_of(5)
        });
        (self.select(&rest), self.select(&fifth))
    }
}

/// A data set: images to train on, and images held out to test on.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// What it is called in tables and pictures.
    pub name: String,
    /// A checksum of all of it as it was before it was scaled or split again.
    pub checksum: u64,
    /// What the network learns from.
    pub train: Images,
    /// What it is judged by.
    pub test: Images,
    /// What that is for.
    pub held_out: HeldOut,
}

impl Data {
    /// Joins the two parts, and scales the pixels of both so that those of the training part have mean 0 and
    /// variance 1.
    pub fn new(name: impl Into<String>, mut train: Images, mut test: Images) -> Result<Data> {
        ensure!(
            train.count() > 0 && test.count() > 0,
            "there are {} images to train on and {} to test on; both need at least one",
            train.count(),
            test.count()
        );
        ensure!(
            (train.height, train.width) == (test.height, test.width),
            "the images to train on are {}x{} and those to test on {}x{}",
            train.height,
            train.width,
            test.height,
            test.width
        );
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            train.pixels.iter().map(|&p| f(f64::from(p))).sum::<f64>() / train.pixels.len() as f64
        };
        let mean = mean_of(&|p| p);
        let deviation = mean_of(&|p| (p - mean) * (p - mean)).sqrt();
        ensure!(deviation > 0.0, "all pixels of the images to train on are {mean}");
        let mut hash = Xxh3Default::new();
        for images in [&train, &test] {
            images.hash_into(&mut hash);
        }
        for pixel in train.pixels.iter_mut().chain(&mut test.pixels) {
            *pixel = ((f64::from(*pixel) - mean) / deviation) as f32;
        }
        Ok(Data { name: name.into(), checksum: hash.digest(), train, test, held_out: HeldOut::Test })
    }

    /// The same data with a validation part in the place of the test part: a fifth of what there is to train on.
    /// Settings are chosen on it, so that the test part stays unseen until they are.
    pub fn validation(&self) -> Result<Data> {
        let (train, test) = self.train.split();
        let data = Data::new(&self.name[..], train, test)?;
        Ok(Data { held_out: HeldOut::Validation, checksum: self.checksum, ..data })
    }
}
