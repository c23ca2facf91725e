//! `koala train --save` and `--resume`.

use std::fs;

use koala_optim::checkpoint::Checkpoint;
use serde_json::Value;

use crate::train::train;
use crate::{folder, koala, outcome};

/// Of the trained network in a checkpoint, all tensors.
fn parameters(file: &std::path::Path) -> Vec<Vec<f32>> {
    let checkpoint = Checkpoint::read(file).expect("it was saved");
    let shapes: [(&str, &[usize]); 4] =
        [("hidden.weight", &[64, 256]), ("hidden.bias", &[256]), ("output.weight", &[256, 10]), ("output.bias", &[10])];
    shapes.map(|(name, shape)| checkpoint.tensor(name, shape).expect("it is there")).to_vec()
}

#[test]
fn a_run_that_was_stopped_ends_with_the_same_bits() {
    let folder = folder("resume");
    let told = |record: &Value| {
        let run = &record["runs"][0];
        ["epochs", "steps", "first_loss", "diverged", "stopped", "reports"].map(|name| run[name].clone())
    };
    for optimizer in ["koala", "koala-v", "koala-m", "sgd", "nesterov", "adamw"] {
        let arguments = format!("--optimizer {optimizer} --epochs 4 --seed 3 --samples-per-epoch 500 --clip-norm 0.5");
        let (_, whole) = train(&folder, &format!("{arguments} --save whole"));
        let (said, part) = train(&folder, &format!("{arguments} --save part --stop-after 3"));
        assert_eq!(part["runs"][0]["epochs"].as_array().map(Vec::len), Some(3));
        assert_eq!((&part["runs"][0]["stopped"], &whole["runs"][0]["stopped"]), (&true.into(), &false.into()));
        assert!(said.stdout.contains(" 48 of 64, stopped "), "{}", said.stdout);
        let (_, resumed) =
            train(&folder, &format!("{arguments} --resume part --save rest --backend scalar --threads 2"));
        assert_eq!(told(&resumed), told(&whole), "{optimizer}");
        assert_eq!(parameters(&folder.join("rest")), parameters(&folder.join("whole")), "{optimizer}");
        assert_ne!(parameters(&folder.join("part")), parameters(&folder.join("whole")), "{optimizer}");
    }
}

#[test]
fn what_is_no_checkpoint_of_this_run_is_refused() {
    let folder = folder("resume-refused");
    let arguments = "--optimizer sgd --epochs 2 --samples-per-epoch 100";
    train(&folder, &format!("{arguments} --save saved"));
    let mut bytes = fs::read(folder.join("saved")).expect("it was saved");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(folder.join("damaged"), bytes).expect("the folder is ours");
    for (arguments, status, said) in [
        (&*format!("{arguments} --resume missing"), 1, "missing"),
        (&format!("{arguments} --resume damaged"), 1, "damaged"),
        (&format!("{arguments} --resume saved --batch 16"), 1, "saved: it is of a run whose batch is 32, not 16"),
        (&format!("{arguments} --resume saved --epochs 3"), 2, "--epochs"),
        (&format!("{arguments} --resume saved --seed 1"), 1, "saved: it is of a run of SGD with momentum with seed 0"),
        (&format!("{arguments} --resume saved --learning-rate 0.2"), 1, "\"learning_rate\":0.1"),
        (&format!("{arguments} --resume saved --clip-norm 2"), 1, "\"clip_norm\":2.0"),
        (&format!("{arguments} --resume saved --schedule constant"), 1, "\"schedule\":\"step-decay\""),
        ("--optimizer adamw --epochs 2 --samples-per-epoch 100 --resume saved", 1, "not AdamW"),
        (&format!("{arguments} --resume saved --optimizer koala"), 1, "--resume is for one optimizer"),
        (
            &format!("{arguments} --save again --seeds 2"),
            1,
            "--save is for one optimizer, chosen by --optimizer, and one",
        ),
        (&format!("{arguments} --stop-after 1"), 2, "--save"),
        (&format!("{arguments} --save again --search"), 2, "--search"),
        (&format!("{arguments} --save missing/file"), 1, "missing/file"),
    ] {
        let mut command = koala(&format!("train {arguments}"));
        command.current_dir(&folder);
        let refused = outcome(command);
        assert_eq!(refused.status, Some(status), "{arguments}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{arguments}: {}", refused.stderr);
    }
}

/// Whose checksum is right: what it says is looked at before it is believed.
#[test]
fn a_note_that_was_forged_is_refused() {
    let folder = folder("resume-forged");
    let arguments = "--optimizer sgd --epochs 3 --samples-per-epoch 64";
    train(&folder, &format!("{arguments} --save saved --stop-after 2"));
    let saved = Checkpoint::read(folder.join("saved")).expect("it was saved");
    let note: Value = serde_json::from_str(saved.note("koala-train").expect("it is there")).expect("it is JSON");
    let resume = |run: &[(&str, Value)]| {
        let mut note = note.clone();
        run.iter().for_each(|(path, value)| *note["run"].pointer_mut(path).expect(path) = value.clone());
        let forged = saved.clone().with_note("koala-train", note.to_string());
        forged.write(folder.join("forged")).expect("the folder is ours");
        let mut command = koala(&format!("train {arguments} --resume forged"));
        command.current_dir(&folder);
        outcome(command)
    };
    assert_eq!(resume(&[]).status, Some(0));
    let epoch = note["run"]["epochs"][0].clone();
    let said = "forged: it says ";
    for (run, said) in [
        (&[("/microseconds_per_step", (-1.0).into())][..], "forged: it says that a step took -1 microseconds"),
        (&[("/microseconds_per_step", 1e300.into())], said),
        (&[("/steps", 5.into())], "forged: it says that 2 epochs took 5 steps, and not 4"),
        (&[("/steps", u64::MAX.into())], said),
        (&[("/epochs", Value::Array(Vec::new())), ("/steps", 0.into())], "it says that the run has had 0 epochs of 3"),
        (&[("/epochs", vec![epoch; 4].into()), ("/steps", 8.into())], "it says that the run has had 4 epochs of 3"),
        (&[("/diverged", true.into())], "it says that the run has ended"),
        (&[("/stopped", true.into())], "it says that the run has ended"),
        (&[("/first_loss", Value::Null)], "it does not say what the loss was"),
        (&[("/epochs/1/test_accuracy", 1.5.into())], "it says that 1.5 of the answers were right"),
        (&[("/epochs/1/train_loss", 9.99e307.into())], "it says that the training loss was 9.99e307"),
        (&[("/epochs/0/train_loss", (-1.7e308).into())], "it says that the training loss was -1.7e308"),
        (&[("/epochs/1/test_loss", 1.7e308.into())], "it says that the loss on the held-out part was 1.7e308"),
        (&[("/first_loss", 1e300.into())], "it says that the first loss was 1e300"),
        (&[("/epochs/1/test_loss", Value::Null)], "what it says of the run: invalid type: null"),
        (&[("/reports/restarts", 1000.into())], said),
        (&[("/reports/skipped", u64::MAX.into()), ("/reports/restarts", 1.into())], said),
        (&[("/reports/breakdowns", (-1).into())], "what it says of the run: invalid value"),
    ] {
        let refused = resume(run);
        assert_eq!(refused.status, Some(1), "{run:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{run:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("panicked"), "{run:?}: {}", refused.stderr);
    }
}

/// A text that was changed, though not in its length.
#[test]
fn a_run_on_other_data_is_not_gone_on_with() {
    let folder = folder("resume-data");
    let arguments = "--text text --optimizer sgd --epochs 2 --samples-per-epoch 2 --batch 1";
    let text = "wise koalas sleep. ".repeat(60);
    fs::write(folder.join("text"), &text).expect("the folder is ours");
    let (_, before) = train(&folder, &format!("{arguments} --save saved --stop-after 1"));
    let (_, resumed) = train(&folder, &format!("{arguments} --resume saved"));
    assert_eq!(resumed["checksum"], before["checksum"]);

    fs::write(folder.join("text"), text.replacen("sleep", "speel", 1)).expect("the folder is ours");
    let mut command = koala(&format!("train {arguments} --resume saved"));
    command.current_dir(&folder);
    let refused = outcome(command);
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("saved: it is of a run whose checksum is"), "{}", refused.stderr);
    let (_, after) = train(&folder, arguments);
    assert_ne!(after["checksum"], before["checksum"]);
}
