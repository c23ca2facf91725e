//! Reads MNIST, or data in its format: four IDX files in one folder, plain or gzipped, in either usual naming.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

use crate::printable;
use crate::task::images::{CLASSES, Data, Images};

/// Reads the four files of `folder`.
pub fn load(folder: &Path) -> Result<Data> {
    ensure!(folder.is_dir(), "{}: there is no such folder", printable::path(folder));
    let name = folder.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name).map(|name| printable::path(name.as_ref()));
    let train = load_part(folder, "train")?;
    let test = load_part(folder, "t10k")?;
    Data::new(name.as_deref().unwrap_or("IDX files"), train, test).with_context(|| printable::path(folder))
}

fn load_part(folder: &Path, part: &str) -> Result<Images> {
    let images_path = find(folder, &format!("{part}-images"), 3)?;
    let labels_path = find(folder, &format!("{part}-labels"), 1)?;
    let ([count, height, width], pixels) = read(&images_path)?;
    let ([label_count], labels) = read(&labels_path)?;
    ensure!(
        count == label_count,
        "{} holds {count} images, but {} holds {label_count} labels",
        printable::path(&images_path),
        printable::path(&labels_path)
    );
    if let Some(i) = labels.iter().position(|&label| usize::from(label) >= CLASSES) {
        bail!("{}: label {i} is {}, not a digit", printable::path(&labels_path), labels[i]);
    }
    let pixels = pixels.into_iter().map(|p| f32::from(p) / 255.0).collect();
    Ok(Images { height, width, pixels, labels })
}

/// The first that exists of a file's names.
fn find(folder: &Path, stem: &str, dimensions: u8) -> Result<PathBuf> {
    let names = names(stem, dimensions);
    let [first, _, second, _] = &names;
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{}: there is no {first}, {second}, or either with .gz", printable::path(folder)))
}

/// The names by which a file is distributed.
fn names(stem: &str, dimensions: u8) -> [String; 4] {
    [("-", ""), ("-", ".gz"), (".", ""), (".", ".gz")]
        .map(|(mark, ending)| format!("{stem}{mark}idx{dimensions}-ubyte{ending}"))
}

/// Wherever in `folder` a file of the data may be, by any of its names.
pub fn places(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let files = [("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1)];
    files.into_iter().flat_map(|(stem, dimensions)| names(stem, dimensions)).map(|name| folder.join(name))
}

/// Reads an IDX file of unsigned bytes with `N` dimensions.
fn read<const N: usize>(path: &Path) -> Result<([usize; N], Vec<u8>)> {
    read_inner(path).with_context(|| printable::path(path))
}

fn read_inner<const N: usize>(path: &Path) -> Result<([usize; N], Vec<u8>)> {
    let mut file = BufReader::new(File::open(path)?);
    // By its content, not its name: browsers unpack some downloads and keep the ending.
    if std::io::BufRead::fill_buf(&mut file)?.starts_with(&[0x1f, 0x8b]) {
        parse(MultiGzDecoder::new(file))
    } else {
        parse(file)
    }
}

fn parse<const N: usize>(mut file: impl Read) -> Result<([usize; N], Vec<u8>)> {
    let mut number = || -> Result<[u8; 4]> {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => anyhow::anyhow!("the file ends within its header"),
            _ => error.into(),
        })?;
        Ok(bytes)
    };
    let magic = number()?;
    let expected = [0, 0, 8, N as u8];
    ensure!(
        magic == expected,
        "it begins with {magic:02x?}, but an IDX file of bytes with {N} dimension(s) begins with {expected:02x?}"
    );
    let mut shape = [0; N];
    for length in &mut shape {
        *length = u32::from_be_bytes(number()?) as usize;
    }
    let length = shape
        .iter()
        .try_fold(1_usize, |product, &length| product.checked_mul(length))
        .with_context(|| format!("its dimensions {shape:?} are too large"))?;

    // The header is not trusted with an allocation: the buffer grows by what is there, up to one byte too many.
    let mut bytes = Vec::new();
    file.take((length as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() >= length,
        "it is truncated: its dimensions {shape:?} need {length} bytes, and only {} are there",
        bytes.len()
    );
    ensure!(bytes.len() == length, "it goes on after the {length} bytes that its dimensions {shape:?} need");
    Ok((shape, bytes))
}
