//! `koala train`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use koala_cli::task::digits;
use koala_optim::Backend;
use serde_json::Value;

use crate::data::write_stripes;
use crate::{Outcome, folder, koala, outcome};

/// Trains in `folder`, and returns what `--json` wrote.
pub fn train(folder: &Path, arguments: &str) -> (Outcome, Value) {
    let mut command = koala(&format!("train --json run.json {arguments}"));
    command.current_dir(folder);
    let train = outcome(command);
    assert_eq!(train.status, Some(0), "{}", train.stderr);
    let json = fs::read(folder.join("run.json")).expect("--json wrote it");
    (train, serde_json::from_slice(&json).expect("it is JSON"))
}

fn last_accuracy(run: &Value) -> f64 {
    let epochs = run["epochs"].as_array().expect("a list");
    epochs.last().and_then(|epoch| epoch["test_accuracy"].as_f64()).expect("a number")
}

#[test]
fn koala_classifies_97_percent_of_the_held_out_digits() {
    let folder = folder("train-accuracy");
    for seed in 0..3 {
        let (_, record) = train(&folder, &format!("--optimizer koala --seed {seed}"));
        assert_eq!((&record["held_out_samples"], &record["runs"][0]["diverged"]), (&355.into(), &false.into()));
        let accuracy = last_accuracy(&record["runs"][0]);
        assert!(accuracy >= 0.97, "seed {seed}: {accuracy}");
    }
}

/// Without any argument it trains by all of them, and leaves the picture behind and nothing else.
#[test]
fn alone_it_compares_six_optimizers() {
    let folder = folder("train-alone");
    let mut command = koala("");
    command.current_dir(&folder);
    let train = outcome(command);
    assert_eq!(train.status, Some(0));
    // As that is no terminal: a line for each run.
    let progress: Vec<&str> = train.stderr.lines().collect();
    assert_eq!(progress.len(), 6, "{}", train.stderr);
    assert!(progress[0].starts_with("KOALA++, learning rate 1, seed 0, test: accuracy 9"), "{}", progress[0]);
    let picture = fs::read_to_string(folder.join("koala-train.svg")).expect("it was drawn");
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for optimizer in ["KOALA++", "KOALA-V", "KOALA-M", "SGD with momentum", "SGD, Nesterov", "AdamW"] {
        let row = train.stdout.lines().find(|line| line.contains(optimizer) && line.contains(" % "));
        assert!(row.is_some_and(|row| row.contains(" 1840 ")), "{}", train.stdout);
        assert!(picture.contains(optimizer));
    }
    assert_eq!(fs::read_dir(&folder).expect("it is ours").count(), 1);
}

/// On small images by both networks and every backend; and by a perceptron that has as many parameters as a step must have
/// to be divided among threads.
#[test]
fn a_seed_gives_the_same_digits_on_every_backend_and_any_threads() {
    let folder = folder("train-bits");
    let deterministic = |arguments: &str, threads_of_candle: &str, said: &str| {
        let mut command = koala(&format!("train --data . --epochs 2 --batch 20 --json run.json {arguments}"));
        command.current_dir(&folder).env("RAYON_NUM_THREADS", threads_of_candle);
        let train = outcome(command);
        assert_eq!(train.status, Some(0), "{}", train.stderr);
        assert!(train.stdout.contains(said), "{}", train.stdout);
        let json = fs::read(folder.join("run.json")).expect("--json wrote it");
        let mut record: Value = serde_json::from_slice(&json).expect("it is JSON");
        for (name, value) in record.as_object_mut().expect("an object") {
            if ["arguments", "backend", "date", "threads"].contains(&&**name) {
                *value = Value::Null;
            }
        }
        for run in record["runs"].as_array_mut().expect("a list") {
            let time = run.as_object_mut().and_then(|run| run.remove("microseconds_per_step"));
            assert!(time.and_then(|time| time.as_f64()).is_some_and(|time| time > 0.0));
        }
        record
    };

    write_stripes(&folder, 60, 20);
    for model in ["mlp", "conv"] {
        let reference = deterministic(&format!("--model {model} --backend scalar"), "1", "on scalar");
        for backend in Backend::present() {
            let arguments = format!("--model {model} --backend {}", backend.name());
            assert_eq!(deterministic(&arguments, "4", &format!("on {}", backend.name())), reference, "{arguments}");
        }
        let other_seed = deterministic(&format!("--model {model} --seed 1"), "1", "seed 1");
        assert_ne!(other_seed["runs"], reference["runs"]);
    }

    write_stripes(&folder, 40, 92);
    let reference = deterministic("--model mlp --threads 1", "1", "1 thread(s)");
    let parameters = reference["parameters"].as_u64().expect("a number");
    assert!(parameters >= 1 << 21, "{parameters}");
    for threads in [2, 7] {
        let arguments = format!("--model mlp --threads {threads}");
        assert_eq!(deterministic(&arguments, "4", &format!("{threads} thread(s)")), reference, "{arguments}");
    }
}

#[test]
fn a_convolutional_network_learns_from_idx_files() {
    let folder = folder("train-conv");
    write_stripes(&folder, 200, 10);
    let (train, record) = train(&folder, "--data . --epochs 20");
    assert!(train.stdout.contains("Network: convolutional"), "{}", train.stdout);
    for run in record["runs"].as_array().expect("a list") {
        assert!(last_accuracy(run) > 0.95, "{run}");
    }
}

#[test]
fn a_run_that_diverges_is_called_that() {
    let folder = folder("train-diverged");
    let (train, record) = train(&folder, "--optimizer sgd --learning-rate 1e6 --epochs 3");
    assert!(train.stdout.contains("diverged"), "{}", train.stdout);
    assert!(!train.stdout.contains('%'), "{}", train.stdout);
    assert_eq!(record["runs"][0]["diverged"], true);
    let picture = fs::read_to_string(folder.join("koala-train.svg")).expect("it was drawn");
    assert!(picture.contains("SGD with momentum: diverged"));

    // At this rate it is a matter of luck.
    let (train, record) = self::train(&folder, "--optimizer sgd --learning-rate 1.2 --epochs 3 --seeds 6");
    let diverged = record["runs"].as_array().expect("a list").iter().filter(|run| run["diverged"] == true).count();
    assert!(diverged > 0 && diverged < 6, "{record}");
    assert!(train.stdout.contains(&format!(" ({diverged} of 6 diverged)")), "{}", train.stdout);
}

/// A norm above all that occur changes nothing, one below them does; the greatest that occurred is told.
#[test]
fn gradients_can_be_clipped_by_their_norm() {
    let folder = folder("train-clip");
    let run =
        |arguments: &str| train(&folder, &format!("--optimizer adamw --epochs 2 {arguments}")).1["runs"][0].clone();
    let (free, loose, tight) = (run(""), run("--clip-norm 1e6"), run("--clip-norm 0.01"));
    assert_eq!(
        (&free["settings"]["clip_norm"], &free["reports"]["largest_gradient_norm"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!((&loose["settings"]["clip_norm"], &loose["epochs"]), (&1e6.into(), &free["epochs"]));
    assert_ne!(tight["epochs"], free["epochs"]);
    for clipped in [loose, tight] {
        let norm = clipped["reports"]["largest_gradient_norm"].as_f64().expect("a number");
        assert!(norm > 0.1 && norm < 1e3, "{norm}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = folder("train-refused");
    for (arguments, status, said) in [
        ("--backend abacus", 1, "abacus"),
        ("--learning-rate 0.1", 1, "--learning-rate is for one optimizer"),
        ("--optimizer sgd --learning-rate -1", 1, "--learning-rate is -1"),
        ("--optimizer sgd --process-noise 1", 1, "SGD with momentum has no --process-noise"),
        ("--process-noise 1", 1, "--process-noise is for one optimizer"),
        ("--optimizer sgd --weight-decay nan", 1, "--weight-decay is NaN"),
        ("--optimizer koala --initial-variance 0", 1, "initial variance is 0"),
        ("--clip-norm 0", 1, "--clip-norm is 0"),
        ("--clip-norm -1", 1, "--clip-norm is -1"),
        ("--search --learning-rates 0.1,0", 1, "--learning-rates has 0"),
        ("--search --learning-rates -1", 1, "--learning-rates has -1"),
        ("--search --learning-rates 1,inf", 1, "--learning-rates has inf"),
        ("--search --learning-rates 1,many", 2, "--learning-rates"),
        ("--learning-rates 1", 2, "--search"),
        ("--schedule sometimes", 2, "one-cycle"),
        ("--search --validation", 2, "--validation"),
        ("--search --optimizer sgd --learning-rate 1", 2, "--learning-rate"),
        ("--optimizer sgd --optimizer adamw --optimizer sgd", 1, "--optimizer sgd is given twice"),
        ("--seeds 0", 2, "--seeds"),
        ("--seed 18446744073709551615 --seeds 2", 1, "--seeds 2: the seeds end at 18446744073709551615"),
        ("--epochs 1000000000000000000", 1, "1000000000000000000 epochs of 46 steps are more than"),
        ("--epochs 18446744073709551615 --samples-per-epoch 1", 1, "epochs of 1 steps are more than"),
        ("--samples-per-epoch 0", 2, "--samples-per-epoch"),
        ("--epochs 0", 2, "--epochs"),
        ("--batch 0", 2, "--batch"),
        ("--threads 100000", 2, "'100000' for '--threads <THREADS>': expected 0, for all"),
        ("--threads 513", 2, "or a number up to 512"),
        ("--threads -1", 2, "-1"),
        ("--optimizer adam", 2, "adamw"),
    ] {
        let mut command = koala(&format!("train {arguments}"));
        command.current_dir(&folder);
        let refused = outcome(command);
        assert_eq!(refused.status, Some(status), "{arguments}");
        assert!(refused.stderr.contains(said), "{arguments}: {}", refused.stderr);
    }
    assert_eq!(fs::read_dir(&folder).expect("it is ours").count(), 0);
}

#[test]
fn no_threads_are_all_that_there_are() {
    let folder = folder("train-all-threads");
    let (_, record) = train(&folder, "--optimizer sgd --epochs 1 --threads 0");
    let all = std::thread::available_parallelism().expect("it can be told").get();
    assert_eq!(record["threads"], all.min(512));
}

/// Containers may lack /proc, which tells a program where it lies. Only root can take it away.
#[cfg(target_os = "linux")]
#[test]
fn without_proc() {
    let folder = folder("train-without-proc");
    let shell = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("mount -t tmpfs none /proc && {script}"), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_koala")).current_dir(&folder).env_remove("RAYON_NUM_THREADS");
        command.output()
    };
    if !shell("true").is_ok_and(|output| output.status.success()) {
        println!("skipped: training without /proc: this process may not take it away");
        return;
    }
    let by_path = "exec \"$1\" train --optimizer sgd --epochs 1";
    let by_name = "PATH=$(dirname \"$1\"):$PATH && exec koala train --optimizer sgd --epochs 1";
    for script in [by_path, by_name, "exec \"$1\" info"] {
        let output = shell(script).expect("it started before");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The last of all seeds is one like any other.
#[test]
fn seeds_and_epochs_may_be_great() {
    let folder = folder("train-great");
    let arguments = "--optimizer sgd --samples-per-epoch 32 --seed 18446744073709551615";
    let (_, record) = train(&folder, &format!("{arguments} --epochs 100000000000000 --save saved --stop-after 1"));
    let run = &record["runs"][0];
    assert_eq!((&run["seed"], &run["steps"]), (&u64::MAX.into(), &1.into()));
}

#[test]
fn what_can_not_be_written_is_told_before_any_training() {
    let folder = folder("train-unwritable");
    fs::write(folder.join("file"), "").expect("the folder is ours");
    for (arguments, said) in [
        ("--plot missing/curves.svg", "missing/curves.svg: cannot be written"),
        ("--plot ..", "..: this names no file"),
        ("--json ../train-unwritable", "../train-unwritable: this is a folder"),
        ("--json run.json --plot missing/curves.svg", "missing/curves.svg: cannot be written"),
        ("--json missing/run.json", "missing/run.json: cannot be written"),
        ("--results file/results", "file/results: cannot be made"),
        ("--optimizer sgd --save missing/saved", "missing/saved: cannot be written"),
    ] {
        let mut command = koala(&format!("train {arguments}"));
        command.current_dir(&folder);
        let refused = outcome(command);
        assert_eq!((refused.status, &*refused.stdout), (Some(1), ""), "{arguments}");
        assert!(refused.stderr.contains(said), "{arguments}: {}", refused.stderr);
    }
    assert_eq!(fs::read_dir(&folder).expect("it is ours").count(), 1);
}

/// As `koala train --json run.json | head -3` does.
#[test]
fn a_reader_that_leaves_costs_no_files() {
    let folder = folder("train-pipe");
    let (reader, writer) = std::io::pipe().expect("there are pipes");
    drop(reader);
    let mut command = koala("train --optimizer sgd --epochs 1 --search --learning-rates 0.1 --json run.json");
    let status = command.current_dir(&folder).stdout(writer).stderr(Stdio::null()).status();
    assert_eq!(status.expect("the command starts").code(), Some(0));
    let json = fs::read(folder.join("run.json")).expect("--json wrote it");
    let record: Value = serde_json::from_slice(&json).expect("it is JSON");
    assert_eq!(record["runs"].as_array().map(Vec::len), Some(1));
    assert!(folder.join("koala-train.svg").exists());
}

/// Settings must not be chosen by what they are then judged by.
#[test]
fn the_validation_part_has_none_of_the_held_out_images() -> anyhow::Result<()> {
    let data = digits::load()?;
    assert_eq!(data.train.count() + data.test.count(), 1797);
    for class in 0..10 {
        let of_class = |labels: &[u8]| labels.iter().filter(|&&label| label == class).count();
        let (train, test) = (of_class(&data.train.labels), of_class(&data.test.labels));
        assert_eq!(test, (train + test) / 5, "class {class}");
    }
    let validation = data.validation()?;
    assert_eq!(validation.train.count() + validation.test.count(), data.train.count());
    // Each part is scaled by its own training images, so the images are compared as they were in the file.
    let images = |pixels: &[f32]| {
        let (low, high) = pixels.iter().fold((f32::MAX, f32::MIN), |(low, high), &p| (low.min(p), high.max(p)));
        let original = pixels.iter().map(|p| ((p - low) / (high - low) * 16.0).round() as u8);
        original.collect::<Vec<_>>().chunks(64).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let (train, held_out) = (images(&data.train.pixels), images(&data.test.pixels));
    for image in images(&validation.test.pixels).iter().chain(&images(&validation.train.pixels)) {
        assert!(train.contains(image) && !held_out.contains(image));
    }
    Ok(())
}
