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
    for name in [file, none, directory, "folder/..", ""] {
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

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("null");
        symlink("/dev/null", &link).unwrap();
        let error = small_model(1).optimizer.save(&link).unwrap_err();
        assert!(error.to_string().ends_with("not a regular file"), "{error}");
        assert_eq!(fs::metadata("/dev/null").unwrap().rdev(), fs::metadata(&link).unwrap().rdev());
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

    /// The child saves its steps until it is killed; the parent kills it in the middle of that.
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
            // What it was writing then is still there.
            for temporary in names(folder.path()).iter().filter(|name| *name != "run") {
                in_the_middle += 1;
                fs::remove_file(folder.path().join(temporary)).unwrap();
            }

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
