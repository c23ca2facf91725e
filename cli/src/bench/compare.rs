//! `koala bench --compare`: several machines side by side.

use super::record::Record;

/// The tables that it prints.
pub fn tables(_records: &[Record]) -> String {
    String::new()
}
