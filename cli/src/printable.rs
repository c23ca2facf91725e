//! Texts from outside, such as the names of files: what would break a line, a terminal, a picture or a page is escaped.

use std::fmt::Write;
use std::path::Path;

/// A text in one line.
pub fn text(text: &str) -> String {
    escaped(text, false)
}

/// A text whose lines and columns stay.
pub fn lines(text: &str) -> String {
    escaped(text, true)
}

/// A path in one line. Bytes that are no text are shown as numbers, so that different paths look different.
pub fn path(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        shown += &text(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a text does not fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

fn escaped(text: &str, keeps_lines: bool) -> String {
    // Two characters are none of XML's, without being control characters.
    let is_fit =
        |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}') || keeps_lines && "\n\t".contains(c);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_fit(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_shown_stays() {
        for plain in ["", "Größe \"<&>\" \\ 'x'", "e\u{301} 日本 👍"] {
            assert_eq!((text(plain), path(Path::new(plain))), (plain.to_owned(), plain.to_owned()));
        }
        let odd = "a\u{1b}[31m\r\n\t\u{7f}\u{85}\u{ffff}";
        assert_eq!(text(odd), "a\\u{1b}[31m\\r\\n\\t\\u{7f}\\u{85}\\u{ffff}");
        assert_eq!(lines(odd), "a\\u{1b}[31m\\r\n\t\\u{7f}\\u{85}\\u{ffff}");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_numbers() {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"a\xff\xfe\nb");
        assert_eq!(path(Path::new(name)), "a\\xff\\xfe\\nb");
    }
}
