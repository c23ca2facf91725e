//! Text: a file that the user names, as numbers of the characters in it, split into a beginning to train on and an end
//! that is held out.

use std::path::Path;
use std::str;

use anyhow::{Context, Result, ensure};
use xxhash_rust::xxh3::xxh3_64;

use crate::task::HeldOut;
use crate::{input, printable};

/// What is held out is a tenth of the text, but no more than so many characters, which tell enough.
const MOST_HELD_OUT: usize = 1 << 16;

/// The longest text. It takes about ten times its bytes of memory.
const MOST_BYTES: u64 = 1 << 30;

/// A text, split in two.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// What it is called in tables and pictures: the file's name.
    pub name: String,
    /// A checksum of the file.
    pub checksum: u64,
    /// The characters that occur anywhere in the file, in their order in Unicode.
    pub vocabulary: Vec<char>,
    /// The beginning, to train on: each character's number in the vocabulary.
    pub train: Vec<u32>,
    /// What follows the beginning, to test on: numbers of characters too.
    pub test: Vec<u32>,
    /// What that is for.
    pub held_out: HeldOut,
}

impl Text {
    /// Reads a file in UTF-8. Each part of it, a validation part included, must have at least `shortest` characters.
    pub fn load(path: &Path, shortest: usize) -> Result<Text> {
        let name = path.file_name().map(|name| printable::path(name.as_ref()));
        input::read(path, MOST_BYTES)
            .context("cannot be read")
            .and_then(|bytes| Text::new(name.unwrap_or_else(|| "text".to_owned()), &bytes, shortest))
            .with_context(|| printable::path(path))
    }

    fn new(name: String, bytes: &[u8], shortest: usize) -> Result<Text> {
        let text = str::from_utf8(bytes)
            .map_err(|error| anyhow::anyhow!("this is not UTF-8 text: see byte {}", error.valid_up_to()))?;
        let mut vocabulary: Vec<char> = text.chars().collect();
        let count = vocabulary.len();
        ensure!(
            count / 10 >= shortest,
            "a text of {count} characters is too short: a tenth of it must be at least {shortest}"
        );
        vocabulary.sort_unstable();
        vocabulary.dedup();
        ensure!(vocabulary.len() > 1, "the text consists of one character, {:?}, again and again", vocabulary[0]);

        let number = |c| vocabulary.binary_search(&c).unwrap_or_default() as u32;
        let mut train: Vec<u32> = text.chars().map(number).collect();
        let test = train.split_off(count - (count / 10).min(MOST_HELD_OUT));
        Ok(Text { name, checksum: xxh3_64(bytes), vocabulary, train, test, held_out: HeldOut::Test })
    }

    /// The same text without its test part: what there was to train on, its end held out.
    pub fn validation(&self) -> Text {
        let mut train = self.train.clone();
        let test = train.split_off(train.len() - self.test.len());
        Text {
            name: self.name.clone(),
            checksum: self.checksum,
            vocabulary: self.vocabulary.clone(),
            train,
            test,
            held_out: HeldOut::Validation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_follow_each_other_and_make_up_the_text() -> Result<()> {
        let written = "Größe, ".repeat(20);
        let text = Text::new("text".to_owned(), written.as_bytes(), 14)?;
        assert_eq!(text.vocabulary, [' ', ',', 'G', 'e', 'r', 'ß', 'ö']);
        let read = |parts: &[&[u32]]| -> String {
            parts.concat().iter().map(|&number| text.vocabulary[number as usize]).collect()
        };
        assert_eq!((text.train.len(), text.test.len()), (126, 14));
        assert_eq!(read(&[&text.train, &text.test]), written);

        let validation = text.validation();
        assert_eq!((validation.train.len(), validation.test.len()), (112, 14));
        assert_eq!(read(&[&validation.train, &validation.test, &text.test]), written);
        Ok(())
    }

    #[test]
    fn no_more_is_held_out_than_needed() -> Result<()> {
        let text = Text::new("text".to_owned(), &b"ab".repeat(500_000), 1)?;
        assert_eq!(text.test.len(), MOST_HELD_OUT);
        assert_eq!(text.train.len() + text.test.len(), 1_000_000);
        Ok(())
    }
}
