//! Names with control characters: none of these gets into a picture, a page, or onto a terminal.

use std::fs;

use serde_json::Value;

use crate::outputs::RECORD;
use crate::{folder, koala, outcome};

/// Whether a text has what neither XML nor a terminal should get.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t' || c == '\u{ffff}')
}

#[cfg(unix)]
#[test]
fn names_of_files_are_escaped() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = folder("printable-names");
    let name = OsStr::from_bytes(b"a\x1b[31m<b>\n&\xff\x07");
    let shown = "a\\u{1b}[31m<b>\\n&\\xff\\u{7}";
    let train = |name: &OsStr, more: &str| {
        let mut command = koala("train --optimizer sgd --epochs 1 --samples-per-epoch 32 --json run.json --text");
        command.arg(name).args(more.split_whitespace()).current_dir(&folder);
        outcome(command)
    };
    let missing = train(name, "");
    assert_eq!(missing.status, Some(1));
    assert!(missing.stderr.starts_with(&format!("koala: {shown}: cannot be read: ")), "{}", missing.stderr);
    assert!(is_plain(&missing.stderr) && missing.stderr.lines().count() == 1, "{}", missing.stderr);

    fs::write(folder.join(name), "wise koalas sleep. ".repeat(60)).expect("the folder is ours");
    let trained = train(name, "--results results");
    assert_eq!(trained.status, Some(0), "{}", trained.stderr);
    assert!(is_plain(&trained.stdout) && is_plain(&trained.stderr) && trained.stdout.contains(shown));
    let picture = fs::read_to_string(folder.join("koala-train.svg")).expect("it was drawn");
    assert!(is_plain(&picture) && picture.contains("a\\u{1b}[31m&lt;b&gt;\\n&amp;\\xff\\u{7}"), "{picture}");
    let json = fs::read(folder.join("run.json")).expect("it was written");
    let record: Value = serde_json::from_slice(&json).expect("it is JSON");
    assert_eq!(record["data"], shown);

    // Where a result goes, and what is no checkpoint.
    let mut command = koala("train --optimizer sgd --epochs 1 --samples-per-epoch 32 --plot");
    command.arg(name).arg("--resume").arg(name).current_dir(&folder);
    let refused = outcome(command);
    assert!(
        refused.stderr.contains(&format!("--resume and --plot lead to the same file, {shown}")),
        "{}",
        refused.stderr
    );
    let mut command = koala("train --optimizer sgd --epochs 1 --samples-per-epoch 32 --resume");
    command.arg(name).current_dir(&folder);
    let refused = outcome(command);
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains(shown) && is_plain(&refused.stderr), "{}", refused.stderr);
    for arguments in ["check", "bench --compare"] {
        let mut command = koala(arguments);
        command.arg(name).current_dir(&folder);
        let refused = outcome(command);
        assert_eq!(refused.status, Some(1), "{arguments}");
        assert!(is_plain(&refused.stdout) && is_plain(&refused.stderr), "{arguments}: {}", refused.stderr);
        assert!(refused.stderr.contains(shown), "{arguments}: {}", refused.stderr);
    }
}

/// What others have measured may say anything.
#[test]
fn texts_of_records_are_escaped() {
    let folder = folder("printable-records");
    let mut record: Value = serde_json::from_str(RECORD).expect("it is JSON");
    let odd = Value::from("a\u{1b}]0;x\u{7}<odd>\u{ffff}");
    record["processor"]["name"] = odd.clone();
    record["processor"]["features"] = vec![odd.clone()].into();
    for name in ["version", "date"] {
        record[name] = odd.clone();
    }
    record["left_out"] = vec![odd.clone()].into();
    record["advice"] = serde_json::json!({"backend": odd, "slower_by": [[odd, 2.0]], "noise": null});
    fs::write(folder.join("record"), record.to_string()).expect("the folder is ours");
    let mut command = koala("bench --page page --compare record record");
    command.current_dir(&folder);
    let compared = outcome(command);
    assert_eq!(compared.status, Some(0), "{}", compared.stderr);
    let page = fs::read_to_string(folder.join("page")).expect("it was written");
    for text in [&compared.stdout, &page] {
        assert!(is_plain(text) && text.contains("a\\u{1b}]0;x\\u{7}"), "{text}");
    }
    assert!(page.contains("&lt;odd&gt;") && !page.contains("<odd>"));
}
