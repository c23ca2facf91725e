//! What the reader says about files that are not as they should be.

use std::path::PathBuf;
use std::{fs, io::Write};

use koala_trajectory::{Problem, Trajectory};

const GOOD: &str = r#"{
  "format": "koala-trajectory-1", "name": "small", "algorithm": "koala++",
  "config": {"sigma": 0.1, "q": 0.2, "weight_decay": 0.0, "lr": 0.5, "symmetric": true},
  "noise": {"ema": {"alpha": 0.9, "init": 1.0}},
  "sizes": [2, 1], "theta0": [[1.0, 2.0], [3]],
  "steps": [
    {"loss": 1.0, "loss_second_moment": 1.5, "grads": [[0.1, 0.2], [0.3]],
     "expect": {"theta": [[1.0, 2.0], [3.0]], "v": [[0.1, 0.1], [0.1]], "s": [1.0, 1.0], "r": 1.05}},
    {"loss": 0.9, "loss_second_moment": 1.2, "grads": [[0.1, 0.2], [0.3]]}
  ]
}"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn plain_and_gzipped_read_the_same() -> Result<(), Problem> {
    let trajectory = Trajectory::parse(GOOD.as_bytes())?;
    assert_eq!(trajectory.sizes, [2, 1]);
    assert_eq!(trajectory.steps[0].grads[0], [0.1, 0.2]);
    assert!(trajectory.steps[0].expect.is_some() && trajectory.steps[1].expect.is_none());
    assert_eq!(Trajectory::parse(&gzip(GOOD))?, trajectory);
    Ok(())
}

#[test]
fn faults_are_named_with_their_place() {
    for (from, to, said) in [
        ("trajectory-1", "trajectory-9", "format: it is `koala-trajectory-9`"),
        ("koala++", "koala-k", "algorithm: it is `koala-k`, which this version does not have"),
        ("koala++", "koala-m", "config: missing field `sw`"),
        ("\"sizes\": [2, 1]", "\"sizes\": [2, 2]", "theta0[1]: has 1 entries, but by `sizes` it should have 2"),
        ("\"sizes\": [2, 1]", "\"sizes\": [2]", "theta0: has 2 entries, but by `sizes` it should have 1"),
        ("\"grads\": [[0.1, 0.2], [0.3]],", "\"grads\": [[0.1], [0.3]],", "steps[0].grads[0]: has 1 entries"),
        ("\"v\": [[0.1, 0.1], [0.1]]", "\"v\": []", "steps[0].expect.v: has 0 entries"),
        ("\"s\": [1.0, 1.0]", "\"s\": [1.0]", "steps[0].expect.s: has 1 entries"),
        ("\"theta\": [[1.0, 2.0]", "\"theta\": [[1.0, null]", "steps[0].expect.theta[0][1]: invalid type: null"),
        ("\"q\": 0.2, ", "", "config: missing field `q` at line 3"),
        ("\"ema\"", "\"random\"", "noise: unknown variant `random`"),
        ("0.9, \"loss_", "1e999, \"loss_", "number out of range at line 9"),
        ("\"expect\"", "\"expected\"", "steps: no step has expected values"),
        ("\"name\": \"small\", ", "\"name\": ", "line 2"),
    ] {
        let changed = GOOD.replacen(from, to, 1);
        assert_ne!(changed, GOOD, "{from} is in the text");
        let problem = Trajectory::parse(changed.as_bytes()).expect_err(said).to_string();
        assert!(problem.contains(said), "{said:?} expected, but it said {problem:?}");
    }
}

#[test]
fn cut_off_anywhere_is_an_error() {
    let packed = gzip(GOOD);
    for bytes in [GOOD.as_bytes(), &packed] {
        for length in 0..bytes.len() {
            assert!(Trajectory::parse(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }
    assert!(Trajectory::parse(format!("{GOOD}{{}}").as_bytes()).is_err(), "something follows");
}

#[test]
fn errors_name_the_file() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let missing = folder.join("missing.json");
    let error = Trajectory::read(&missing).expect_err("there is none");
    assert!(matches!(error.problem, Problem::Io(_)));
    assert!(error.to_string().starts_with(&missing.display().to_string()));

    let wrong = folder.join("wrong.json");
    fs::write(&wrong, "{").expect("the folder is for this");
    let error = Trajectory::read(&wrong).expect_err("it is not whole").to_string();
    assert!(error.contains("wrong.json: EOF while parsing an object at line 1 column 1"), "{error}");
}
