//! The embedded trajectories on every backend of this machine.

use koala_optim::{Backend, Error, Threads};
use koala_trajectory::{KoalaPlusPlus, Precision, Run, Settings, Trajectory, embedded, run};

#[test]
fn every_backend_is_within_the_tolerances_and_all_agree_to_the_bit() -> Result<(), Error> {
    for (name, trajectory) in embedded() {
        for precision in Precision::ALL {
            let reference = run(&trajectory, Backend::scalar(), precision, Threads::One)?;
            if let Some(tolerance) = precision.tolerance() {
                let errors = reference.errors;
                assert!(errors.largest() <= tolerance, "{name}, {}: {errors:?}", precision.name());
            }
            for backend in Backend::present() {
                for threads in [Threads::One, Threads::Count(2)] {
                    let same = run(&trajectory, backend, precision, threads)? == reference;
                    assert!(same, "{name}, {}, {}", precision.name(), backend.name());
                }
            }
        }
    }
    Ok(())
}

fn in_f64(trajectory: &Trajectory) -> Result<Run, Error> {
    run(trajectory, Backend::scalar(), Precision::F64, Threads::One)
}

/// The settings of a trajectory of KOALA++, changed.
fn koala_plus_plus(trajectory: &Trajectory, change: impl FnOnce(&mut KoalaPlusPlus)) -> Settings {
    let Settings::KoalaPlusPlus(mut config) = trajectory.config else { panic!("the first is of KOALA++") };
    change(&mut config);
    Settings::KoalaPlusPlus(config)
}

/// The comparison must see a difference where there is one, however small.
#[test]
fn a_changed_input_shows() -> Result<(), Error> {
    let (_, trajectory) = embedded().next().expect("there are some");
    let right = in_f64(&trajectory)?;

    let mut changed = trajectory.clone();
    changed.theta0[3][1] = changed.theta0[3][1].next_up();
    assert_ne!(in_f64(&changed)?, right);

    let mut changed = trajectory.clone();
    changed.config = koala_plus_plus(&trajectory, |config| config.symmetric = false);
    let Run { errors, .. } = in_f64(&changed)?;
    assert!(errors.v > 1e-3 && errors.theta > 1e-6, "{errors:?}");

    let mut changed = trajectory.clone();
    changed.steps[0].grads[14][126] = f64::NAN;
    assert!(in_f64(&changed)?.errors.largest() > 1e-3);

    let mut changed = trajectory;
    changed.config = koala_plus_plus(&changed, |config| config.sigma = -1.0);
    assert!(matches!(in_f64(&changed), Err(Error::Setting { .. })));
    Ok(())
}
