//! A run that stops, saves, and goes on elsewhere is the run that does not stop.

use std::ops::Range;

use koala_optim::checkpoint::{Checkpoint, Loading};
use koala_optim::{
    AdamW, Backend, Config, ElementType, KoalaPlusPlus, Method, Noise, OnBreakdown, OnNonFinite, Policy, Scaling,
    Settings, Sgd, StateType, Threads, Variant,
};
use proptest::prelude::*;

use super::common::methods::METHODS;
use super::common::{TYPES, backends};
use super::model::{Model, Plan, Planned, all, small};

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

/// Steps in halves: those of even numbers are predictions, after each comes its step. What the steps return.
fn run(model: &mut Model, halves: Range<u64>) -> Vec<String> {
    let mut results = Vec::new();
    for half in halves {
        match half % 2 {
            0 => model.predict(half / 2),
            _ => results.push(format!("{:?}", model.correct(half / 2))),
        }
    }
    results
}

/// All halves at once on one machine, and with a stop at `cut`, after which another machine goes on.
fn compare(plan: &Plan, cut: u64, halves: u64, [before, after]: [&Machine; 2]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let mut whole = Model::new(plan, before.config());
    run(&mut whole, 0..cut);
    whole.checkpoint().with_note("halves", cut.to_string()).write(&file).unwrap();
    let expected = run(&mut whole, cut..halves);

    // As somebody would make it who has forgotten the settings.
    let forgotten = Plan { seed: plan.seed + 1, ..plan.clone() };
    let forgotten = Plan { noise: Noise::Fixed(3.0), policy: Policy::default(), ..forgotten };
    let forgotten = Plan { scaling: Scaling { factor: 7.0, limit: 0.5 }, clip_norm: Some(9.0), ..forgotten };
    let groups = vec![(Settings { learning_rate: 9.0, ..Settings::default() }, None); plan.groups.len()];
    let mut resumed = Model::new(&Plan { groups, ..forgotten }, after.config());
    resumed.plan = plan.clone();
    let checkpoint = Checkpoint::read(&file).unwrap();
    let loaded = checkpoint.restore(&mut resumed.optimizer, Loading::Exact).unwrap();
    prop_assert_eq!((loaded.tensors, loaded.differences), (plan.tensors.len(), vec![]));
    resumed.read_parameters(&checkpoint);
    let cut = checkpoint.note("halves").unwrap().parse().unwrap();
    prop_assert_eq!(run(&mut resumed, cut..halves), expected);

    // Without a message of all the bytes.
    prop_assert!(resumed.parameters() == whole.parameters(), "other parameters");
    prop_assert!(all(&resumed.optimizer) == all(&whole.optimizer), "another state");
    Ok(())
}

/// The settings of a group, and two numbers for its method.
fn group() -> impl Strategy<Value = (Settings, [f64; 2], Variant)> {
    let settings = (0.0..2.0, prop_oneof![Just(0.0), 0.0..0.1], prop::bool::weighted(0.1));
    let settings =
        settings.prop_map(|(learning_rate, weight_decay, frozen)| Settings { learning_rate, weight_decay, frozen });
    let variant = prop::sample::select(vec![Variant::Symmetric, Variant::Vanilla, Variant::Definite]);
    (settings, [0.01..1.0, 0.01..0.99], variant)
}

/// The numbers of a group's own, if the method has such.
fn own(method: Method, [one, other]: [f64; 2], variant: Variant) -> Option<Method> {
    match method {
        Method::KoalaPlusPlus(_) => {
            let prior_variance = one * other;
            Some(KoalaPlusPlus { initial_variance: one, process_noise: other, variant, prior_variance }.into())
        }
        Method::AdamW(adamw) => Some(AdamW { beta1: other, beta2: one.min(0.9), ..adamw }.into()),
        Method::Sgd(sgd) if sgd.momentum > 0.0 => Some(Sgd { momentum: other, ..sgd }.into()),
        Method::KoalaV(_) | Method::KoalaM(_) | Method::Sgd(_) => None,
    }
}

fn tensors(groups: usize) -> impl Strategy<Value = Vec<Planned>> {
    // At the most some chunks of 65,536, of which a thread takes whole ones.
    let length = prop_oneof![6 => 0_usize..3, 6 => 3_usize..70, 6 => 1000_usize..1100, 1 => 65_500_usize..140_000];
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
        prop::sample::select(vec![
            OnNonFinite::KeepTensor,
            OnNonFinite::KeepAll,
            OnNonFinite::Error,
            OnNonFinite::Unchecked,
        ]),
        prop::sample::select(vec![OnBreakdown::Restart, OnBreakdown::Skip, OnBreakdown::Error]),
    );
    let policy = policy.prop_map(|(non_finite, breakdown)| Policy { non_finite, breakdown });
    let tensors = prop::collection::vec(group(), 1..4).prop_flat_map(|groups| (tensors(groups.len()), Just(groups)));
    let methods = METHODS.into_iter().chain([Method::default(); 3]).collect::<Vec<_>>();
    let scaling = prop_oneof![
        Just(Scaling::default()),
        (0.1..3.0, prop_oneof![Just(f64::INFINITY), 0.01..1.0]).prop_map(|(factor, limit)| Scaling { factor, limit })
    ];
    let gradients = (scaling, prop_oneof![Just(None), (0.01..1.0).prop_map(Some)]);
    ((0_u64..1000, any::<bool>()), noise, policy, prop::sample::select(methods), gradients, tensors).prop_map(
        |((seed, rough), noise, policy, method, (scaling, clip_norm), (tensors, groups))| Plan {
            seed,
            rough,
            noise,
            policy,
            method,
            scaling,
            clip_norm,
            groups: groups
                .into_iter()
                .map(|(settings, numbers, variant)| (settings, own(method, numbers, variant)))
                .collect(),
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
        // What is not finite is written then, and the bits of NaN are each backend's own.
        let same_backend = plan.rough && plan.policy.non_finite == OnNonFinite::Unchecked;
        let after = if same_backend { Machine { backend: before.backend, ..after } } else { after };
        compare(&plan, cut.index(2 * steps as usize + 1) as u64, 2 * steps, [&before, &after])?;
    }
}

/// KOALA-M has predicted then, and must not do so again.
#[test]
fn a_run_goes_on_between_a_prediction_and_its_step() {
    let machine = Machine { backend: Backend::default(), threads: 1 };
    for method in METHODS {
        let plan = Plan { method, ..small() };
        let mut model = Model::new(&plan, machine.config());
        run(&mut model, 0..5);
        let predicted = format!("{:?}", model.checkpoint()).contains("predicted: true");
        assert_eq!(predicted, matches!(method, Method::KoalaM(_)));
        compare(&plan, 5, 10, [&machine, &machine]).unwrap();
    }
}

/// Of a size at which threads are woken.
#[test]
fn a_large_tensor_goes_on_elsewhere() {
    let plan = Plan {
        seed: 11,
        rough: false,
        noise: Noise::default(),
        policy: Policy::default(),
        method: Method::default(),
        scaling: Scaling::default(),
        clip_norm: None,
        groups: vec![(Settings { weight_decay: 0.01, ..Settings::default() }, None)],
        tensors: vec![Planned::new("large", (1 << 21) + 1, (ElementType::F32, StateType::Bf16), 0)],
    };
    let backends = backends();
    for (place, &threads) in thread_counts().iter().enumerate() {
        let before = Machine { backend: backends[place % backends.len()], threads };
        let threads = thread_counts()[(place + 1) % thread_counts().len()];
        let after = Machine { backend: backends[(place + 1) % backends.len()], threads };
        compare(&plan, 4, 8, [&before, &after]).unwrap();
    }
}
