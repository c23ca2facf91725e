//! `koala train --text`: a language model of characters.

use std::fs;
use std::path::Path;

use crate::train::train;
use crate::{Outcome, folder, koala, outcome};

/// Sentences that a model can learn within seconds: three words, again and again, in an order that looks random.
fn write_sentences(folder: &Path) {
    let words =
        (0..400_u32).map(|i| ["koala ", "eats ", "leaves, "][(i.wrapping_mul(2_654_435_761) >> 16) as usize % 3]);
    fs::write(folder.join("sentences.txt"), words.collect::<String>()).expect("the folder is ours");
}

#[test]
fn a_language_model_learns_words() {
    let folder = folder("text-words");
    write_sentences(&folder);
    let (train, record) = train(&folder, "--text sentences.txt --epochs 4 --batch 4 --results results");
    assert!(train.stdout.contains("sentences.txt: 2"), "{}", train.stdout);
    assert!(
        train.stdout.contains("10 different ones") && train.stdout.contains("bits per character"),
        "{}",
        train.stdout
    );
    assert_eq!((&record["network"], &record["data"]), (&"transformer".into(), &"sentences.txt".into()));
    for run in record["runs"].as_array().expect("a list") {
        let losses = run["epochs"].as_array().expect("a list").iter().filter_map(|epoch| epoch["test_loss"].as_f64());
        let losses: Vec<f64> = losses.collect();
        // Guessing by how common each character is costs 2.2 nats; knowing the words, ln 3 at each one's beginning.
        assert!(losses.len() == 4 && losses[3] < 1.2, "{run}");
    }
    let picture = fs::read_to_string(folder.join("koala-train.svg")).expect("it was drawn");
    assert!(picture.contains("Bits per character, test") && picture.contains(" bits"));
    let names = fs::read_dir(folder.join("results")).expect("it was made");
    let names = names.map(|entry| entry.expect("it is ours").file_name().to_string_lossy().into_owned());
    assert!(names.into_iter().all(|name| name.starts_with("sentences.txt_transformer_")));
}

#[test]
fn texts_that_can_not_be_learnt_are_refused() {
    let folder = folder("text-refused");
    let refused = |arguments: &str| -> Outcome {
        let mut command = koala(&format!("train {arguments}"));
        command.current_dir(&folder);
        outcome(command)
    };
    for (bytes, said) in [
        (&b"too short"[..], "file.txt: a text of 9 characters is too short: a tenth of it must be at least 65"),
        (&[b'a'; 649], "file.txt: a text of 649 characters is too short"),
        (&[b'a'; 650], "file.txt: the text consists of one character, 'a', again and again"),
        (&[b'a', b'b', 0xff, b'c'], "file.txt: this is not UTF-8 text: see byte 2"),
        (&[], "file.txt: a text of 0 characters is too short"),
    ] {
        fs::write(folder.join("file.txt"), bytes).expect("the folder is ours");
        let refused = refused("--text file.txt");
        assert_eq!(refused.status, Some(1), "{said}");
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    for (arguments, status, said) in [
        ("--text missing.txt", 1, "missing.txt: cannot be read: No such file"),
        ("--text .", 1, ".: cannot be read"),
        ("--text file.txt --data .", 2, "--data"),
        ("--text file.txt --model mlp", 2, "--model"),
    ] {
        let refused = refused(arguments);
        assert_eq!(refused.status, Some(status), "{arguments}");
        assert!(refused.stderr.contains(said), "{arguments}: {}", refused.stderr);
    }
}
