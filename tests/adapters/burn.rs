//! burn's modules: the bits of the same steps on slices, and a module that comes back whole, whatever is wrong.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use burn::module::{Module, Param, ParamGroup};
use burn::tensor::{DType, Device, Tensor as Array, TensorData};
use burn_core as burn;
use burn_optim::GradientsParams;
use koala_optim::burn::{Config, Error, Koala};
use koala_optim::{AdamW, ElementType, KoalaM, Loss, Method, Optimizer, Settings, Sgd, StateType, Tensor, bf16, f16};

const LOSS: Loss = Loss::new(0.7, 0.6);

#[derive(Module, Debug)]
struct Model {
    weight: Param<Array<2>>,
    bias: Param<Array<1>>,
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn array<const D: usize>(data: TensorData, device: &Device) -> Array<D> {
    let dtype = data.dtype();
    Array::from_data(data, (device, dtype))
}

impl Model {
    fn new() -> Model {
        let weight = array(TensorData::new(vec![1.0_f32, -2.0, 3.0, 0.5, 1.5, -0.5], [2, 3]), &device());
        let bias = array(TensorData::new(vec![0.25_f32, -0.75], [2]), &device());
        Model { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias) }
    }

    fn values(&self) -> [Vec<f32>; 2] {
        [self.weight.val().into_data(), self.bias.val().into_data()]
            .map(|data| data.convert::<f32>().try_to_vec::<f32>().unwrap())
    }

    /// The gradients of a loss that depends on both.
    fn gradients(&self) -> GradientsParams {
        let loss = self.weight.val().powi_scalar(2).sum() + (self.bias.val() * 0.5).sum();
        GradientsParams::from_grads(loss.backward(), self)
    }
}

fn config(method: Method) -> Config {
    let settings = Settings { learning_rate: 0.125, ..Settings::default() };
    Config { optimizer: koala_optim::Config { method, ..Default::default() }, settings, ..Config::default() }
}

#[test]
fn every_type_gives_the_bits_of_slices() {
    macro_rules! of_type {
        ($type:ident, $element_type:ident) => {{
            let round = |values: [f32; 6]| values.map(|value| <$type as koala_optim::Element>::rounded(value.into()));
            let mut slice = round([1.0, -2.0, 3.0, 0.5, 1.5, -0.5]);
            let gradient = round([0.1, 0.2, -0.3, 0.4, 0.7, 0.05]);
            let weight = array::<2>(TensorData::new(slice.to_vec(), [2, 3]), &device());
            let mut model = Model { weight: Param::from_tensor(weight), ..Model::new() };
            let mut koala = Koala::new(config(Method::KoalaPlusPlus)).unwrap();
            let mut optimizer = Optimizer::new(koala_optim::Config::default()).unwrap();
            let group = optimizer.add_group(config(Method::KoalaPlusPlus).settings).unwrap();
            optimizer.add_tensor("weight", 6, ElementType::$element_type, StateType::Same, group).unwrap();
            for _ in 0..3 {
                // Not contiguous.
                let transposed: Vec<$type> = [0, 3, 1, 4, 2, 5].map(|i| gradient[i]).to_vec();
                let transposed = array::<2>(TensorData::new(transposed, [3, 2]), &device().inner()).transpose();
                let mut gradients = GradientsParams::new();
                gradients.register(model.weight.id, transposed);
                let report;
                (model, report) = koala.step(LOSS, model, gradients);
                let expected = optimizer.step(LOSS, &mut [Tensor::new("weight", &mut slice, &gradient)]).unwrap();
                assert_eq!((report.unwrap(), expected.stepped), (expected, 1));
                assert_eq!(model.weight.val().into_data().try_to_vec::<$type>().unwrap(), slice);
                assert_eq!(model.weight.val().dtype(), TensorData::from(slice).dtype());
            }
        }};
    }
    of_type!(f32, F32);
    of_type!(f64, F64);
    of_type!(bf16, Bf16);
    of_type!(f16, F16);
}

#[test]
fn a_stepped_module_can_be_differentiated_again() {
    let mut model = Model::new();
    let sgd = Method::Sgd(Sgd { momentum: 0.0, ..Sgd::default() });
    let mut koala = Koala::new(config(sgd)).unwrap();
    for _ in 0..2 {
        let ids = [model.weight.id, model.bias.id];
        let [weight, bias] = model.values();
        let gradients = model.gradients();
        assert_eq!(gradients.len(), 2);
        let report;
        (model, report) = koala.step(LOSS, model, gradients);
        assert_eq!(report.unwrap().stepped, 2);
        assert_eq!([model.weight.id, model.bias.id], ids);
        let expected = [
            weight.iter().map(|value| value - 0.125 * (2.0 * value)).collect::<Vec<_>>(),
            bias.iter().map(|value| value - 0.125 * 0.5).collect(),
        ];
        assert_eq!(model.values(), expected);
    }
}

#[test]
fn groups_go_by_paths_and_the_last_counts() {
    let frozen = Settings { frozen: true, ..Settings::default() };
    let mut koala = Koala::new(config(Method::AdamW(AdamW::default())))
        .and_then(|koala| koala.with_group(ParamGroup::all(), frozen))
        .and_then(|koala| koala.with_group(ParamGroup::from_path("bias"), Settings::default()))
        .unwrap();
    let model = Model::new();
    let before = model.values();
    let gradients = model.gradients();
    let (model, report) = koala.step(LOSS, model, gradients);
    let report = report.unwrap();
    assert_eq!((report.stepped, report.frozen), (1, 1));
    let after = model.values();
    assert!(after[0] == before[0] && after[1] != before[1]);
    assert!(koala.set_learning_rate(f64::NAN).is_err());
}

#[test]
fn a_parameter_without_a_gradient_stays() {
    let model = Model::new();
    let before = model.values();
    let mut gradients = GradientsParams::new();
    gradients.register(model.bias.id, array::<1>(TensorData::new(vec![0.5_f32, 0.25], [2]), &device().inner()));
    let (model, report) = Koala::new(Config::default()).unwrap().step(LOSS, model, gradients);
    assert_eq!(report.unwrap().stepped, 1);
    let after = model.values();
    assert!(after[0] == before[0] && after[1] != before[1]);
}

#[test]
fn koala_m_predicts_first() {
    let mut koala = Koala::new(config(Method::KoalaM(KoalaM::default()))).unwrap();
    let model = Model::new();
    let gradients = model.gradients();
    let (mut model, report) = koala.step(LOSS, model, gradients);
    let not_predicted = report.unwrap_err();
    assert!(matches!(not_predicted, Error::Optimizer(koala_optim::Error::NotPredicted)), "{not_predicted}");
    let mut at = vec![model.values()];
    for _ in 0..2 {
        let predicted;
        (model, predicted) = koala.predict(model);
        predicted.unwrap();
        at.push(model.values());
        let gradients = model.gradients();
        let stepped;
        (model, stepped) = koala.step(LOSS, model, gradients);
        stepped.unwrap();
        at.push(model.values());
    }
    assert_eq!(at[0], at[1], "without a velocity, a prediction moves nothing");
    assert!(at[1] != at[2] && at[2] != at[3] && at[3] != at[4]);
}

#[test]
fn what_is_wrong_is_an_error_and_changes_nothing() {
    let mut koala = Koala::new(Config::default()).unwrap();
    let mut model = Model::new();
    let before = model.values();
    let on_cpu = device().inner();
    let bad: [(Array<1>, &str); 2] = [
        (array(TensorData::new(vec![0.5_f32; 3], [3]), &on_cpu), "shape is [2], the gradient's [3]"),
        (array(TensorData::new(vec![0.5_f64; 2], [2]), &on_cpu), r#"tensor "bias""#),
    ];
    for (gradient, message) in bad {
        let mut gradients = model.gradients();
        gradients.register(model.bias.id, gradient);
        let report;
        (model, report) = koala.step(LOSS, model, gradients);
        let error = report.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(model.values(), before);
    }
    let gradients = model.gradients();
    let (model, report) = koala.step(Loss::new(0.7, -1.0), model, gradients);
    assert!(report.unwrap_err().to_string().contains("second moment"));
    assert_eq!(model.values(), before);
    let gradients = model.gradients();
    let (model, report) = koala.step(LOSS, model, gradients);
    assert_eq!(report.unwrap().first_steps, 2);
    assert_eq!(model.weight.val().dtype(), DType::F32);
}

/// Adds up what its thread allocates in pieces of at least a mebibyte.
struct LargePieces;

thread_local! {
    static LARGE: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for LargePieces {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= 1 << 20 {
            LARGE.set(LARGE.get() + layout.size());
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: LargePieces = LargePieces;

#[test]
fn parameters_and_gradients_of_the_cpu_are_not_copied() {
    let size = 1 << 20;
    let weight = array::<2>(TensorData::new(vec![1.0_f32; size], [1, size]), &device());
    let mut model = Model { weight: Param::from_tensor(weight), ..Model::new() };
    let mut koala = Koala::new(Config::default()).unwrap();
    for step in 0..3 {
        let gradients = model.gradients();
        let before = LARGE.get();
        let report;
        (model, report) = koala.step(LOSS, model, gradients);
        assert_eq!(report.unwrap().stepped, 2);
        // The state, in the first step.
        if step > 0 {
            assert_eq!(LARGE.get() - before, 0, "in step {step}");
        }
    }
    let before = LARGE.get();
    drop(std::hint::black_box(model.weight.val().into_data()));
    assert!(LARGE.get() - before >= 4 * size, "the count works: while the module holds it, this is a copy");
}
