//! `koala info`.

use koala_optim::Backend;

use crate::{koala, outcome};

#[test]
fn every_backend_is_listed_with_its_state() {
    let mut command = koala("info");
    command.env_remove("KOALA_BACKEND");
    let info = outcome(command);
    assert_eq!(info.status, Some(0));
    for status in Backend::statuses() {
        let line = info.stdout.lines().find(|line| line.contains(&format!("│ {} ", status.name)));
        let line = line.unwrap_or_else(|| panic!("{} is missing in\n{}", status.name, info.stdout));
        assert!(line.contains(status.absent_because.unwrap_or("present")), "{line}");
    }
    let chosen = format!("Chosen: {}, the fastest", Backend::detect().name());
    assert!(info.stdout.contains(&chosen), "{}", info.stdout);
    for said in ["Processor: ", "Features: ", "Caches: "] {
        assert!(info.stdout.contains(said), "{}", info.stdout);
    }
}

#[test]
fn a_forced_backend_is_said_to_be_forced() {
    for backend in Backend::present() {
        let mut command = koala("info");
        command.env("KOALA_BACKEND", backend.name());
        let info = outcome(command);
        assert_eq!(info.status, Some(0));
        let chosen = format!("Chosen: {}, because KOALA_BACKEND says so", backend.name());
        assert!(info.stdout.contains(&chosen), "{}", info.stdout);
    }
}

#[test]
fn an_unknown_backend_is_an_error_that_lists_those_present() {
    for mut command in [koala("info"), koala("train --epochs 1")] {
        command.env("KOALA_BACKEND", "abacus");
        let info = outcome(command);
        assert_eq!(info.status, Some(1));
        assert!(info.stderr.contains("abacus") && info.stderr.contains("scalar, portable"), "{}", info.stderr);
    }
}
