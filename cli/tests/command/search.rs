//! `koala train --search`, several seeds, and what is left behind of each run.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::folder;
use crate::train::train;

#[test]
fn the_best_rate_on_the_validation_part_is_taken_to_the_test() {
    let folder = folder("search");
    let arguments = "--search --learning-rates 0.03,1e-300,1e5 --optimizer sgd --optimizer adamw --seeds 2 --epochs 2";
    let (train, record) = train(&folder, &format!("{arguments} --results results/of-each"));

    assert_eq!((&record["held_out"], &record["held_out_samples"]), (&"test".into(), &355.into()));
    let search = &record["search"];
    assert_eq!((&search["held_out"], &search["held_out_samples"]), (&"validation".into(), &285.into()));
    let total = |record: &Value| record["train_samples"].as_u64().zip(record["held_out_samples"].as_u64());
    assert_eq!(total(search).map(|(train, held_out)| train + held_out), record["train_samples"].as_u64());
    assert_eq!(search["runs"].as_array().map(Vec::len), Some(2 * 3 * 2));

    let runs = record["runs"].as_array().expect("a list");
    let told = |run: &Value| (run["optimizer"].clone(), run["settings"]["learning_rate"].clone(), run["seed"].clone());
    let expected = ["sgd", "adamw"].map(|name| [0, 1].map(|seed| (name.into(), 0.03.into(), seed.into()))).concat();
    assert_eq!(runs.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(runs.iter().all(|run| run["settings"]["schedule"] == "step-decay"), "{runs:?}");

    // The table of the search marks the best, and has a word for what diverged.
    let row = |rate: &str| train.stdout.lines().find(|line| line.contains(&format!(" {rate} "))).unwrap_or_default();
    assert_eq!(row("0.03").matches("* ").count(), 2, "{}", train.stdout);
    assert!(row("100000").contains("2 of 2 diverged"), "{}", train.stdout);
    // That of the comparison has a mean and a spread.
    let sgd = train.stdout.lines().find(|line| line.starts_with("│ SGD")).expect("its row");
    assert_eq!(sgd.matches(" ± ").count(), 2, "{sgd}");

    // A file for each run, which says what the command's record says of it.
    let names: BTreeSet<String> = fs::read_dir(folder.join("results/of-each"))
        .expect("it was made")
        .map(|entry| entry.expect("it is ours").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 2 * 3 * 2 + 2 * 2);
    for (run, part) in [(&runs[1], "test"), (&search["runs"][1], "validation")] {
        let rate = &run["settings"]["learning_rate"];
        let start = format!("uci-digits_mlp_sgd_rate-{rate}_seed-1_{part}_");
        let name = names.iter().find(|name| name.starts_with(&start)).expect("the file of that run");
        let file = fs::read(folder.join("results/of-each").join(name)).expect("it was written");
        let file: Value = serde_json::from_slice(&file).expect("it is JSON");
        assert_eq!((&file["run"], &file["held_out"]), (run, &part.into()));
        assert_eq!(file["arguments"][0], "train");
        for told in ["version", "batch", "epochs", "backend", "threads", "network", "data", "checksum"] {
            assert_eq!(file[told], record[told], "{told}");
        }
    }
}

#[test]
fn a_search_without_any_good_rate_says_so() {
    let folder = folder("search-diverged");
    let arguments = "--search --learning-rates 1e5,1e6 --optimizer sgd --seeds 2 --epochs 1";
    let (train, record) = train(&folder, arguments);
    let said = "SGD with momentum diverged at every rate of the grid: it goes on with 0.1";
    assert!(train.stdout.contains(said), "{}", train.stdout);
    assert!(!train.stdout.contains("* ") && !train.stdout.contains("at an end"), "{}", train.stdout);
    assert_eq!(record["runs"][1]["settings"]["learning_rate"], 0.1);
}

/// Two runs that differ in one setting, and one that differs in none.
#[test]
fn results_are_only_replaced_by_those_of_the_same_run() {
    let folder = folder("search-names");
    for (weight_decay, files) in [("0", 1), ("0.001", 2), ("0", 2)] {
        train(&folder, &format!("--optimizer sgd --epochs 1 --weight-decay {weight_decay} --results results"));
        assert_eq!(fs::read_dir(folder.join("results")).expect("it was made").count(), files);
    }
}

/// A seed gives the same run, whether it is the first of several or the only one.
#[test]
fn seeds_do_not_depend_on_each_other() {
    let folder = folder("seeds");
    let epochs = |arguments: &str, run: usize| {
        let (_, record) = train(&folder, &format!("--optimizer koala --epochs 2 {arguments}"));
        record["runs"][run]["epochs"].clone()
    };
    assert_eq!(epochs("--seeds 3", 2), epochs("--seed 2", 0));
    assert_ne!(epochs("--seeds 3", 1), epochs("--seed 2", 0));
}
