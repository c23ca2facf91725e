//! A run that stops, saves, and goes on elsewhere is the run that does not stop.

use koala_optim::checkpoint::{Checkpoint, Loading};
use koala_optim::{
    Backend, Config, ElementType, Method, Noise, OnBreakdown, OnNonFinite, Policy, Scaling, Settings, StateType,
    Threads, Variant,
};
use proptest::prelude::*;

use super::common::methods::METHODS;
use super::common::{TYPES, backends};
use super::model::{Model, Plan, Planned, all};

/// Where a part of a run is.
#[derive(Clone, Debug)]
struct Machine {
    backend: Backend,
    threads: usize,
}

impl Machine {
    fn config(&self) -> Config {
        Config { backend: self.backend, threads: Threads::Count(self.threads), ..Config::default() }
    }
}

fn thread_counts() -> &'static [usize] {
    if cfg!(feature = "rayon") { &[1, 2, 7] } else { &[1] }
}

/// `steps` at once on one machine, and with a stop at `cut`, after which another machine goes on.
fn compare(plan: &Plan, cut: u64, steps: u64, [before, after]: [&Machine; 2]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let mut whole = Model::new(plan, before.config());
    whole.step(0..cut);
    whole.checkpoint().with_note("steps", cut.to_string()).write(&file).unwrap();
    whole.step(cut..steps);

    // As somebody would make it who has forgotten the settings.
    let forgotten = Plan { seed: plan.seed + 1, ..plan.clone() };
    let forgotten = Plan { noise: Noise::Fixed(3.0), policy: Policy::default(), ..forgotten };
    let forgotten = Plan { scaling: Scaling { factor: 7.0, limit: 0.5 }, clip_norm: Some(9.0), ..forgotten };
    let groups = vec![Settings { learning_rate: 9.0, ..Settings::default() }; plan.groups.len()];
    let mut resumed = Model::new(&Plan { groups, ..forgotten }, after.config());
    resumed.plan = plan.clone();
    let checkpoint = Checkpoint::read(&file).unwrap();
    let loaded = checkpoint.restore(&mut resumed.optimizer, Loading::Exact).unwrap();
    prop_assert_eq!((loaded.tensors, loaded.differences), (plan.tensors.len(), vec![]));
    resumed.read_parameters(&checkpoint);
    let cut = checkpoint.note("steps").unwrap().parse().unwrap();
    resumed.step(cut..steps);

    // Without a message of all the bytes.
    prop_assert!(resumed.parameters() == whole.parameters(), "other parameters");
    prop_assert!(all(&resumed.optimizer) == all(&whole.optimizer), "another state");
    Ok(())
}

fn settings() -> impl Strategy<Value = Settings> {
    (0.0..2.0, prop_oneof![Just(0.0), 0.0..0.1], 0.01..1.0, 0.0..1.0, any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(learning_rate, weight_decay, initial_variance, process_noise, vanilla, frozen)| {
            let variant = if vanilla { Variant::Vanilla } else { Variant::Symmetric };
            Settings { learning_rate, weight_decay, initial_variance, process_noise, variant, frozen }
        })
}

fn tensors(groups: usize) -> impl Strategy<Value = Vec<Planned>> {
    let length = prop_oneof![0_usize..3, 3_usize..70, 1000_usize..1100];
    let tensor = (length, prop::sample::select(&TYPES[..]), 0..groups, "\\PC{0,3}");
    prop::collection::vec(tensor, 0..5).prop_map(|tensors| {
        let named = tensors.into_iter().enumerate();
        named
            .map(|(place, (length, types, group, name))| Planned::new(&format!("{name}{place}"), length, types, group))
            .collect()
    })
}

fn plans() -> impl Strategy<Value = Plan> {
    let noise = prop_oneof![
        (0.0..2.0).prop_map(Noise::Fixed),
        (0.0..1.0, 0.0..2.0).prop_map(|(decay, initial)| Noise::Averaged { decay, initial })
    ];
    let policy = (
        prop::sample::select(vec![OnNonFinite::KeepTensor, OnNonFinite::KeepAll]),
        prop::sample::select(vec![OnBreakdown::Restart, OnBreakdown::Skip]),
    );
    let policy = policy.prop_map(|(non_finite, breakdown)| Policy { non_finite, breakdown });
    let tensors = prop::collection::vec(settings(), 1..4).prop_flat_map(|groups| (tensors(groups.len()), Just(groups)));
    let methods = METHODS.into_iter().chain([Method::KoalaPlusPlus; 3]).collect::<Vec<_>>();
    let scaling = prop_oneof![
        Just(Scaling::default()),
        (0.1..3.0, prop_oneof![Just(f64::INFINITY), 0.01..1.0]).prop_map(|(factor, limit)| Scaling { factor, limit })
    ];
    let gradients = (scaling, prop_oneof![Just(None), (0.01..1.0).prop_map(Some)]);
    (0_u64..1000, noise, policy, prop::sample::select(methods), gradients, tensors).prop_map(
        |(seed, noise, policy, method, (scaling, clip_norm), (tensors, groups))| Plan {
            seed,
            noise,
            policy,
            method,
            scaling,
            clip_norm,
            groups,
            tensors,
        },
    )
}

fn machines() -> impl Strategy<Value = Machine> {
    (prop::sample::select(backends()), prop::sample::select(thread_counts()))
        .prop_map(|(backend, threads)| Machine { backend, threads })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_model_goes_on_elsewhere(
        plan in plans(), before in machines(), after in machines(), steps in 0_u64..7, cut in any::<prop::sample::Index>(),
    ) {
        compare(&plan, cut.index(steps as usize + 1) as u64, steps, [&before, &after])?;
    }
}

/// Of a size at which threads are woken.
#[test]
fn a_large_tensor_goes_on_elsewhere() {
    let plan = Plan {
        seed: 11,
        noise: Noise::default(),
        policy: Policy::default(),
        method: Method::KoalaPlusPlus,
        scaling: Scaling::default(),
        clip_norm: None,
        groups: vec![Settings { weight_decay: 0.01, ..Settings::default() }],
        tensors: vec![Planned::new("large", (1 << 21) + 1, (ElementType::F32, StateType::Bf16), 0)],
    };
    let backends = backends();
    for (place, &threads) in thread_counts().iter().enumerate() {
        let before = Machine { backend: backends[place % backends.len()], threads };
        let threads = thread_counts()[(place + 1) % thread_counts().len()];
        let after = Machine { backend: backends[(place + 1) % backends.len()], threads };
        compare(&plan, 2, 4, [&before, &after]).unwrap();
    }
}
