//! The HTML page that `koala bench` writes.

use anyhow::Result;

use super::record::Record;

/// One page that shows all of these.
pub fn page(_records: &[Record]) -> Result<String> {
    Ok(String::new())
}
