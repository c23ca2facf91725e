//! Numbers, sizes, times and tables as a reader wants them.

use comfy_table::{CellAlignment, Table, presets};

use super::record::{Kind, is_noisy};

/// Stands where a figure's spread is over the bound.
pub(crate) const NOISY: &str = "noisy";
/// Stands where nothing was measured.
pub(crate) const NONE: &str = "–";

/// The text of a figure, or that it would say nothing.
pub(crate) fn unless_noisy(spread: f64, text: String) -> String {
    if is_noisy(spread) { NOISY.to_owned() } else { text }
}

/// A table with its columns to the right, but for the first `left`.
pub(crate) fn table(header: Vec<String>, rows: Vec<Vec<String>>, left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Three significant digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        NONE.to_owned()
    } else if size == 0.0 {
        "0".to_owned()
    } else if (1e-3..1e5).contains(&size) {
        let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.2e}")
    }
}

/// The same without zeros at the end.
pub(crate) fn short(value: f64) -> String {
    let text = number(value);
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.replace(".00e", "e")
    }
}

pub(crate) fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent.abs() < 1e4 { format!("{percent:.0} %") } else { format!("{} %", number(percent)) }
}

pub(crate) fn duration(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    let (scale, unit) = units.into_iter().find(|(scale, _)| nanoseconds >= *scale).unwrap_or((1.0, "ns"));
    format!("{} {unit}", number(nanoseconds / scale))
}

pub(crate) fn bytes(count: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
    let (scale, unit) = units.into_iter().find(|(scale, _)| count >= *scale).unwrap_or((1, "B"));
    format!("{} {unit}", short(count as f64 / scale as f64))
}

/// A tensor's length: 64 Ki rather than 65536, and 25.6 M where there is no such name.
pub(crate) fn length(count: usize) -> String {
    let power = count.checked_ilog2().unwrap_or(0) / 10;
    let scale = 1usize << (10 * power);
    if power > 0 && count.is_multiple_of(scale) {
        let prefix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power as usize];
        format!("{} {prefix}", count / scale)
    } else if count < 100_000 {
        count.to_string()
    } else {
        let (scale, prefix) = if count < 1_000_000_000 { (1e6, "M") } else { (1e9, "G") };
        format!("{} {prefix}", short(count as f64 / scale))
    }
}

/// What the vectors are stored in.
pub(crate) fn kind(kind: &Kind) -> String {
    let state = if kind.state == kind.parameters { String::new() } else { format!(", {} state", kind.state) };
    let decay = if kind.weight_decay { "" } else { ", no weight decay" };
    format!("{}{state}{decay}", kind.parameters)
}

/// How many times something: two decimals are enough.
pub(crate) fn ratio(ratio: f64) -> String {
    if (0.01..1.0).contains(&ratio) { format!("{ratio:.2} ×") } else { format!("{} ×", number(ratio)) }
}

/// A predicate for what takes longer than the best: in percent as long as that is easily understood.
pub(crate) fn slower(ratio: f64) -> String {
    if !ratio.is_finite() {
        "was not measured".to_owned()
    } else if (1.0..1.005).contains(&ratio) {
        "is as fast".to_owned()
    } else if (1.0..1.995).contains(&ratio) {
        format!("is {:.0} % slower", (ratio - 1.0) * 100.0)
    } else {
        format!("takes {} the time", self::ratio(ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let numbers =
            [(0.0, "0"), (0.00123, "0.00123"), (1.0, "1.00"), (26.04, "26.0"), (1234.5, "1234"), (1e300, "1.00e300")];
        numbers.iter().for_each(|(value, text)| assert_eq!(number(*value), *text));
        let times = [(0.5, "0.500 ns"), (999.0, "999 ns"), (1500.0, "1.50 µs"), (2.5e7, "25.0 ms"), (3e9, "3.00 s")];
        times.iter().for_each(|(value, text)| assert_eq!(duration(*value), *text));
        let lengths = [(0, "0"), (17, "17"), (1024, "1 Ki"), (1 << 24, "16 Mi"), (25_557_032, "25.6 M")];
        lengths.iter().for_each(|(count, text)| assert_eq!(length(*count), *text));
        assert_eq!(bytes(96 << 10), "96 KiB");
        assert_eq!(bytes(u64::MAX), "1.68e7 TiB");
        assert_eq!(
            (slower(1.0), slower(1.034), slower(4.2)),
            ("is as fast".into(), "is 3 % slower".into(), "takes 4.20 × the time".into())
        );
    }
}
