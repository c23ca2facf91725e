//! `koala train --data`: IDX files as they should be, and as they should not.

use std::fs;
use std::io::Write;
use std::path::Path;

use koala_cli::task::idx;
use koala_cli::task::images::{Data, Images};

use crate::{folder, koala, outcome};

/// An IDX file of bytes.
pub fn idx_file(shape: &[u32], bytes: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut file = vec![0, 0, 8, shape.len() as u8];
    file.extend(shape.iter().flat_map(|length| length.to_be_bytes()));
    file.extend(bytes);
    file
}

/// Four files by MNIST's names: `count` images with `side` rows and columns to train on, and half as many to test on.
/// Every class is a bright column at a place of its own, with some noise.
pub fn write_stripes(folder: &Path, count: u32, side: u32) {
    for (part, count) in [("train", count), ("t10k", count / 2)] {
        let pixels = (0..count * side * side).map(|i| {
            let (image, column) = (i / (side * side), i % side);
            let noise = (i.wrapping_mul(2_654_435_761) >> 26) as u8;
            if column == image % 10 * side / 10 { 190 + noise } else { noise }
        });
        let images = idx_file(&[count, side, side], pixels);
        let labels = idx_file(&[count], (0..count).map(|image| (image % 10) as u8));
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).expect("the folder is ours");
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).expect("the folder is ours");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn load(folder: &Path) -> Data {
    idx::load(folder).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn all_names_and_packings_read_the_same() -> std::io::Result<()> {
    let folder = folder("idx-names");
    write_stripes(&folder, 40, 12);
    let data = load(&folder);
    assert_eq!((data.train.count(), data.test.count()), (40, 20));
    assert_eq!((data.train.height, data.train.width), (12, 12));
    assert_eq!(data.test.labels[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    // It knows any change, of a pixel or a label, in either part.
    let changed = |change: &dyn Fn(&mut Images, &mut Images)| {
        let (mut train, mut test) = (data.train.clone(), data.test.clone());
        change(&mut train, &mut test);
        Data::new("changed", train, test).expect("it is good").checksum
    };
    let checksums = [
        changed(&|_, _| ()),
        changed(&|train, _| train.pixels[700] += 0.01),
        changed(&|_, test| test.pixels[0] += 0.01),
        changed(&|train, _| train.labels[39] = 3),
        changed(&|_, test| test.labels[0] = 3),
    ];
    assert_eq!(checksums.iter().collect::<std::collections::BTreeSet<_>>().len(), checksums.len());
    // Scaled, so what is brightest is above the mean.
    assert!(data.train.pixels[0] > 1.0 && data.train.pixels[1] < 0.0);

    for part in ["train-images", "t10k-images", "train-labels", "t10k-labels"] {
        let dimensions = if part.ends_with("images") { 3 } else { 1 };
        let name = folder.join(format!("{part}-idx{dimensions}-ubyte"));
        let bytes = fs::read(&name)?;
        fs::remove_file(&name)?;
        fs::write(folder.join(format!("{part}.idx{dimensions}-ubyte.gz")), gzip(&bytes))?;
        assert_eq!(load(&folder), data, "{part} packed, with a dot");
        fs::remove_file(folder.join(format!("{part}.idx{dimensions}-ubyte.gz")))?;
        // Unpacked in transit, its name unchanged.
        fs::write(name.with_extension("gz"), &bytes)?;
        fs::rename(name.with_extension("gz"), folder.join(format!("{part}-idx{dimensions}-ubyte.gz")))?;
        assert_eq!(load(&folder), data, "{part} plain, by the name of a packed one");
    }
    Ok(())
}

#[test]
fn faults_are_named_with_the_file() -> std::io::Result<()> {
    let folder = folder("idx-faults");
    write_stripes(&folder, 20, 5);
    let images = "train-images-idx3-ubyte";
    let labels = "t10k-labels-idx1-ubyte";
    let good_images = fs::read(folder.join(images))?;
    let good_labels = fs::read(folder.join(labels))?;
    let changed = |at: usize, byte: u8| {
        let mut bytes = good_images.clone();
        bytes[at] = byte;
        bytes
    };
    let zeros = |shape: &[u32]| idx_file(shape, (0..shape.iter().product()).map(|_| 0));
    for (name, bytes, said) in [
        (images, good_images[..300].to_vec(), "truncated: its dimensions [20, 5, 5] need 500 bytes, and only 284"),
        (images, good_images[..7].to_vec(), "ends within its header"),
        (images, Vec::new(), "ends within its header"),
        (images, [&good_images[..], &[0]].concat(), "goes on after the 500 bytes"),
        (images, changed(2, 13), "begins with [00, 00, 0d, 03]"),
        (images, good_labels.clone(), "begins with [00, 00, 08, 01]"),
        (images, idx_file(&[u32::MAX; 3], []), "dimensions [4294967295, 4294967295, 4294967295] are too large"),
        (images, idx_file(&[1 << 20, 1 << 20, 1], []), "and only 0 are there"),
        (images, zeros(&[20, 5, 5]), "all pixels of the images to train on are 0"),
        (images, zeros(&[20, 5, 6]), "the images to train on are 5x6 and those to test on 5x5"),
        (images, zeros(&[21, 5, 5]), "holds 21 images, but"),
        (images, gzip(&good_images)[..40].to_vec(), ""),
        (labels, idx_file(&[9], [0; 9]), "t10k-labels-idx1-ubyte holds 9 labels"),
        (labels, idx_file(&[10], [0, 1, 2, 3, 10, 5, 6, 7, 8, 9]), "label 4 is 10, not a digit"),
    ] {
        fs::write(folder.join(images), &good_images)?;
        fs::write(folder.join(labels), &good_labels)?;
        fs::write(folder.join(name), bytes)?;
        let error = idx::load(&folder).map(|_| ()).expect_err(said);
        let error = format!("{error:#}");
        assert!(error.contains(said), "{said:?} expected, but it said {error:?}");
        let file = folder.join(if said.contains("images to train on") { "" } else { name });
        assert!(error.contains(file.to_str().expect("a plain name").trim_end_matches('/')), "{error}");
    }
    Ok(())
}

#[test]
fn the_command_says_which_file_is_missing() -> std::io::Result<()> {
    let folder = folder("idx-missing");
    let train = || outcome(koala(&format!("train --data {}", folder.display())));
    let missing = train();
    assert_eq!(missing.status, Some(1));
    assert!(missing.stderr.contains("there is no train-images-idx3-ubyte"), "{}", missing.stderr);

    write_stripes(&folder, 20, 8);
    fs::remove_file(folder.join("t10k-labels-idx1-ubyte"))?;
    let missing = train();
    assert_eq!(missing.status, Some(1));
    assert!(missing.stderr.contains("there is no t10k-labels-idx1-ubyte"), "{}", missing.stderr);

    fs::remove_dir_all(&folder)?;
    let missing = train();
    assert_eq!(missing.status, Some(1));
    assert!(missing.stderr.contains("there is no such folder"), "{}", missing.stderr);
    Ok(())
}
