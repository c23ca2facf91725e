//! `koala bench`. What it measures is not judged here: only that it measures, and what it does with the result.

use std::fs;
use std::path::Path;

use koala_cli::bench::record::Record;
use koala_optim::Backend;

use crate::{Outcome, folder, koala, outcome};

/// With no model and no long tensor.
fn bench(folder: &Path, more: &str) -> Outcome {
    let mut command = koala("bench --quick --rounds 2 --threads 2");
    command.args(more.split_whitespace()).current_dir(folder).env_remove("KOALA_BACKEND");
    outcome(command)
}

#[test]
fn it_measures_writes_and_advises() -> anyhow::Result<()> {
    let folder = folder("bench");
    let bench = bench(&folder, "--largest 6");
    assert_eq!((bench.status, &*bench.stderr), (Some(0), ""));
    for said in ["Processor: ", "Left out: GPT-2 small", "This takes about", "64", "Record: koala-bench.json"] {
        assert!(bench.stdout.contains(said), "{said}: {}", bench.stdout);
    }
    assert!(bench.stdout.contains("\nUse ") || bench.stdout.contains("too noisy"), "{}", bench.stdout);
    assert!(fs::read_to_string(folder.join("koala-bench.html"))?.starts_with("<!DOCTYPE html>"));
    assert_eq!(fs::read_dir(&folder)?.count(), 2, "nothing else is left behind");

    let record = Record::read(&folder.join("koala-bench.json"))?;
    let backends = Backend::present().len();
    assert!(record.quick && record.models.is_empty() && record.long.is_none() && !record.left_out.is_empty());
    assert_eq!((record.limits.len(), record.passes.len(), record.small.len()), (3 * 2, 3 * 3 * backends, 4 * backends));
    assert!(record.passes.iter().all(|pass| pass.time.nanoseconds > 0.0 && pass.time.rounds == 2));
    assert_eq!(record.advice.slower_by.len(), backends - 1);
    assert!(record.processor.threads > 0 && record.processor.memory_bytes > 0);

    let again = serde_json::to_string(&serde_json::from_str::<Record>(&serde_json::to_string(&record)?)?)?;
    assert_eq!(again, serde_json::to_string(&record)?, "a record survives writing and reading");

    let mut command = koala("bench --page both.html --compare koala-bench.json koala-bench.json");
    command.current_dir(&folder);
    let compared = outcome(command);
    assert_eq!((compared.status, &*compared.stderr), (Some(0), ""));
    assert!(compared.stdout.contains("Page: both.html") && folder.join("both.html").exists(), "{}", compared.stdout);
    Ok(())
}

/// Of two backends only, a tensor long enough for threads.
#[test]
fn backends_can_be_chosen_and_threads_are_met() -> anyhow::Result<()> {
    let folder = folder("bench-only");
    let bench = bench(&folder, "--largest 14 --only portable scalar --json record.json --page page.html");
    assert_eq!((bench.status, &*bench.stderr), (Some(0), ""));
    let record = Record::read(&folder.join("record.json"))?;
    assert!(record.passes.iter().all(|pass| ["scalar", "portable"].contains(&&*pass.backend)));
    let threaded: Vec<_> = record.passes.iter().filter(|pass| pass.threads == 2).collect();
    assert_eq!(threaded.len(), 3 * 2);
    assert!(threaded.iter().all(|pass| pass.parameters == 1 << 14 && pass.from_outside.is_some()));
    assert_eq!(record.limits.iter().filter(|limit| limit.threads == 2).count(), 3 * 2);
    Ok(())
}

#[test]
fn an_unknown_backend_is_an_error_that_lists_those_present() {
    let folder = folder("bench-unknown");
    let bench = bench(&folder, "--only abacus");
    assert_eq!(bench.status, Some(1));
    assert!(bench.stderr.contains("abacus") && bench.stderr.contains("scalar, portable"), "{}", bench.stderr);
    assert_eq!(fs::read_dir(&folder).map(Iterator::count).ok(), Some(0));
}

#[test]
fn a_file_that_is_no_record_is_named_and_nothing_written() -> std::io::Result<()> {
    let folder = folder("bench-no-record");
    fs::write(folder.join("broken.json"), "{")?;
    fs::write(folder.join("other.json"), r#"{"schema": "koala-bench-7"}"#)?;
    fs::write(folder.join("short.json"), r#"{"schema": "koala-bench-1"}"#)?;
    for (file, said) in [
        ("broken.json", "EOF while parsing"),
        ("other.json", "its schema is `koala-bench-7`; this version reads `koala-bench-1`"),
        ("short.json", "missing field `version`"),
        ("missing.json", "No such file"),
    ] {
        let mut command = koala("bench --compare");
        command.arg(file).current_dir(&folder);
        let compared = outcome(command);
        assert_eq!(compared.status, Some(1));
        assert!(compared.stderr.contains(file) && compared.stderr.contains(said), "{}", compared.stderr);
    }
    assert_eq!(fs::read_dir(&folder)?.count(), 3);
    Ok(())
}
