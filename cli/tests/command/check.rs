//! `koala check`.

use std::fs;
use std::path::Path;

use koala_optim::Backend;
use serde_json::Value;

use crate::{Outcome, folder, koala, outcome};

fn embedded_file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trajectory/data").join(name);
    fs::read(path).expect("it is part of the project")
}

fn check(files: &[&Path], more: &str) -> Outcome {
    let mut command = koala("check");
    command.args(files).args(more.split_whitespace());
    outcome(command)
}

#[test]
fn this_machine_is_in_order() {
    let check = outcome(koala("check"));
    assert_eq!((check.status, &*check.stderr), (Some(0), ""));
    assert_eq!(check.stdout.matches("to the bit").count(), 24, "{}", check.stdout);
    assert!(check.stdout.ends_with("Everything is in order.\n"), "{}", check.stdout);
    for backend in Backend::present() {
        assert!(check.stdout.contains(backend.name()), "{}", check.stdout);
    }
}

#[test]
fn json_holds_every_number() -> serde_json::Result<()> {
    let record: Value = serde_json::from_str(&outcome(koala("check --json")).stdout)?;
    assert_eq!(record["passed"], true);
    assert_eq!(record["backends"].as_array().map(Vec::len), Some(Backend::present().len()));
    let files = record["files"].as_array().expect("a list");
    assert_eq!(files.len(), 24);
    for file in files {
        let precisions = file["precisions"].as_array().expect("a list");
        assert_eq!(precisions.len(), 5);
        for (i, precision) in precisions.iter().enumerate() {
            assert_eq!(precision["backends_agree"], true);
            for quantity in ["theta", "v", "s", "r"] {
                let error = precision[quantity].as_f64().expect("a number");
                assert!(error <= precision["tolerance"].as_f64().unwrap_or(0.1), "{file}");
            }
            // bf16 has 8 bits: an error of zero would mean that nothing was compared. KOALA-V has no state to be in bf16.
            let is_rounded = i > 2 || i == 2 && !file["file"].as_str().is_some_and(|name| name.starts_with("koalav"));
            assert!(!is_rounded || precision["theta"].as_f64() > Some(1e-6), "{file}");
        }
    }
    Ok(())
}

/// A recorded value that is wrong by a part in a million is found, in f64 but not in f32, and named.
#[test]
fn an_error_of_a_millionth_is_found() -> Result<(), Box<dyn std::error::Error>> {
    let folder = folder("check-millionth");
    let mut json = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(&*embedded_file("koalapp-sym-lanes-1.json.gz")),
        &mut json,
    )?;
    let mut trajectory: Value = serde_json::from_str(&json)?;
    let largest = &mut trajectory["steps"][11]["expect"]["s"][0];
    *largest = (largest.as_f64().ok_or("a number")? * (1.0 + 1e-6)).into();
    let path = folder.join("changed.json");
    fs::write(&path, trajectory.to_string())?;

    let check = check(&[&path], "");
    assert_eq!(check.status, Some(1));
    assert!(check.stdout.ends_with("FAILED.\n"), "{}", check.stdout);
    assert!(check.stderr.contains("changed.json: f64: s is off by"), "{}", check.stderr);
    assert!(!check.stderr.contains("f32"), "{}", check.stderr);
    Ok(())
}

#[test]
fn files_that_can_not_be_read_are_named_and_the_others_checked() -> Result<(), Box<dyn std::error::Error>> {
    let folder = folder("check-unreadable");
    let good = folder.join("good.json.gz");
    let packed = embedded_file("koalapp-van-lanes-0.json.gz");
    fs::write(&good, &packed)?;
    let cut = folder.join("cut.json.gz");
    fs::write(&cut, &packed[..packed.len() / 2])?;
    let other = folder.join("other.json");
    fs::write(&other, r#"{"format": "koala-trajectory-1", "algorithm": "koala-k"}"#)?;
    let broken = folder.join("broken.json");
    fs::write(&broken, "{\n  \"format\": 3\n}")?;
    let missing = folder.join("missing.json");

    let all = [&*good, &cut, &other, &broken, &missing, &folder];
    let check = check(&all, "");
    assert_eq!(check.status, Some(1));
    for (path, said) in [
        (&cut, ""),
        (&other, "algorithm: it is `koala-k`, which this version does not have"),
        (&broken, "format: invalid type: integer `3`, expected a string at line 2"),
        (&missing, "No such file"),
        (&folder, ""),
    ] {
        let line = check.stderr.lines().find(|line| line.starts_with(&format!("{}: ", path.display())));
        assert!(line.is_some_and(|line| line.contains(said)), "{}: {}", path.display(), check.stderr);
    }
    assert!(!check.stderr.contains("good.json.gz"), "{}", check.stderr);
    assert_eq!(check.stdout.matches("to the bit").count(), 1, "{}", check.stdout);
    assert_eq!(check.stdout.matches("not run").count(), 5, "{}", check.stdout);

    let only_good = self::check(&[&good], "--json");
    assert_eq!(only_good.status, Some(0));
    Ok(())
}
