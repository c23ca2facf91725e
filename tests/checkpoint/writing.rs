//! Writing is all or nothing: when it fails, when it is killed, and whatever the name leads to.

use std::fs;
use std::path::Path;

use koala_optim::checkpoint::{Checkpoint, Error, Loading};

use super::model::{Model, all, small_model};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn where_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let model = small_model(1);
    let (file, none, directory) = ("file/run", "none/run", "folder");
    for name in [file, none, directory, "folder/..", "run/", "run/.", ""] {
        let path = if name.is_empty() { "".into() } else { folder.path().join(name) };
        let error = model.optimizer.save(&path).unwrap_err();
        assert!(matches!(&error, Error::File { path: found, .. } if *found == path), "{error}");
    }
    assert_eq!(names(folder.path()), ["file", "folder"]);
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"text");
    assert!(names(&folder.path().join("folder")).is_empty());
}

#[test]
fn a_name_without_a_folder_is_in_the_current_one() {
    // The tests' current folder is the package's.
    let name = format!("koala-checkpoint-{}.safetensors", std::process::id());
    let model = small_model(1);
    model.optimizer.save(&name).unwrap();
    let read = Checkpoint::read(&name);
    fs::remove_file(&name).unwrap();
    assert!(read.is_ok());
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn permissions_are_those_of_any_file_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (file, any) = (folder.path().join("run"), folder.path().join("any"));
        let model = small_model(1);
        model.optimizer.save(&file).unwrap();
        fs::write(&any, "").unwrap();
        assert_eq!(mode(&file), mode(&any));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        model.optimizer.save(&file).unwrap();
        assert_eq!(mode(&file), 0o640);
        assert_eq!(names(folder.path()), ["any", "run"]);
    }

    #[test]
    fn links_stay_links() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, target) = (folder.path().join("latest"), elsewhere.path().join("run"));
        symlink(&target, &link).unwrap();
        let model = small_model(1);
        fs::write(&target, "text").unwrap();
        model.optimizer.save(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(!fs::symlink_metadata(&target).unwrap().is_symlink());
        assert!(Checkpoint::read(&target).is_ok());
        assert_eq!(names(elsewhere.path()), ["run"]);
    }

    #[test]
    fn where_a_link_leads_that_leads_nowhere_is_the_file() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, next) = (folder.path().join("first"), folder.path().join("next"));
        let target = elsewhere.path().join("run");
        symlink("next", &first).unwrap();
        symlink(&target, &next).unwrap();
        let model = small_model(1);
        model.optimizer.save(&first).unwrap();
        assert!([&first, &next].iter().all(|link| fs::symlink_metadata(link).unwrap().is_symlink()));
        assert!(!fs::symlink_metadata(&target).unwrap().is_symlink());
        assert!(Checkpoint::read(&first).is_ok());

        // To a folder that is not there, and to each other.
        let (nowhere, circle) = (folder.path().join("nowhere"), folder.path().join("circle"));
        symlink(elsewhere.path().join("none").join("run"), &nowhere).unwrap();
        symlink("other", &circle).unwrap();
        symlink("circle", folder.path().join("other")).unwrap();
        for link in [&nowhere, &circle] {
            assert!(matches!(model.optimizer.save(link), Err(Error::File { .. })));
            assert!(fs::symlink_metadata(link).unwrap().is_symlink());
        }
        assert_eq!(names(folder.path()), ["circle", "first", "next", "nowhere", "other"]);
    }

    /// Whether a program of the system's could make something of that name. Never the system's own devices: where this
    /// test fails, as root, they would be gone.
    fn made(program: &str, file: &Path, arguments: &[&str]) -> bool {
        Command::new(program)
            .arg(file)
            .args(arguments)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Neither written to nor read from, directly or by a link; and nobody waits for the other end of a FIFO.
    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        assert!(made("mkfifo", &path("fifo"), &[]));
        let mut kinds = vec!["socket", "folder", "fifo"];
        // As /dev/null is.
        match made("mknod", &path("device"), &["c", "1", "3"]) {
            true => kinds.push("device"),
            false => println!("skipped for a device: only root may make one"),
        }
        for name in kinds {
            let link = path("link");
            symlink(path(name), &link).unwrap();
            for file in [path(name), link.clone()] {
                let before = fs::metadata(&file).unwrap();
                let (done, outcome) = std::sync::mpsc::channel();
                std::thread::spawn({
                    let file = file.clone();
                    move || {
                        let saved = small_model(1).optimizer.save(&file).map_err(|error| error.to_string());
                        let read = Checkpoint::read(&file).map(drop).map_err(|error| error.to_string());
                        done.send([saved, read])
                    }
                });
                let results = outcome.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{name}: waits"));
                for result in results {
                    let error = result.unwrap_err();
                    assert!(error.ends_with(&format!("{}: not a regular file", file.display())), "{error}");
                }
                let after = fs::metadata(&file).unwrap();
                assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()), "{name}");
            }
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            fs::remove_file(&link).unwrap();
        }
    }

    /// Every length that a file system takes, and, where that does, bytes that are no text.
    #[test]
    fn any_name_of_a_file_will_do() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;

        let model = small_model(1);
        let long = (1..=255).filter(|length| *length == 1 || *length > 200).map(|length| vec![b'n'; length]);
        let no_texts = [b"\xff\xfe\n".to_vec(), vec![0xff; 255]];
        for name in long.chain(no_texts.into_iter().filter(|_| cfg!(target_os = "linux"))) {
            let folder = tempfile::tempdir().unwrap();
            let name = OsString::from_vec(name);
            let file = folder.path().join(&name);
            for _ in 0..2 {
                model.optimizer.save(&file).unwrap_or_else(|error| panic!("{} bytes: {error}", name.len()));
            }
            small_model(0).optimizer.load(&file, Loading::Exact).unwrap();
            let found: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(found, [name]);
        }
    }

    /// In one line, with what a terminal must not get escaped.
    #[test]
    fn errors_show_any_name() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"none\xff\x1b[31m\n'\"\\ \xc3\xb6");
        let error = Checkpoint::read(folder.path().join(name)).unwrap_err().to_string();
        let shown = format!("{}/none\\xff\\u{{1b}}[31m\\n'\"\\ ö: No such file", folder.path().display());
        assert!(error.starts_with(&shown), "{error}");
    }

    /// Where this is root, who alone may give files away.
    #[test]
    fn the_owner_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run");
        let model = small_model(1);
        model.optimizer.save(&file).unwrap();
        if std::os::unix::fs::chown(&file, Some(12345), Some(23456)).is_err() {
            println!("skipped: only root may give files away");
            return;
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o460)).unwrap();
        model.optimizer.save(&file).unwrap();
        let saved = fs::metadata(&file).unwrap();
        assert_eq!((saved.uid(), saved.gid(), mode(&file)), (12345, 23456, 0o460));
    }

    /// Of those who save to one file at once, each succeeds, and none leaves anything.
    #[test]
    fn savers_of_one_file_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let (file, model) = (folder.path().join("run"), small_model(1));
        // In the middle of another save, which must find its temporary file afterwards.
        let text = "the outer one".as_bytes();
        let outer = koala_optim::checkpoint::replace(&file, |out| {
            use std::io::Write;
            out.write_all(text)?;
            out.flush()?;
            model.optimizer.save(&file).unwrap();
            assert_eq!(names(folder.path()).len(), 2);
            Ok(())
        });
        outer.unwrap();
        assert_eq!(fs::read(&file).unwrap(), text);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| model.optimizer.save(&file).unwrap()));
            }
        });
        assert!(Checkpoint::read(&file).is_ok());
        assert_eq!(names(folder.path()), ["run"]);
    }

    /// This test's own process again, which does what the environment says.
    fn again(test: &str, file: &Path, wrapper: &[&str]) -> Command {
        let own = std::env::current_exe().unwrap();
        let mut command = match wrapper {
            [] => Command::new(&own),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&own);
                command
            }
        };
        command.args(["--exact", &format!("writing::unix::{test}")]).env("KOALA_SAVE_TO", file);
        command
    }

    fn asked_to_save_to() -> Option<std::path::PathBuf> {
        std::env::var_os("KOALA_SAVE_TO").map(Into::into)
    }

    /// A disk that fills up: here, a limit on the size of files.
    #[test]
    fn a_full_disk() {
        if let Some(file) = asked_to_save_to() {
            let error = large_model(3).checkpoint().write(&file).unwrap_err();
            assert!(error.to_string().contains("File too large"), "{error}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run");
        small_model(2).checkpoint().write(&file).unwrap();
        let before = fs::read(&file).unwrap();
        // In blocks of 512 bytes; without the signal, a write beyond is an error.
        let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"];
        let output = again("a_full_disk", &file, &limited).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        assert_eq!(fs::read(&file).unwrap(), before);
        assert_eq!(names(folder.path()), ["run"]);
    }

    /// So large that writing it takes a while.
    fn large_model(steps: u64) -> Model {
        use koala_optim::{Config, ElementType, StateType};
        let mut plan = super::super::model::small();
        plan.tensors[0].length = 30_000;
        plan.tensors[0].types = (ElementType::F32, StateType::Same);
        let mut model = Model::new(&plan, Config::default());
        model.step(0..steps);
        model
    }

    /// The child saves its steps until it is killed; the parent kills it in the middle of that. What it was writing then
    /// is still there, until the next child saves.
    #[test]
    fn two_hundred_kills_leave_a_file_that_loads() {
        const STEPS: u64 = 4;
        if let Some(file) = asked_to_save_to() {
            let models: Vec<Model> = (0..STEPS).map(large_model).collect();
            loop {
                for (steps, model) in (0..STEPS).zip(&models) {
                    model.checkpoint().with_note("steps", steps.to_string()).write(&file).unwrap();
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run");
        let expected: Vec<_> = (0..STEPS).map(large_model).collect();
        let (mut in_the_middle, mut rounds) = (0, 0_u64);
        let mut read = [0; STEPS as usize];
        let start = Instant::now();
        while in_the_middle < 200 {
            assert!(start.elapsed() < Duration::from_secs(300), "{in_the_middle} of {rounds} kills in the middle");
            let changed = || fs::metadata(&file).map(|file| file.ino()).ok();
            let before = changed();
            let mut again = again("two_hundred_kills_leave_a_file_that_loads", &file, &[]);
            let mut child = Killed(again.stdout(Stdio::null()).spawn().unwrap());
            let spawned = Instant::now();
            while changed() == before {
                assert!(spawned.elapsed() < Duration::from_secs(60), "nothing is saved");
                std::thread::sleep(Duration::from_micros(200));
            }
            std::thread::sleep(Duration::from_micros(rounds * 7919 % 6000));
            child.kill();
            rounds += 1;
            let temporary = names(folder.path()).iter().filter(|name| *name != "run").count();
            assert!(temporary <= 1, "what children before have left is there: {:?}", names(folder.path()));
            in_the_middle += temporary;

            let checkpoint = Checkpoint::read(&file).unwrap();
            let steps: usize = checkpoint.note("steps").unwrap().parse().unwrap();
            read[steps] += 1;
            let mut model = large_model(0);
            checkpoint.restore(&mut model.optimizer, Loading::Exact).unwrap();
            model.read_parameters(&checkpoint);
            assert!(model.parameters() == expected[steps].parameters(), "round {rounds}");
            assert!(all(&model.optimizer) == all(&expected[steps].optimizer), "round {rounds}");
        }
        println!("{in_the_middle} of {rounds} kills were in the middle of a save; read: {read:?}");
        // Of other files, nothing is removed.
        let (other, folder) = (folder.path().join("other"), folder.path());
        let before = names(folder);
        small_model(1).optimizer.save(&other).unwrap();
        assert_eq!(names(folder).len(), before.len() + 1);
        small_model(1).optimizer.save(&file).unwrap();
        assert_eq!(names(folder), ["other", "run"]);
    }

    /// Killed when this goes, too.
    struct Killed(Child);

    impl Killed {
        fn kill(&mut self) {
            // It may be so already.
            let _ = self.0.kill();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Killed {
        fn drop(&mut self) {
            self.kill();
        }
    }
}
