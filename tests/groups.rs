//! Groups whose method has numbers of its own.

use koala_optim::{
    AdamW, Config, ElementType, Error, GroupId, KoalaPlusPlus, KoalaV, Loss, Method, Optimizer, Settings, Sgd,
    StateType, Tensor, Variant,
};

const GRADIENTS: [[f32; 3]; 3] = [[0.3, -0.2, 0.1], [0.1, 0.4, -0.3], [-0.2, 0.1, 0.2]];

fn optimizer(method: impl Into<Method>) -> Optimizer {
    Optimizer::new(Config { method: method.into(), ..Config::default() }).unwrap()
}

fn settings() -> Settings {
    Settings { learning_rate: 0.1, ..Settings::default() }
}

fn add(optimizer: &mut Optimizer, name: &str, group: GroupId) {
    optimizer.add_tensor(name, 3, ElementType::F32, StateType::Same, group).unwrap();
}

/// The bits of the parameters of some tensors after three steps.
fn stepped(optimizer: &mut Optimizer, names: &[&str]) -> Vec<[u32; 3]> {
    let mut parameters = vec![[1.0_f32, -2.0, 3.0]; names.len()];
    for gradient in &GRADIENTS {
        let named = names.iter().zip(&mut parameters);
        let mut tensors: Vec<_> = named.map(|(name, values)| Tensor::new(name, values, gradient)).collect();
        optimizer.step(Loss::new(0.7, 0.6), &mut tensors).unwrap();
    }
    parameters.into_iter().map(|values| values.map(f32::to_bits)).collect()
}

/// Each group steps as an optimizer would that has its numbers for all.
fn each_steps_as_alone<M: Into<Method> + Copy>(numbers: [M; 2]) {
    let mut both = optimizer(numbers[0]);
    let groups = [both.add_group(settings()).unwrap(), both.add_group_with(settings(), numbers[1]).unwrap()];
    add(&mut both, "one", groups[0]);
    add(&mut both, "other", groups[1]);
    let alone = numbers.map(|numbers| {
        let mut alone = optimizer(numbers);
        let group = alone.add_group(settings()).unwrap();
        add(&mut alone, "w", group);
        stepped(&mut alone, &["w"])[0]
    });
    assert_ne!(alone[0], alone[1]);
    assert_eq!(stepped(&mut both, &["one", "other"]), alone);
}

#[test]
fn groups_step_by_their_own_numbers() {
    each_steps_as_alone([AdamW::default(), AdamW { beta1: 0.5, beta2: 0.9, epsilon: 1e-3 }]);
    each_steps_as_alone([Sgd::default(), Sgd { momentum: 0.5, nesterov: true }]);
    // Without momentum a group keeps no state.
    each_steps_as_alone([Sgd::default(), Sgd { momentum: 0.0, nesterov: false }]);
    let vanilla = KoalaPlusPlus { variant: Variant::Vanilla, process_noise: 0.3, ..KoalaPlusPlus::default() };
    each_steps_as_alone([KoalaPlusPlus::default(), vanilla]);
    let definite = KoalaPlusPlus { variant: Variant::Definite, ..KoalaPlusPlus::default() };
    each_steps_as_alone([KoalaPlusPlus::default(), definite]);
}

#[test]
fn numbers_change_from_the_next_step_on() {
    let mut changed = optimizer(AdamW::default());
    let group = changed.add_group(settings()).unwrap();
    add(&mut changed, "w", group);
    let other = AdamW { beta2: 0.9, ..AdamW::default() };
    changed.set_method(group, other).unwrap();
    assert_eq!(changed.group_method(group), Ok(other.into()));
    assert_eq!(changed.method(), AdamW::default().into());
    let mut made = optimizer(other);
    let group = made.add_group(settings()).unwrap();
    add(&mut made, "w", group);
    assert_eq!(stepped(&mut changed, &["w"]), stepped(&mut made, &["w"]));
}

/// After each of these errors, the group is as it was.
#[test]
fn what_a_group_cannot_have() {
    let mut sgd = optimizer(Sgd::default());
    let group = sgd.add_group(settings()).unwrap();
    add(&mut sgd, "w", group);
    // σ and Q are numbers of KOALA++, and there is no place for them in a group of another method.
    let error = sgd.set_method(group, KoalaPlusPlus::default()).unwrap_err();
    assert_eq!(error.to_string(), "the group's method is koala++, expected sgd");
    assert!(matches!(sgd.add_group_with(settings(), AdamW::default()), Err(Error::Method { .. })));
    assert_eq!(sgd.groups().count(), 1);
    let error = sgd.set_method(group, Sgd { momentum: 0.0, nesterov: false }).unwrap_err();
    assert!(error.to_string().contains("state vectors"), "{error}");
    let error = sgd.set_method(group, Sgd { momentum: 1.0, nesterov: false }).unwrap_err();
    assert!(matches!(error, Error::Setting { setting: "momentum", .. }), "{error}");
    assert_eq!(sgd.group_method(group), Ok(Sgd::default().into()));

    let mut shared = optimizer(KoalaV::default());
    let group = shared.add_group(settings()).unwrap();
    let error = shared.set_method(group, KoalaV { variance: 0.5, ..KoalaV::default() }).unwrap_err();
    assert!(error.to_string().contains("share"), "{error}");
    assert_eq!(shared.set_method(group, KoalaV::default()), Ok(()));

    let mut other = optimizer(Sgd::default());
    other.add_group(settings()).unwrap();
    let foreign = other.add_group(settings()).unwrap();
    assert!(matches!(sgd.set_method(foreign, Sgd::default()), Err(Error::UnknownGroup { group: 1, groups: 1 })));
}
