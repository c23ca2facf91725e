//! Where results go: devices, FIFOs and links stay what they are, and no file is written twice, or over what was read.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::data::write_stripes;
use crate::{Outcome, folder, koala, outcome};

/// As short as a training can be, in `folder`.
fn train(folder: &Path, more: &str) -> Outcome {
    let mut command = koala("train --optimizer sgd --epochs 1 --samples-per-epoch 32");
    command.args(more.split_whitespace()).current_dir(folder);
    outcome(command)
}

/// What `koala bench` would write about nothing.
pub const RECORD: &str = r#"{"schema": "koala-bench-1", "version": "0", "date": "", "quick": true, "seconds": 1,
    "processor": {"name": "one", "architecture": "", "threads": 1, "features": [], "caches": [], "memory_bytes": 1},
    "limits": [], "passes": [], "small": [], "models": [], "advice": {"backend": "scalar", "slower_by": []}}"#;

#[test]
fn two_results_in_one_file_are_refused() {
    let folder = folder("outputs-distinct");
    fs::create_dir(folder.join("sub")).expect("the folder is ours");
    fs::write(folder.join("text"), "wise koalas sleep. ".repeat(60)).expect("the folder is ours");
    let absolute = folder.join("x").display().to_string();
    for (arguments, options) in [
        ("train --plot x --json x", ["--plot", "--json"]),
        ("train --plot x --json sub/../x", ["--plot", "--json"]),
        (&format!("train --plot {absolute} --json ./x"), ["--plot", "--json"]),
        ("train --optimizer sgd --save x --json ./x", ["--save", "--json"]),
        ("train --json koala-train.svg", ["--plot", "--json"]),
        ("train --optimizer sgd --resume text --json text", ["--resume", "--json"]),
        ("train --text text --plot sub/../text", ["--text", "--plot"]),
        ("train --text text --optimizer sgd --save text", ["--text", "--save"]),
        ("bench --quick --largest 6 --json x --page x", ["--json", "--page"]),
        ("bench --compare text --page text", ["--compare", "--page"]),
    ] {
        let mut command = koala(arguments);
        command.current_dir(&folder);
        let refused = outcome(command);
        assert_eq!((refused.status, &*refused.stdout), (Some(1), ""), "{arguments}: {}", refused.stderr);
        let said = format!("{} and {} lead to the same file", options[0], options[1]);
        assert!(refused.stderr.contains(&said), "{arguments}: {}", refused.stderr);
    }
    assert_eq!(fs::read_dir(&folder).expect("it is ours").count(), 2);
    // Where it goes on from may be where it gets to.
    let saved = train(&folder, "--save saved");
    assert_eq!(saved.status, Some(0), "{}", saved.stderr);
    let resumed = train(&folder, "--save saved --resume saved");
    assert_eq!(resumed.status, Some(0), "{}", resumed.stderr);
}

/// Under whatever name of those by which MNIST is distributed.
#[test]
fn the_data_is_not_written_over() {
    let folder = folder("outputs-data");
    let data = folder.join("data");
    fs::create_dir(&data).expect("the folder is ours");
    write_stripes(&data, 40, 12);
    fs::write(data.join("train-images.idx3-ubyte.gz"), "the same, packed").expect("the folder is ours");
    let contents =
        || ["t10k-labels-idx1-ubyte", "train-images.idx3-ubyte.gz"].map(|name| fs::read(data.join(name)).ok());
    let before = contents();
    for (arguments, option) in [
        ("--plot data/t10k-labels-idx1-ubyte", "plot"),
        ("--json data/t10k-labels-idx1-ubyte", "json"),
        ("--save data/../data/t10k-labels-idx1-ubyte", "save"),
        ("--plot data/train-images.idx3-ubyte.gz", "plot"),
    ] {
        let refused = train(&folder, &format!("--model mlp --data data {arguments}"));
        let said = format!("--data and --{option} lead to the same file");
        assert!(refused.stderr.contains(&said), "{arguments}: {}", refused.stderr);
        assert_eq!((refused.status, contents()), (Some(1), before.clone()), "{arguments}");
    }
    // Beside them is a place like any other.
    let trained = train(&folder, "--model mlp --data data --plot data/plot.svg");
    assert_eq!(trained.status, Some(0), "{}", trained.stderr);
}

/// One of two results by one name would be lost: another file may not have a name such as a run's has.
#[test]
fn the_names_of_runs_are_theirs() {
    let folder = folder("outputs-results");
    let made = || {
        let files = fs::read_dir(folder.join("results")).expect("it is ours");
        files.map(|file| file.expect("it is there").file_name().into_string().expect("it is text")).collect::<Vec<_>>()
    };
    let trained = train(&folder, "--results results");
    assert_eq!(trained.status, Some(0), "{}", trained.stderr);
    let names = made();
    let [name] = &names[..] else { panic!("{names:?}") };
    fs::remove_file(folder.join("results").join(name)).expect("it is ours");
    for option in ["json", "plot", "save"] {
        for path in [format!("results/{name}"), format!("results/../results/{name}")] {
            let refused = train(&folder, &format!("--results results --{option} {path}"));
            let said = format!("--{option}: {path}: --results may write a file of such a name there");
            assert!(refused.stderr.contains(&said), "{path}: {}", refused.stderr);
            assert_eq!((refused.status, made().len()), (Some(1), 0), "{path}");
        }
    }
    for more in [format!("--json {name}"), "--json results/all.json --plot results/plot.svg".to_owned()] {
        let trained = train(&folder, &format!("--results results {more}"));
        assert_eq!(trained.status, Some(0), "{}", trained.stderr);
    }
    assert_eq!(made().len(), 3);
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn make_fifo(path: &Path) {
        assert!(Command::new("mkfifo").arg(path).status().expect("it is a program of the system's").success());
    }

    /// A device of our own such as /dev/null is, if that can be made here. Never the system's: where this test fails, as
    /// root, it would be gone.
    fn make_device(path: &Path) -> bool {
        let made = Command::new("mknod").arg(path).args(["c", "1", "3"]).stderr(Stdio::null()).status();
        let usable = made.is_ok_and(|status| status.success()) && File::options().write(true).open(path).is_ok();
        if !usable {
            println!("skipped for a device: only root may make one, and not everywhere");
        }
        usable
    }

    /// What comes out of a FIFO when the next one who writes to it is done.
    fn read_from(fifo: &Path) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        let fifo = fifo.to_owned();
        thread::spawn(move || sender.send(fs::read_to_string(fifo).unwrap_or_default()));
        receiver
    }

    fn in_time<T>(receiver: &mpsc::Receiver<T>) -> T {
        receiver.recv_timeout(Duration::from_secs(120)).expect("nobody waits for ever")
    }

    #[test]
    fn fifos_are_written_to_and_stay() {
        let folder = folder("outputs-fifo");
        make_fifo(&folder.join("fifo"));
        symlink("fifo", folder.join("link")).expect("the folder is ours");
        for (arguments, starts) in [
            ("--plot fifo", "<svg"),
            ("--plot x --json fifo", "{"),
            ("--plot link", "<svg"),
            ("--plot x --json link", "{"),
        ] {
            let read = read_from(&folder.join("fifo"));
            let trained = train(&folder, arguments);
            assert_eq!(trained.status, Some(0), "{arguments}: {}", trained.stderr);
            let text = in_time(&read);
            assert!(text.starts_with(starts) && text.trim_end().ends_with(['}', '>']), "{arguments}: {text}");
            assert!(fs::metadata(folder.join("fifo")).expect("it is there").file_type().is_fifo());
            assert!(fs::symlink_metadata(folder.join("link")).expect("it is there").is_symlink());
        }
        // Two results in it would be none.
        let refused = train(&folder, "--plot fifo --json link");
        assert!(refused.stderr.contains("--plot and --json lead to the same file"), "{}", refused.stderr);
    }

    #[test]
    fn devices_are_written_to_and_stay() {
        let folder = folder("outputs-device");
        let device = folder.join("device");
        if !make_device(&device) {
            return;
        }
        symlink("device", folder.join("link")).expect("the folder is ours");
        fs::set_permissions(&device, fs::Permissions::from_mode(0o620)).expect("it is ours");
        let told = |path: &str| {
            let found = fs::metadata(folder.join(path)).expect("it is there");
            (found.ino(), found.mode(), found.rdev())
        };
        let before = told("device");
        fs::write(folder.join("record"), RECORD).expect("the folder is ours");
        for arguments in ["--plot device --json device", "--plot link --json link"] {
            let trained = train(&folder, arguments);
            assert_eq!(trained.status, Some(0), "{arguments}: {}", trained.stderr);
        }
        let mut command = koala("bench --compare record --page device");
        command.current_dir(&folder);
        let compared = outcome(command);
        assert_eq!(compared.status, Some(0), "{}", compared.stderr);
        assert_eq!(told("device"), before);
        assert_eq!(told("link"), before);
        assert!(fs::symlink_metadata(folder.join("link")).expect("it is there").is_symlink());
        assert_eq!(fs::read_dir(&folder).expect("it is ours").count(), 3);
        // A state can't be read from there, so it is not written there either.
        let refused = train(&folder, "--save device");
        assert_eq!((refused.status, &*refused.stdout), (Some(1), ""));
        assert!(refused.stderr.contains("device: cannot be written: not a regular file"), "{}", refused.stderr);
        assert_eq!(told("device"), before);
    }

    #[test]
    fn what_takes_no_text_is_refused() {
        let folder = folder("outputs-socket");
        let _listener = std::os::unix::net::UnixListener::bind(folder.join("socket")).expect("the folder is ours");
        let refused = train(&folder, "--plot socket");
        assert_eq!((refused.status, &*refused.stdout), (Some(1), ""));
        assert!(refused.stderr.contains("socket: this is neither a file nor a device"), "{}", refused.stderr);
        assert!(fs::metadata(folder.join("socket")).expect("it is there").file_type().is_socket());
    }

    #[test]
    fn links_are_followed_and_permissions_kept() {
        let folder = folder("outputs-links");
        fs::create_dir(folder.join("elsewhere")).expect("the folder is ours");
        for name in ["plot", "json", "saved"] {
            symlink(format!("elsewhere/{name}"), folder.join(name)).expect("the folder is ours");
        }
        let target = |name: &str| folder.join("elsewhere").join(name);
        fs::write(target("plot"), "old").expect("the folder is ours");
        fs::set_permissions(target("plot"), fs::Permissions::from_mode(0o600)).expect("it is ours");
        // The others lead to what is not there yet.
        let trained = train(&folder, "--plot plot --json json --save saved");
        assert_eq!(trained.status, Some(0), "{}", trained.stderr);
        for name in ["plot", "json", "saved"] {
            assert!(fs::symlink_metadata(folder.join(name)).expect("it is there").is_symlink(), "{name}");
            assert!(fs::symlink_metadata(target(name)).expect("it is there").is_file(), "{name}");
        }
        assert!(fs::read_to_string(target("plot")).expect("it is text").starts_with("<svg"));
        assert_eq!(fs::metadata(target("plot")).expect("it is there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.join("elsewhere")).expect("it is ours").count(), 3);
        let refused = train(&folder, "--plot plot --json elsewhere/plot");
        assert!(refused.stderr.contains("lead to the same file"), "{}", refused.stderr);
        fs::remove_file(target("json")).expect("it is ours");
        let refused = train(&folder, "--plot elsewhere/json --json json");
        assert!(refused.stderr.contains("lead to the same file"), "{}", refused.stderr);
    }

    /// As /dev/stdout leads there. The file that it is redirected to is not replaced: what is printed would be lost.
    #[test]
    fn standard_output_is_written_to() {
        let folder = folder("outputs-stdout");
        let arguments = "--json /proc/self/fd/1";
        if !Path::new("/proc/self/fd/1").exists() {
            println!("skipped: there is no /proc");
            return;
        }
        let piped = train(&folder, arguments);
        let mut command = koala("train --optimizer sgd --epochs 1 --samples-per-epoch 32");
        command.args(arguments.split_whitespace()).current_dir(&folder).stderr(Stdio::null());
        let file = File::create(folder.join("out")).expect("the folder is ours");
        assert!(command.stdout(file).status().expect("the command starts").success());
        let filed = fs::read_to_string(folder.join("out")).expect("it is text");
        assert_eq!(piped.status, Some(0), "{}", piped.stderr);
        for printed in [piped.stdout, filed] {
            let (start, end) = (printed.find("\n{\n"), printed.rfind("\n}"));
            let json = &printed[start.expect("it is there")..end.expect("it ends") + 2];
            assert!(serde_json::from_str::<Value>(json).is_ok(), "{printed}");
            assert!(printed.starts_with("Data: ") || printed.contains("Training: "), "{printed}");
            assert!(printed.ends_with("Curves: koala-train.svg\n"), "{printed}");
        }
    }

    /// A state would replace what is printed.
    #[test]
    fn a_state_is_not_saved_where_standard_output_goes() {
        let folder = folder("outputs-save-stdout");
        fs::create_dir(folder.join("sub")).expect("the folder is ours");
        for path in ["out", "sub/../out"] {
            let mut command = koala("train --optimizer sgd --epochs 1 --samples-per-epoch 32 --save");
            command.arg(path).current_dir(&folder);
            let file = File::create(folder.join("out")).expect("the folder is ours");
            let refused =
                command.stdout(file).stderr(Stdio::piped()).spawn().and_then(|child| child.wait_with_output());
            let refused = refused.expect("the command starts");
            assert_eq!(refused.status.code(), Some(1), "{path}");
            let said = format!("{path}: standard output goes there, and --save would replace it");
            let stderr = String::from_utf8_lossy(&refused.stderr);
            assert!(stderr.contains(&said), "{stderr}");
            assert_eq!(fs::read(folder.join("out")).expect("it is there"), b"");
        }
    }

    /// Such a file can't be gone on from; nobody waits for what may never be written to it.
    #[test]
    fn a_state_is_read_from_files_only() {
        let folder = folder("outputs-resume");
        make_fifo(&folder.join("fifo"));
        for arguments in ["--resume fifo", "--resume .", "--save fifo"] {
            let (sender, receiver) = mpsc::channel();
            let at = folder.clone();
            thread::spawn(move || sender.send(train(&at, arguments)));
            let refused = in_time(&receiver);
            assert_eq!(refused.status, Some(1), "{arguments}");
            assert!(refused.stderr.contains("not a regular file"), "{arguments}: {}", refused.stderr);
        }
        assert!(fs::metadata(folder.join("fifo")).expect("it is there").file_type().is_fifo());
    }

    /// Text and records may come from other programs; but not what has no end.
    #[test]
    fn a_text_may_come_from_a_fifo() {
        let folder = folder("outputs-text");
        make_fifo(&folder.join("fifo"));
        let fifo = folder.join("fifo");
        let writer = thread::spawn(move || fs::write(fifo, "wise koalas sleep. ".repeat(60)));
        let trained = train(&folder, "--text fifo");
        assert_eq!(trained.status, Some(0), "{}", trained.stderr);
        writer.join().expect("it was read").expect("it was read to its end");
        let endless = File::create(folder.join("endless")).expect("the folder is ours");
        endless.set_len((1 << 30) + 1).expect("it has no contents");
        let refused = train(&folder, "--text endless");
        assert_eq!(refused.status, Some(1));
        assert!(refused.stderr.contains("endless: cannot be read: it has more than"), "{}", refused.stderr);
    }
}
