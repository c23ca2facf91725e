//! candle's variables: the bits of the same steps on slices, in place, and nothing changed by what is an error.

use candle_core::{DType, Device, Result, Tensor as Array, Var};
use candle_nn::Optimizer as _;
use koala_candle::{Config, Koala, measured};
use koala_optim::{
    AdamW, ElementType, KoalaM, Loss, Method, Noise, Optimizer, Settings, Sgd, StateType, Tensor, bf16, f16,
};

mod common;

use common::{gradients, says};

const LOSS: Loss = Loss::new(0.7, 0.6);

fn config(method: Method) -> Config {
    let settings = Settings { learning_rate: 0.125, ..Settings::default() };
    Config { optimizer: koala_optim::Config { method, ..Default::default() }, settings, ..Config::default() }
}

fn variable(values: &[f32]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

fn values(array: &Array) -> Vec<f32> {
    array.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

macro_rules! gives_the_bits_of_slices {
    ($($name:ident: $type:ident, $element_type:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            let round = |values: [f32; 6]| values.map(|value| <$type as koala_optim::Element>::rounded(value.into()));
            let mut slice = round([1.0, -2.0, 3.0, 0.5, 1.5, -0.5]);
            let gradient = round([0.1, 0.2, -0.3, 0.4, 0.7, 0.05]);
            let variable = Var::from_slice(&slice, (2, 3), &Device::Cpu)?;
            // Not contiguous, which parameters never are.
            let transposed = Array::from_slice(&gradient, (2, 3), &Device::Cpu)?.t()?.contiguous()?.t()?;
            assert!(!transposed.is_contiguous());
            let store = gradients(&[(&variable, &transposed)]);

            let mut koala = Koala::new(vec![variable.clone()], config(Method::default()))?;
            let mut optimizer = Optimizer::new(koala_optim::Config::default()).unwrap();
            let group = optimizer.add_group(config(Method::default()).settings).unwrap();
            optimizer.add_tensor("0", 6, ElementType::$element_type, StateType::Same, group).unwrap();
            for _ in 0..3 {
                let report = koala.step_with(LOSS, &store)?;
                let expected = optimizer.step(LOSS, &mut [Tensor::new("0", &mut slice, &gradient)]).unwrap();
                assert_eq!((report, report.stepped), (expected, 1));
                assert_eq!(variable.flatten_all()?.to_vec1::<$type>()?, slice);
            }
            Ok(())
        }
    )*};
}

gives_the_bits_of_slices! {
    f32_gives_the_bits_of_slices: f32, F32;
    f64_gives_the_bits_of_slices: f64, F64;
    bf16_gives_the_bits_of_slices: bf16, Bf16;
    f16_gives_the_bits_of_slices: f16, F16;
}

fn address(array: &Array) -> *const f32 {
    let (storage, _) = array.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => storage.as_slice::<f32>().unwrap().as_ptr(),
        _ => panic!("not on the CPU"),
    }
}

#[test]
fn parameters_stay_where_they_are() -> Result<()> {
    let variable = variable(&[1.0, -2.0, 3.0]);
    let before = address(&variable);
    let mut koala = Koala::new(vec![variable.clone()], config(Method::default()))?;
    koala.backward_step(&variable.sqr()?)?;
    assert_eq!(address(&variable), before);
    assert!(values(&variable)[0] < 1.0);
    Ok(())
}

/// Part of a larger array, which starts somewhere in it.
#[test]
fn a_gradient_with_an_offset_is_read_from_there() -> Result<()> {
    let variable = variable(&[1.0, 1.0]);
    let gradient = Array::new(&[7.0_f32, 8.0, 0.5, -0.25], &Device::Cpu)?.narrow(0, 2, 2)?;
    let mut koala = Koala::new(vec![variable.clone()], config(Method::Sgd(Sgd { momentum: 0.0, ..Sgd::default() })))?;
    koala.step(&gradients(&[(&variable, &gradient)]))?;
    assert_eq!(values(&variable), [1.0 - 0.125 * 0.5, 1.0 + 0.125 * 0.25]);
    Ok(())
}

#[test]
fn the_loss_is_taken_from_what_is_differentiated() -> Result<()> {
    let noise = Noise::Averaged { decay: 0.0, initial: 1.0 };
    let of = |losses: fn(&Var) -> Result<Array>| -> Result<(f64, Vec<f32>)> {
        let variable = variable(&[1.0, -3.0]);
        let optimizer = koala_optim::Config { noise, ..Default::default() };
        let mut koala = Koala::new(vec![variable.clone()], Config { optimizer, ..Config::default() })?;
        koala.backward_step(&losses(&variable)?)?;
        Ok((koala.report().noise, values(&variable)))
    };
    let (per_sample, mean) = (of(|variable| variable.abs())?, of(|variable| variable.abs()?.mean_all())?);
    // The mean of 1² and 3², and the square of the mean of 1 and 3.
    assert_eq!((per_sample.0, mean.0), (5.0, 4.0));
    assert_ne!(per_sample.1, mean.1);
    assert_eq!(measured(&Array::new(&[[1.0_f64, 3.0]], &Device::Cpu)?)?, Loss::new(2.0, 5.0));
    says(measured(&Array::zeros(0, DType::F32, &Device::Cpu)?), "no samples");
    Ok(())
}

#[test]
fn a_step_without_a_loss_is_an_error_where_one_is_needed() -> Result<()> {
    let variable = variable(&[1.0, -3.0]);
    let store = variable.sqr()?.mean_all()?.backward()?;
    for method in [Method::AdamW(AdamW::default()), Method::Sgd(Sgd::default())] {
        let before = values(&variable);
        Koala::new(vec![variable.clone()], config(method))?.step(&store)?;
        assert_ne!(values(&variable), before);
    }
    let mut koala = Koala::new(vec![variable.clone()], config(Method::default()))?;
    let before = values(&variable);
    says(koala.step(&store), "koala++ needs the loss");
    assert_eq!(values(&variable), before);
    koala.set_loss(LOSS);
    koala.step(&store)?;
    says(koala.step(&store), "koala++ needs the loss");
    Ok(())
}

#[test]
fn koala_m_predicts_first() -> Result<()> {
    let variable = variable(&[1.0, -3.0]);
    let mut koala = Koala::new(vec![variable.clone()], config(Method::KoalaM(KoalaM::default())))?;
    says(koala.backward_step(&variable.sqr()?), "KOALA-M has to predict");
    let mut at = vec![values(&variable)];
    for _ in 0..2 {
        koala.predict()?;
        at.push(values(&variable));
        koala.backward_step(&variable.sqr()?)?;
        at.push(values(&variable));
    }
    assert_eq!(at[0], at[1], "without a velocity, a prediction moves nothing");
    assert!(at[1] != at[2] && at[2] != at[3] && at[3] != at[4]);
    Ok(())
}

#[test]
fn learning_rates() -> Result<()> {
    let variable = variable(&[1.0]);
    let store = gradients(&[(&variable, &Array::new(&[0.5_f32], &Device::Cpu)?)]);
    let mut koala = Koala::new(vec![variable.clone()], config(Method::Sgd(Sgd { momentum: 0.0, ..Sgd::default() })))?;
    assert_eq!(koala.learning_rate(), 0.125);
    koala.set_learning_rate(-1.0);
    says(koala.step(&store), "learning rate is -1");
    assert_eq!(values(&variable), [1.0]);
    koala.set_learning_rate(0.25);
    assert_eq!(koala.learning_rate(), 0.25);
    koala.step(&store)?;
    assert_eq!((koala.learning_rate(), values(&variable)), (0.25, vec![1.0 - 0.25 * 0.5]));

    // One rate for every group, and then another for one.
    let group = koala.add_group(Settings::default())?;
    assert_eq!(koala.groups().last(), Some(group));
    koala.set_learning_rate(0.5);
    koala.optimizer_mut().set_learning_rate(group, 2.0).unwrap();
    koala.step(&store)?;
    let rates: Vec<f64> =
        koala.groups().map(|group| koala.optimizer().settings(group).unwrap().learning_rate).collect();
    assert_eq!(rates, [0.5, 2.0]);
    Ok(())
}

#[test]
fn groups_have_settings_of_their_own_and_a_variable_without_gradient_stays() -> Result<()> {
    let [moved, frozen, unused] = [(); 3].map(|()| variable(&[1.0, -3.0]));
    let mut koala = Koala::empty(Config::default())?;
    let group = koala.add_group(Settings::default())?;
    let still = koala.add_group(Settings { frozen: true, ..Settings::default() })?;
    koala.add_variable("moved", moved.clone(), group)?;
    koala.add_variable("unused", unused.clone(), group)?;
    koala.add_variable("frozen", frozen.clone(), still)?;
    koala.backward_step(&(moved.sqr()? + frozen.sqr()?)?)?;
    assert_eq!((koala.report().stepped, koala.report().frozen), (1, 1));
    assert_ne!(values(&moved), [1.0, -3.0]);
    assert_eq!([values(&frozen), values(&unused)], [[1.0, -3.0]; 2]);
    assert_eq!(koala.optimizer().state("moved").unwrap().scalars().steps, 1);
    Ok(())
}

#[test]
fn what_is_wrong_is_an_error_and_changes_nothing() -> Result<()> {
    let (one, other) = (variable(&[1.0, -3.0]), variable(&[2.0, 4.0]));
    let whole_numbers = Var::zeros(2, DType::U32, &Device::Cpu)?;
    let mut koala = Koala::new(vec![one.clone(), whole_numbers, other.clone()], config(Method::default()))?;
    says(koala.add_variable("one", one.clone(), koala_optim_group()?), "given twice");
    let whole_numbers = Var::zeros(2, DType::U32, &Device::Cpu)?;
    says(koala.add_variable("whole", whole_numbers, koala_optim_group()?), "found U32");

    let good = Array::new(&[0.5_f32, 0.25], &Device::Cpu)?;
    let long = Array::new(&[0.5_f32, 0.25, 0.125], &Device::Cpu)?;
    let unlike = good.to_dtype(DType::F64)?;
    for (bad, message) in [
        (&long, "the parameters are F32 [2] on Cpu, the gradient F32 [3] on Cpu"),
        (&unlike, "tensor \"2\": the parameters are F32 [2] on Cpu, the gradient F64 [2] on Cpu"),
        (one.as_tensor(), "tensor \"2\": the gradient, F32 [2] on Cpu, or the parameters are a variable's memory"),
        (other.as_tensor(), "tensor \"2\": the gradient, F32 [2] on Cpu, or the parameters are a variable's memory"),
    ] {
        says(koala.step_with(LOSS, &gradients(&[(&one, &good), (&other, bad)])), message);
        says(koala.step_with(Loss::new(0.7, -1.0), &gradients(&[(&one, &good)])), "second moment");
        assert_eq!([values(&one), values(&other)], [[1.0, -3.0], [2.0, 4.0]]);
    }
    assert_eq!(koala.step_with(LOSS, &gradients(&[(&one, &good), (&other, &good)]))?.first_steps, 2);
    Ok(())
}

/// The first group, by its number that of any optimizer with one.
fn koala_optim_group() -> Result<koala_optim::GroupId> {
    Koala::empty(Config::default())?.add_group(Settings::default())
}

/// As a map's own list is in another order in each run, so may any list be.
#[test]
fn what_has_only_a_place_for_a_name_is_neither_saved_nor_loaded() -> Result<()> {
    use koala_optim::checkpoint::{Checkpoint, Error, Loading};

    let map = candle_nn::VarMap::new();
    for name in ["weight", "bias"] {
        map.get(3, name, candle_nn::Init::Const(1.0), DType::F32, &Device::Cpu)?;
    }
    let folder = tempfile::tempdir()?;
    let [listed, named] = ["listed", "named"].map(|name| folder.path().join(name));
    let mut of_list = Koala::new(map.all_vars(), Config::default())?;
    for written in [of_list.optimizer().save(&listed), Checkpoint::of(of_list.optimizer()).write(&listed)] {
        let error = written.unwrap_err();
        assert!(matches!(&error, Error::Nameless { path, tensor } if *path == listed && tensor == "0"), "{error}");
        assert!(error.to_string().contains("of_map"), "{error}");
    }
    assert!(!listed.exists());

    let mut of_map = Koala::of_map(&map, Config::default())?;
    let losses = map.all_vars()[0].sqr()?;
    of_map.backward_step(&losses)?;
    of_map.optimizer().save(&named).unwrap();
    for loading in [Loading::Exact, Loading::WhatFits] {
        let error = of_list.optimizer_mut().load(&named, loading).unwrap_err();
        assert!(matches!(error, Error::Nameless { .. }), "{error}");
        assert_eq!(Koala::of_map(&map, Config::default())?.optimizer_mut().load(&named, loading).unwrap().tensors, 2);
    }
    assert!(of_list.optimizer().scalars().all(|(_, scalars)| scalars.steps == 0));

    // One without a name among others is enough.
    let group = of_list.groups().next().unwrap();
    of_list.add_variable("scale", variable(&[1.0]), group)?;
    assert!(matches!(of_list.optimizer().save(&listed), Err(Error::Nameless { .. })));
    Ok(())
}

/// The order of a map's own list differs from run to run.
#[test]
fn a_maps_variables_have_their_names_and_their_order() -> Result<()> {
    let map = candle_nn::VarMap::new();
    let names: Vec<String> = (0..20).map(|i| format!("layer.{i:02}")).collect();
    for name in names.iter().rev() {
        map.get(3, name, candle_nn::Init::Const(1.0), DType::F32, &Device::Cpu)?;
    }
    let koala = Koala::of_map(&map, Config::default())?;
    assert!(koala.optimizer().scalars().map(|(name, _)| name).eq(names.iter().map(String::as_str)));
    assert_eq!(koala.optimizer().shape("layer.00"), Some(&[3][..]));
    Ok(())
}
