//! Whatever a record holds, it makes a page and tables.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::compare::tables;
use super::super::record::{Figure, Record};
use super::page;
use super::samples::{empty, laptop, server};

/// All its figures replaced.
fn with_figures(mut record: Record, nanoseconds: f64, spread: f64) -> Record {
    let figure = Figure { nanoseconds, spread, rounds: 1 };
    record.limits.iter_mut().for_each(|limit| limit.time = figure);
    for pass in &mut record.passes {
        (pass.time, pass.from_outside) = (figure, pass.from_outside.map(|_| figure));
        pass.share_of_limit = pass.share_of_limit.map(|_| nanoseconds);
        pass.share_spread = pass.share_spread.map(|_| spread);
        pass.bytes_per_parameter = nanoseconds;
    }
    record.small.iter_mut().for_each(|small| (small.alone, small.in_model) = (figure, figure));
    for model in &mut record.models {
        (model.time, model.ratio_to_adamw, model.ratio_spread) = (figure, Some(nanoseconds), Some(spread));
    }
    if let Some(long) = &mut record.long {
        (long.time, long.shorter_time, long.ratio) = (figure, figure, nanoseconds);
    }
    record.advice.slower_by.iter_mut().for_each(|other| other.1 = nanoseconds);
    record.seconds = nanoseconds;
    record
}

/// Cut down to at most one of everything.
fn single(mut record: Record) -> Record {
    record.limits.truncate(1);
    record.passes.truncate(1);
    record.small.truncate(1);
    record.models.truncate(1);
    record.processor.caches.truncate(1);
    record
}

/// The centres of all marks.
fn centres(page: &str) -> impl Iterator<Item = f64> {
    let coordinates = page.split(" cx=\"").chain(page.split(" cy=\"")).filter(|rest| !rest.starts_with('<'));
    coordinates.map(|rest| rest.split('"').next().and_then(|number| number.parse().ok()).expect("it is a number"))
}

fn has_strange_number(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|word| ["nan", "inf"].contains(&word.to_lowercase().as_str()))
}

#[test]
fn any_record_makes_a_page() -> Result<()> {
    let mut records = vec![vec![empty()], vec![server()], vec![laptop(), server()], vec![empty(), server(), empty()]];
    records.push(vec![single(server()), single(laptop())]);
    records.push(vec![server(); 40]);
    for value in [0.0, 1e-300, 1e300] {
        for spread in [0.0, 0.3, 1e300] {
            records.push(vec![with_figures(server(), value, spread), server()]);
        }
    }
    let mut odd = server();
    odd.passes.iter_mut().enumerate().for_each(|(i, pass)| pass.parameters = [0, 1, usize::MAX][i % 3]);
    odd.limits.iter_mut().enumerate().for_each(|(i, limit)| limit.parameters = [0, 1, usize::MAX][i % 3]);
    odd.processor.caches.iter_mut().for_each(|cache| cache.bytes = 0);
    odd.processor.threads = 1;
    records.push(vec![odd]);
    for records in records {
        let (page, tables) = (page(&records)?, tables(&records));
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
        assert!(!has_strange_number(&page), "{page}");
        assert!(!has_strange_number(&tables), "{tables}");
        assert!(centres(&page).all(|place| (0.0..=600.0).contains(&place)), "{page}");
    }
    assert!(page(&[]).is_err());
    Ok(())
}

#[test]
fn names_are_escaped() -> Result<()> {
    let mut record = server();
    let name = "<script>alert('&')</script>";
    record.processor.name = name.to_owned();
    record.processor.features.push(name.to_owned());
    record.passes.iter_mut().for_each(|pass| pass.backend = name.to_owned());
    record.models.iter_mut().for_each(|model| model.name = name.to_owned());
    record.advice.noise = Some(name.to_owned());
    for records in [vec![record.clone()], vec![record, laptop()]] {
        let page = page(&records)?;
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    }
    Ok(())
}

/// A figure over the bound is nowhere to be read.
#[test]
fn noisy_figures_are_not_shown() -> Result<()> {
    let records = [with_figures(server(), 4321.0, 0.3)];
    let (page, tables) = (page(&records)?, tables(&records));
    for text in [page, tables] {
        assert!(text.contains("noisy"));
        let shown = ["4.32 µs", "4321 × AdamW", "4.32e5", "spread 30"].into_iter().find(|shown| text.contains(shown));
        assert_eq!(shown, None, "{text}");
    }
    Ok(())
}

/// What is measured is there: a plot's marks, a table's cells, a bar's text.
#[test]
fn a_page_shows_every_figure() -> Result<()> {
    let page = page(&[server()])?;
    for text in [
        "Use <b class=\"blue\">avx512</b>",
        "L3 · 32 MiB",
        "streaming limit",
        "ResNet-50: 25.6 M parameters",
        "1.32 × AdamW",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // Two passes of six kinds over eleven lengths, each with its limit and four backends; the steps by backend and by
    // kind; those with threads over seven lengths, from outside too; and what they gain.
    let marks = page.matches("class=\"target\"").count();
    assert_eq!(marks, 2 * 6 * 11 * 5 + 11 * 4 + 6 * 11 + 7 * 5 + 7 * 6);
    Ok(())
}

#[test]
#[ignore = "writes pages into the temporary directory, to be looked at"]
fn pages_to_look_at() -> Result<()> {
    let folder = std::env::temp_dir();
    std::fs::write(folder.join("koala-bench-one.html"), page(&[server()])?)?;
    std::fs::write(folder.join("koala-bench-two.html"), page(&[server(), laptop()])?)?;
    let mut noisy = server();
    noisy.advice.noise = Some("the same loop took 1.0 to 1.9 times as long from round to round.".to_owned());
    std::fs::write(folder.join("koala-bench-noisy.html"), page(&[noisy])?)?;
    std::fs::write(folder.join("koala-bench-tables.txt"), tables(&[server(), laptop()]))?;
    Ok(())
}

/// The places of all values in a JSON text that are numbers, texts or lists, those in lists once for all their elements.
fn places(value: &Value, place: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| places(value, &format!("{place}/{key}"), found))
        }
        Value::Array(elements) => {
            found.insert(place.to_owned());
            elements.iter().for_each(|value| places(value, &format!("{place}/*"), found));
        }
        _ => drop(found.insert(place.to_owned())),
    }
}

/// Puts a value at a place: in every element of a list, or in the first only.
fn put(value: &mut Value, place: &[&str], new: &Value, all: bool) {
    match (place, value) {
        ([], value) => *value = new.clone(),
        (["*", rest @ ..], Value::Array(elements)) => {
            let count = if all { elements.len() } else { 1 };
            elements.iter_mut().take(count).for_each(|value| put(value, rest, new, all));
        }
        ([key, rest @ ..], Value::Object(entries)) => {
            entries.get_mut(*key).into_iter().for_each(|value| put(value, rest, new, all));
        }
        _ => {}
    }
}

/// A record may be anybody's: whatever it says, it is shown, or it is an error.
#[test]
fn what_no_machine_has_measured_is_no_panic() -> Result<()> {
    let original = serde_json::to_value(single(server()))?;
    let mut found = BTreeSet::new();
    places(&original, "", &mut found);
    let values = [
        json!(0),
        json!(-1),
        json!(1),
        json!(0.5),
        json!(1e308),
        json!(-1e308),
        json!(5e-324),
        json!(u64::MAX),
        json!(u32::MAX),
        json!(""),
        json!("f32"),
        json!("Pass1"),
        json!([]),
        json!(null),
    ];
    let mut shown = 0;
    for place in found.iter().filter(|place| *place != "/schema") {
        let place: Vec<&str> = place.split('/').skip(1).collect();
        for (value, all) in values.iter().flat_map(|value| [(value, true), (value, false)]) {
            let mut record = original.clone();
            put(&mut record, &place, value, all);
            let Ok(record) = serde_json::from_value::<Record>(record) else { continue };
            for records in [&[record.clone()][..], &[single(laptop()), record]] {
                let said = std::panic::catch_unwind(|| (tables(records).len(), page(records).map(|page| page.len())));
                assert!(said.is_ok(), "{place:?} is {value}");
            }
            shown += 1;
        }
    }
    assert!(shown > 500, "{shown}");
    Ok(())
}
