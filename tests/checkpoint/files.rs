//! Files that are cut short, have changed, or are something else: an error, and the optimizer as it was.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use koala_optim::checkpoint::{Error, Loading};
use koala_optim::{AdamW, Config, KoalaM, KoalaV, Method, Sgd};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

use super::model::{Model, Plan, State, all, small, small_model, tiny};

/// The bytes of a small checkpoint, and an optimizer of the same model that knows something else.
struct Setup {
    folder: TempDir,
    bytes: Vec<u8>,
    model: Model,
    before: (State, String),
}

impl Setup {
    fn new() -> Self {
        Self::of(&small())
    }

    fn of(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("whole.safetensors");
        let mut model = Model::new(plan, Config::default());
        model.step(0..4);
        model.checkpoint().with_note("epoch", "3").write(&file).unwrap();
        let bytes = fs::read(&file).unwrap();
        let mut model = Model::new(plan, Config::default());
        model.step(0..2);
        let before = all(&model.optimizer);
        Setup { folder, bytes, model, before }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    /// What loading a file of these bytes gives. An error has to leave everything as it was.
    fn load(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // In place: file systems flush what is truncated first, which takes long.
        let mut file = File::options().create(true).truncate(false).write(true).open(self.file()).unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        let result = self.model.optimizer.load(self.file(), Loading::Exact);
        if let Err(error) = &result {
            assert_eq!(all(&self.model.optimizer), self.before, "{error}");
            assert!(error.to_string().starts_with(&*self.file().to_string_lossy()), "{error}");
        }
        result.map(drop)
    }
}

/// The same bytes with the checksum that belongs to them.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 8);
    let checksum = xxh3_64(&bytes).to_be_bytes();
    bytes.extend(checksum);
    bytes
}

/// Where in the data a tensor ends.
fn end_in_data(bytes: &[u8], tensor: &str) -> usize {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..][..header]).unwrap();
    header[tensor]["data_offsets"][1].as_u64().unwrap() as usize
}

/// With one text for another of the same length.
fn replaced(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let place = bytes.windows(old.len()).position(|window| window == old.as_bytes());
    let place = place.unwrap_or_else(|| panic!("{old} is not there"));
    let mut bytes = bytes.to_vec();
    bytes[place..][..new.len()].copy_from_slice(new.as_bytes());
    bytes
}

#[test]
fn the_whole_file_loads() {
    let mut setup = Setup::new();
    let bytes = setup.bytes.clone();
    assert_eq!(sealed(bytes.clone()), bytes);
    setup.load(&bytes).unwrap();
    assert_eq!(all(&setup.model.optimizer), all(&small_model(4).optimizer));
    assert_ne!(all(&setup.model.optimizer), setup.before);
}

/// Each byte with each of its other 255 values.
fn every_byte_that_changes_is_seen(method: Method) {
    let mut setup = Setup::of(&tiny(method));
    let bytes = setup.bytes.clone();
    setup.load(&bytes).unwrap();
    let before = all(&setup.model.optimizer);
    let mut file = File::options().write(true).open(setup.file()).unwrap();
    let mut put = |place: usize, byte: u8| {
        file.seek(SeekFrom::Start(place as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    for (place, &byte) in bytes.iter().enumerate() {
        for other in (0..=u8::MAX).filter(|other| *other != byte) {
            put(place, other);
            let loaded = setup.model.optimizer.load(setup.file(), Loading::Exact);
            assert!(loaded.is_err(), "byte {place} is {other:#x}, not {byte:#x}");
        }
        put(place, byte);
        assert_eq!(all(&setup.model.optimizer), before, "byte {place}");
    }
    setup.load(&bytes).unwrap();
}

#[test]
fn every_byte_that_changes_is_seen_in_a_file_of_koala_plus_plus() {
    every_byte_that_changes_is_seen(Method::default());
}

/// Which has numbers that all tensors share.
#[test]
fn every_byte_that_changes_is_seen_in_a_file_of_koala_m() {
    every_byte_that_changes_is_seen(Method::KoalaM(KoalaM::default()));
}

/// What a checksum cannot see, because it is right: no panic, then and in the next step, and an error changes nothing.
#[test]
fn a_byte_that_was_changed_before_the_checksum_was_taken() {
    let mut setup = Setup::new();
    let bytes = setup.bytes.clone();
    let (mut loaded, mut refused) = (0, 0);
    for place in 0..bytes.len() - 8 {
        for mask in [0x01, 0x10, 0x80] {
            let mut changed = bytes.clone();
            changed[place] ^= mask;
            match setup.load(&sealed(changed)) {
                Ok(()) => {
                    loaded += 1;
                    setup.model.predict(4);
                    // A policy that became another one may make it an error.
                    let _ = setup.model.correct(4);
                    setup.model = small_model(2);
                }
                Err(_) => refused += 1,
            }
        }
    }
    // The data, the caller's notes and the library's version; the rest of the header.
    assert!(loaded > 300 && refused > 2000, "{loaded}, {refused}");
}

#[test]
fn every_length_but_the_right_one() {
    let mut setup = Setup::new();
    let bytes = setup.bytes.clone();
    for length in 0..bytes.len() {
        let error = setup.load(&bytes[..length]).unwrap_err();
        assert!(matches!(error, Error::NotACheckpoint { .. } | Error::Damaged { .. }), "{length}: {error}");
    }
    for more in [1, 8, 100_000] {
        let longer = [&bytes[..], &vec![0; more]].concat();
        let error = setup.load(&longer).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(setup.load(&sealed(longer)).is_err());
    }
}

#[test]
fn other_versions_of_the_format() {
    let mut setup = Setup::new();
    let bytes = setup.bytes.clone();
    let version =
        |text: &str| replaced(&bytes, "\"koala-checkpoint\":\"1\"", &format!("\"koala-checkpoint\":\"{text}\""));
    let newer = version("2");
    // A newer one may have another checksum, or none.
    for bytes in [newer.clone(), sealed(newer)] {
        let error = setup.load(&bytes).unwrap_err();
        assert!(matches!(error, Error::Newer { found: 2, supported: 1, .. }), "{error}");
    }
    for text in ["0", "x", " "] {
        let error = setup.load(&sealed(version(text))).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}

#[test]
fn unknown_metadata_is_ignored() {
    let mut setup = Setup::new();
    // Of a later version of the library that has more to say, in the same format; in the header and in what it says.
    let bytes = replaced(&setup.bytes, "\"note/epoch\":", "\"knot/epoch\":");
    let bytes = replaced(&bytes, r#"\"frozen\":false"#, r#"\"thawed\":false"#);
    let error = setup.load(&sealed(bytes)).unwrap_err().to_string();
    assert!(error.contains("missing field `frozen`"), "{error}");
    let bytes = replaced(&setup.bytes, "\"note/epoch\":", "\"knot/epoch\":");
    setup.load(&sealed(bytes)).unwrap();
    assert_eq!(all(&setup.model.optimizer), all(&small_model(4).optimizer));
}

#[test]
fn numbers_that_no_optimizer_has() {
    let mut setup = Setup::new();
    for (old, new, what) in [
        (r#"\"weight_decay\":0.01"#, r#"\"weight_decay\":-0.1"#, "the weight decay is -0.1"),
        (r#"\"noise\":0.9"#, r#"\"noise\":-.9"#, "optimizer entry"),
        (r#"\"noise\":0.90"#, r#"\"noise\":-0.9"#, "the measurement noise is -0.9"),
        (r#"\"decay\":0.9"#, r#"\"decay\":1.9"#, "the noise decay is 1.9"),
        (r#"\"group\":1"#, r#"\"group\":2"#, "group 2"),
        (r#"\"length\":5"#, r#"\"length\":4"#, "\"state/weight/v\""),
        (r#"\"steps\":4"#, r#"\"steps\":x"#, "optimizer entry"),
        ("state/bias/v", "state/bias/w", "\"state/bias/v\""),
        ("state/bias/scalars", "state/bias/scalard", "\"state/bias/scalars\""),
        ("checksum", "checksun", "checksum"),
    ] {
        let error = setup.load(&sealed(replaced(&setup.bytes, old, new))).unwrap_err();
        assert!(matches!(&error, Error::Damaged { reason, .. } if reason.contains(what)), "{error}");
    }
}

/// A count that the next step could not count on from, in the metadata and among a tensor's scalars.
#[test]
fn more_steps_than_anybody_takes() {
    let mut setup = Setup::new();
    let bytes = setup.bytes.clone();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let with_steps = |steps: u64| {
        let (old, new) = (r#"\"steps\":4"#, format!(r#"\"steps\":{steps}"#));
        let text = std::str::from_utf8(&bytes[8..][..header]).unwrap().trim_end().replace(old, &new);
        let text = format!("{text:<width$}", width = text.len().next_multiple_of(8));
        sealed([&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[8 + header..]].concat())
    };
    let with_steps_of_bias = |steps: f64| {
        // The last of its scalars.
        let end = 8 + header + end_in_data(&bytes, "state/bias/scalars");
        sealed([&bytes[..end - 8], &steps.to_le_bytes(), &bytes[end..]].concat())
    };
    let mut refused = |bytes: &[u8], what: &str| {
        let error = setup.load(bytes).unwrap_err();
        assert!(matches!(&error, Error::Damaged { reason, .. } if reason.contains(what)), "{error}");
    };
    for steps in [1 << 53, (1 << 53) + 1, u64::MAX] {
        refused(&with_steps(steps), "the number of steps is");
    }
    for steps in [2_f64.powi(53), 2_f64.powi(53) + 2.0, 2_f64.powi(64), f64::INFINITY, f64::NAN, -1.0] {
        refused(&with_steps_of_bias(steps), "\"state/bias/scalars\"");
    }
    // What loads can be stepped, saved and loaded again.
    for bytes in [with_steps((1 << 53) - 1), with_steps_of_bias(2_f64.powi(53) - 1.0)] {
        setup.load(&bytes).unwrap();
        setup.model.step(4..6);
        setup.model.optimizer.save(setup.file()).unwrap();
        setup.model.optimizer.load(setup.file(), Loading::Exact).unwrap();
    }
}

/// Whose checksum is right. A tensor that has not stepped yet has zeros, and after any step h·h and S are above zero.
#[test]
fn scalars_that_no_step_leaves() {
    let mut setup = Setup::new();
    let bytes = setup.bytes.clone();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let with = |place: usize, value: f64| {
        let start = 8 + header + end_in_data(&bytes, "state/bias/scalars") - 32 + 8 * place;
        sealed([&bytes[..start], &value.to_le_bytes(), &bytes[start + 8..]].concat())
    };
    let (h_h, h_v, s) = (0, 1, 2);
    for (place, values) in [
        (h_h, &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0, 0.0][..]),
        (h_v, &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        (s, &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0]),
    ] {
        for &value in values {
            let error = setup.load(&with(place, value)).expect_err(&format!("{place}: {value}"));
            let said = "\"state/bias/scalars\" are";
            assert!(matches!(&error, Error::Damaged { reason, .. } if reason.contains(said)), "{error}");
        }
    }
    for (place, value) in [(h_h, f64::MIN_POSITIVE), (h_h, 5e-324), (h_v, 0.0), (h_v, -1.0), (s, f64::MAX)] {
        setup.load(&with(place, value)).unwrap_or_else(|error| panic!("{place}, {value}: {error}"));
    }
}

/// Of every method, before its first step, after one that was skipped, and later, beside tensors without elements.
#[test]
fn scalars_that_steps_leave() {
    let adamw = Method::AdamW(AdamW::default());
    let (koala_v, koala_m) = (Method::KoalaV(KoalaV::default()), Method::KoalaM(KoalaM::default()));
    let sgd = |momentum| Method::Sgd(Sgd { momentum, ..Sgd::default() });
    for method in [Method::default(), koala_v, koala_m, adamw, sgd(0.0), sgd(0.9)] {
        for rough in [false, true] {
            let plan = Plan { rough, method, ..small() };
            for steps in [0, 1, 2, 12] {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("file");
                let mut model = Model::new(&plan, Config::default());
                model.step(0..steps);
                model.optimizer.save(&file).unwrap();
                let mut other = Model::new(&plan, Config::default());
                let loaded = other.optimizer.load(&file, Loading::Exact);
                loaded.unwrap_or_else(|error| panic!("{method:?}, {steps} steps: {error}"));
                assert_eq!(all(&other.optimizer), all(&model.optimizer));
            }
        }
    }
}

/// Of which others take the last: of one who looks at a file, and one who loads it, each could see something else.
#[test]
fn what_is_there_twice() {
    let mut setup = Setup::new();
    let bytes = setup.bytes.clone();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let with = |old: &str, new: &str| {
        let text = std::str::from_utf8(&bytes[8..][..header]).unwrap().trim_end();
        assert_eq!(text.matches(old).count(), 1, "{old}");
        let text = text.replace(old, new);
        let text = format!("{text:<width$}", width = text.len().next_multiple_of(8));
        sealed([&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[8 + header..]].concat())
    };
    let note = r#""note/epoch":"3""#;
    let mut untouched = Setup::new();
    untouched.load(&with(note, note)).unwrap();
    let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    for (old, new, what) in [
        (r#"{"__metadata__""#, r#"{"__metadata__":{},"__metadata__""#, "\"__metadata__\" is in it twice"),
        (note, r#""note/epoch":"2","note/epoch":"3""#, "\"note/epoch\" is in it twice"),
        (r#""checksum":"#, &format!(r#""checksum":{empty},"checksum":"#), "\"checksum\" is in it twice"),
        (r#""tensor/weight":"#, &format!(r#""tensor/weight":{empty},"tensor/weight":"#), "is in it twice"),
        (r#"\"predicted\":"#, r#"\"predicted\":true,\"predicted\":"#, "duplicate field `predicted`"),
        (r#"\"name\":\"half\""#, r#"\"name\":\"half\",\"name\":\"half\""#, "duplicate field `name`"),
        (r#"\"name\":\"half\""#, r#"\"name\":\"bias\""#, "tensor \"bias\" is given twice"),
    ] {
        let error = setup.load(&with(old, new)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// A long header, of tensors without elements, or of metadata that nobody asks for: it takes the memory of a few such
/// headers, and not of many.
#[cfg(target_os = "linux")]
#[test]
fn a_forged_header_is_not_worth_its_length() {
    const TEST: &str = "files::a_forged_header_is_not_worth_its_length";
    if let Some(file) = std::env::var_os("KOALA_FORGED") {
        let start = std::time::Instant::now();
        let error = small_model(1).optimizer.load(file, Loading::Exact).unwrap_err();
        assert!(error.to_string().contains("optimizer entry cannot be read"), "{error}");
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        println!("{} MiB, {:?}", peak >> 10, start.elapsed());
        assert!(peak >> 10 < 250, "{} MiB", peak >> 10);
        return;
    }
    let metadata = r#""koala-checkpoint":"1","optimizer":"{}""#;
    let checksum = r#""checksum":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}"#;
    let many = |entry: &dyn Fn(usize) -> String| {
        let mut entries = String::new();
        for number in 0.. {
            entries += &entry(number);
            if entries.len() > 30_000_000 {
                break;
            }
        }
        entries
    };
    let tensors = many(&|number| format!(r#""{number:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"#));
    let unknown = many(&|number| format!(r#","{number:x}":"""#));
    for header in [
        format!(r#"{{"__metadata__":{{{metadata}}},{tensors}{checksum}}}"#),
        format!(r#"{{"__metadata__":{{{metadata}{unknown}}},{checksum}}}"#),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("forged");
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
        fs::write(&file, sealed(bytes)).unwrap();
        let own = std::env::current_exe().unwrap();
        let mut again = std::process::Command::new(own);
        let output = again.args(["--exact", TEST, "--nocapture"]).env("KOALA_FORGED", &file).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{output:?}");
        print!("{printed}");
    }
}

#[test]
fn what_is_no_checkpoint() {
    let mut setup = Setup::new();
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let others: [(Vec<u8>, &str); 7] = [
        (Vec::new(), "it has 0 bytes"),
        (b"text".to_vec(), "it has 4 bytes"),
        (vec![b' '; 1000], "a header of 2314885530818453536 bytes would have to follow, and 992 bytes do"),
        (u64::MAX.to_le_bytes().to_vec(), "a header of 18446744073709551615 bytes"),
        (header("nonsense"), "its header cannot be read"),
        (header("{}"), "it has no koala-checkpoint entry"),
        (header(r#"{"weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#), "it has no koala-checkpoint entry"),
    ];
    for (bytes, what) in others {
        let error = setup.load(&bytes).unwrap_err();
        assert!(matches!(&error, Error::NotACheckpoint { reason, .. } if reason.contains(what)), "{error}");
    }
    // More than the memory of any machine, if the header were believed.
    let shape = (1_u64 << 57) - 1;
    let entry = r#""__metadata__":{"koala-checkpoint":"1"}"#;
    let huge = format!(r#"{{{entry},"x":{{"dtype":"F64","shape":[{shape}],"data_offsets":[0,{}]}}}}"#, 8 * shape);
    let error = setup.load(&header(&huge)).unwrap_err();
    assert!(matches!(&error, Error::Damaged { reason, .. } if reason.ends_with("and 0 do")), "{error}");

    let before = setup.before.clone();
    for missing in [setup.folder.path().join("nowhere"), setup.folder.path().into()] {
        let error = setup.model.optimizer.load(&missing, Loading::Exact).unwrap_err();
        assert!(matches!(&error, Error::File { path, .. } if *path == missing), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(all(&setup.model.optimizer), before);
    }
}
