//! What the sections of the page take from the records: which kinds, backends and levels there are, and how they look.

use super::super::record::{Figure, Kind, Limit, Part, Pass, Record};

/// Both passes, as they are called here.
pub(crate) const PASSES: [(Part, &str); 2] = [(Part::Pass1, "pass 1"), (Part::Pass2, "pass 2")];

/// A colour, as a class of the style sheet, and a mark that can be told apart without colours.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Look {
    pub(crate) class: &'static str,
    pub(crate) mark: Mark,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mark {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
}

/// Dashed, and marked only where it is noisy.
pub(crate) const LIMIT: Look = Look { class: "limit", mark: Mark::Circle };

/// For callers who do not belong to the pool.
pub(crate) const OUTSIDE: Look = Look { class: "outside", mark: Mark::Cross };

const LOOKS: [Look; 6] = [
    Look { class: "blue", mark: Mark::Circle },
    Look { class: "vermilion", mark: Mark::Square },
    Look { class: "green", mark: Mark::Triangle },
    Look { class: "orange", mark: Mark::Diamond },
    Look { class: "purple", mark: Mark::Cross },
    Look { class: "sky", mark: Mark::Circle },
];

/// The same on every page, whatever else is shown.
pub(crate) fn backend(name: &str) -> Look {
    let known = ["avx512", "avx2", "portable", "scalar", "neon"];
    LOOKS[known.iter().position(|known| *known == name).unwrap_or(5)]
}

pub(crate) fn numbered(index: usize) -> Look {
    LOOKS[index % LOOKS.len()]
}

/// How the page calls the machine where several are side by side: A, B, C.
pub(crate) fn letter(index: usize) -> String {
    let letter = u32::try_from(index).ok().and_then(|index| char::from_digit(index + 10, 36));
    letter.map_or_else(|| (index + 1).to_string(), |letter| letter.to_ascii_uppercase().to_string())
}

/// What stands before a title that says whose it is, if there are several.
pub(crate) fn prefix(records: &[Record], index: usize) -> String {
    if records.len() > 1 { format!("{}: ", letter(index)) } else { String::new() }
}

/// f32 with weight decay: what is shown first.
pub(crate) fn main_kind() -> Kind {
    Kind { parameters: "f32".to_owned(), state: "f32".to_owned(), weight_decay: true }
}

/// All kinds but the main one, in the order of the records.
pub(crate) fn other_kinds(records: &[Record]) -> Vec<Kind> {
    let kinds = records.iter().flat_map(|record| {
        record.limits.iter().map(|limit| &limit.kind).chain(record.passes.iter().map(|pass| &pass.kind))
    });
    distinct(kinds.filter(|kind| **kind != main_kind()).cloned())
}

/// Each once, in their order.
pub(crate) fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut seen, value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
        seen
    })
}

/// What was measured of a part, by one thread.
pub(crate) fn passes<'a>(record: &'a Record, kind: &'a Kind, part: Part) -> impl Iterator<Item = &'a Pass> {
    record.passes.iter().filter(move |pass| pass.kind == *kind && pass.part == part && pass.threads == 1)
}

/// The streaming limits of a part, by one thread.
pub(crate) fn limits<'a>(record: &'a Record, kind: &'a Kind, part: Part) -> impl Iterator<Item = &'a Limit> {
    record.limits.iter().filter(move |limit| limit.kind == *kind && limit.part == part && limit.threads == 1)
}

/// The bytes of one parameter in the tensor's four arrays.
pub(crate) fn footprint(kind: &Kind) -> Option<f64> {
    let bytes = |name: &str| match name {
        "f64" => Some(8.0),
        "f32" => Some(4.0),
        "bf16" | "f16" => Some(2.0),
        _ => None,
    };
    Some(2.0 * (bytes(&kind.parameters)? + bytes(&kind.state)?))
}

/// Where a tensor's four arrays lie, L1 or memory, say.
pub(crate) fn level(record: &Record, kind: &Kind, parameters: usize) -> String {
    let bytes = footprint(kind).map_or(f64::INFINITY, |bytes| bytes * parameters as f64);
    let cache = record.processor.caches.iter().find(|cache| bytes <= cache.bytes as f64);
    cache.map_or_else(|| "memory".to_owned(), |cache| format!("L{}", cache.level))
}

/// GB/s.
pub(crate) fn bandwidth(bytes_per_parameter: f64, parameters: usize, time: &Figure) -> f64 {
    bytes_per_parameter * parameters as f64 / time.nanoseconds
}

/// All levels of the machine, from the first cache to memory.
pub(crate) fn levels(record: &Record) -> Vec<String> {
    let caches = record.processor.caches.iter().map(|cache| format!("L{}", cache.level));
    distinct(caches.chain(["memory".to_owned()]))
}

/// The measured length that stands for a level: the longest that leaves half of the cache free, or the longest of all
/// in memory.
pub(crate) fn typical(record: &Record, kind: &Kind, at: &str) -> Option<usize> {
    let lengths = || limits(record, kind, Part::Pass1).map(|limit| limit.parameters);
    let within = |length: &usize| level(record, kind, *length) == at;
    let half = |length: &usize| at == "memory" || level(record, kind, length.saturating_mul(2)) == at;
    lengths().filter(within).filter(half).max().or_else(|| lengths().filter(within).min())
}

/// With how many threads it was measured, but for one.
pub(crate) fn most_threads(record: &Record) -> usize {
    let passes = record.passes.iter().map(|pass| pass.threads);
    passes.chain(record.models.iter().map(|model| model.threads)).max().unwrap_or(1).max(1)
}

pub(crate) fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

/// The outline of a mark around a point.
pub(crate) fn mark(mark: Mark, x: f64, y: f64) -> String {
    let start = |dx: f64, dy: f64| format!("M{:.1} {:.1}", x + dx, y + dy);
    match mark {
        Mark::Circle => start(-3.5, 0.0) + "a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0Z",
        Mark::Square => start(-3.0, -3.0) + "h6v6h-6Z",
        Mark::Triangle => start(0.0, -4.0) + "l4 7h-8Z",
        Mark::Diamond => start(0.0, -4.5) + "l4.5 4.5l-4.5 4.5l-4.5 -4.5Z",
        Mark::Cross => start(-1.5, -4.5) + "h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
    }
}
