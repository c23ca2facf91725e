//! burn's modules: the bits of the same steps on slices, and a module that comes back whole, whatever is wrong.

#[path = "../../../tests/common/counting.rs"]
mod counting;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::tensor::{DType, Device, Tensor as Array, TensorData};
use burn_core as burn;
use burn_optim::GradientsParams;
use counting::allocated_bytes;
use koala_burn::{Config, Error, Koala};
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
            let mut koala = Koala::new(config(Method::default())).unwrap();
            let mut optimizer = Optimizer::new(koala_optim::Config::default()).unwrap();
            let group = optimizer.add_group(config(Method::default()).settings).unwrap();
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
    let mut koala = Koala::new(config(Method::AdamW(AdamW::default()))).unwrap();
    koala.add_group(ParamGroup::all(), frozen).unwrap();
    let bias = koala.add_group(ParamGroup::from_path("bias"), Settings::default()).unwrap();
    let model = Model::new();
    let before = model.values();
    let gradients = model.gradients();
    let (model, report) = koala.step(LOSS, model, gradients);
    let report = report.unwrap();
    assert_eq!((report.stepped, report.frozen), (1, 1));
    let after = model.values();
    assert!(after[0] == before[0] && after[1] != before[1]);
    assert!(koala.set_learning_rate(f64::NAN).is_err());

    // One rate for every group, and then another for one.
    koala.set_learning_rate(0.5).unwrap();
    koala.optimizer_mut().set_learning_rate(bias, 2.0).unwrap();
    let rates: Vec<f64> =
        koala.groups().map(|group| koala.optimizer().settings(group).unwrap().learning_rate).collect();
    assert_eq!(rates, [0.5, 0.5, 2.0]);
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

/// Says nowhere that it enters one of its parts, so that both have the same path.
#[derive(Clone, Debug)]
struct Pair(Param<Array<1>>, Param<Array<1>>);

impl Module for Pair {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.1.collect_devices(self.0.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Pair(self.0.fork(device), self.1.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Pair(self.0.to_device(device), self.1.to_device(device))
    }

    fn train(self) -> Self {
        Pair(self.0.train(), self.1.train())
    }

    fn valid(&self) -> Self {
        Pair(self.0.valid(), self.1.valid())
    }

    fn materialize(self) -> Self {
        Pair(self.0.materialize(), self.1.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
        self.1.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Pair(Module::map(self.0, mapper), Module::map(self.1, mapper))
    }
}

fn parameter(values: [f32; 2]) -> Param<Array<1>> {
    Param::from_tensor(array(TensorData::new(values.to_vec(), [2]), &device()))
}

fn elements(parameter: &Param<Array<1>>) -> Vec<f32> {
    parameter.val().into_data().try_to_vec().unwrap()
}

/// The parameters after a step by a gradient of ones of those that `which` says.
fn stepped<M: Module>(module: M, parameters: [&Param<Array<1>>; 2], which: [bool; 2]) -> (M, Koala) {
    let mut gradients = GradientsParams::new();
    for (parameter, _) in parameters.iter().zip(which).filter(|(_, which)| *which) {
        gradients.register(parameter.id, array::<1>(TensorData::new(vec![1.0_f32; 2], [2]), &device().inner()));
    }
    let mut koala = Koala::new(config(Method::Sgd(Sgd { momentum: 0.0, ..Sgd::default() }))).unwrap();
    let (module, report) = koala.step(LOSS, module, gradients);
    assert_eq!(report.unwrap().stepped, which.iter().filter(|which| **which).count());
    (module, koala)
}

#[test]
fn parameters_of_one_path_are_told_apart() {
    let (first, second) = (parameter([1.0, 2.0]), parameter([3.0, 4.0]));
    for which in [[true, true], [true, false], [false, true]] {
        let moved = |values: [f32; 2], moves: bool| values.map(|value| if moves { value - 0.125 } else { value });
        let expected = [moved([1.0, 2.0], which[0]), moved([3.0, 4.0], which[1])];

        let pair = Pair(first.clone(), second.clone());
        let (pair, koala) = stepped(pair, [&first, &second], which);
        assert_eq!([elements(&pair.0), elements(&pair.1)], expected);
        assert_eq!([pair.0.id, pair.1.id], [first.id, second.id]);
        assert!(koala.optimizer().scalars().map(|(name, _)| name).eq(["", "#2"]));

        let tuple = (first.clone(), second.clone());
        let (tuple, _) = stepped(tuple, [&first, &second], which);
        assert_eq!([elements(&tuple.0), elements(&tuple.1)], expected);
    }
}

/// A clone has the id of its original, and each stays in its place.
#[test]
fn a_clone_that_requires_no_gradient_is_not_predicted() {
    let original = parameter([1.0, 2.0]);
    let frozen = Param::initialized(original.id, parameter([3.0, 4.0]).val().detach());
    let mut pair = Pair(frozen, original);
    let mut koala = Koala::new(config(Method::KoalaM(KoalaM::default()))).unwrap();
    let result;
    (pair, result) = koala.predict(pair);
    result.unwrap();
    assert_eq!([elements(&pair.0), elements(&pair.1)], [[3.0, 4.0], [1.0, 2.0]]);
}

#[test]
fn registering_makes_known_what_a_step_would() {
    let frozen = Settings { frozen: true, ..Settings::default() };
    let groups = |koala: &mut Koala| koala.add_group(ParamGroup::from_path("bias"), frozen).unwrap();
    let (mut registered, mut stepped) =
        (Koala::new(Config::default()).unwrap(), Koala::new(Config::default()).unwrap());
    groups(&mut registered);
    groups(&mut stepped);
    let model = Model::new();
    registered.register(&model).unwrap();
    registered.register(&model).unwrap();
    // The bias has no gradient.
    let mut gradients = model.gradients();
    assert!(gradients.remove::<1>(model.bias.id).is_some());
    let (model, report) = stepped.step(LOSS, model, gradients);
    assert_eq!(report.unwrap().stepped, 1);
    for koala in [&registered, &stepped] {
        let optimizer = koala.optimizer();
        assert!(optimizer.scalars().map(|(name, _)| name).eq(["weight", "bias"]));
        assert_eq!([optimizer.shape("weight"), optimizer.shape("bias")], [Some(&[2, 3][..]), Some(&[2][..])]);
    }
    let (_, report) = registered.step(LOSS, model.clone(), model.gradients());
    assert_eq!(report.unwrap().frozen, 1);

    let mut none = Koala::new(Config::default()).unwrap();
    none.register(&Model::new().no_grad()).unwrap();
    assert_eq!(none.optimizer().scalars().count(), 0);
}

/// Saved, loaded into a new optimizer over a new module, and on: the bits of no stop.
#[test]
fn a_run_that_goes_on_from_a_checkpoint_is_one_that_never_stopped() {
    use koala_optim::checkpoint::{Checkpoint, Loading};

    fn run(koala: &mut Koala, mut model: Model, steps: usize) -> Model {
        for _ in 0..steps {
            let predicted;
            (model, predicted) = koala.predict(model);
            predicted.unwrap();
            let gradients = model.gradients();
            let report;
            (model, report) = koala.step(LOSS, model, gradients);
            assert_eq!(report.unwrap().stepped, 2);
        }
        model
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    for method in [Method::default(), Method::KoalaM(KoalaM::default()), Method::AdamW(AdamW::default())] {
        let mut koala = Koala::new(config(method)).unwrap();
        let model = run(&mut koala, Model::new(), 3);
        let [weight, bias] = model.values();
        Checkpoint::of(koala.optimizer())
            .with_tensor("weight", &[2, 3], &weight)
            .and_then(|checkpoint| checkpoint.with_tensor("bias", &[2], &bias)?.write(&file))
            .unwrap();
        let whole = run(&mut koala, model, 3);

        let checkpoint = Checkpoint::read(&file).unwrap();
        let mut model = Model::new();
        let weight = TensorData::new(checkpoint.tensor::<f32>("weight", &[2, 3]).unwrap(), [2, 3]);
        let bias = TensorData::new(checkpoint.tensor::<f32>("bias", &[2]).unwrap(), [2]);
        model = Model {
            weight: model.weight.map(|_| array::<2>(weight, &device()).require_grad()),
            bias: model.bias.map(|_| array::<1>(bias, &device()).require_grad()),
        };
        let mut again = Koala::new(config(method)).unwrap();
        assert!(checkpoint.restore(again.optimizer_mut(), Loading::Exact).is_err());
        again.register(&model).unwrap();
        let loaded = checkpoint.restore(again.optimizer_mut(), Loading::Exact).unwrap();
        assert_eq!(loaded.tensors, 2);
        let resumed = run(&mut again, model, 3);
        assert_eq!(resumed.values(), whole.values());
        let state = |koala: &Koala| format!("{:?}", Checkpoint::of(koala.optimizer()));
        assert_eq!(state(&again), state(&koala));

        // Of a module whose weight is turned.
        let turned = array::<2>(TensorData::new(vec![0.0_f32; 6], [3, 2]), &device());
        let turned = Model { weight: Param::from_tensor(turned), ..Model::new() };
        let mut other = Koala::new(config(method)).unwrap();
        other.register(&turned).unwrap();
        let error = checkpoint.restore(other.optimizer_mut(), Loading::Exact).unwrap_err().to_string();
        assert!(error.contains("has shape [2, 3] in the checkpoint, [3, 2] in the optimizer"), "{error}");
    }
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

#[test]
fn parameters_and_gradients_of_the_cpu_are_not_copied() {
    let size = 1 << 20;
    let weight = array::<2>(TensorData::new(vec![1.0_f32; size], [1, size]), &device());
    let mut model = Model { weight: Param::from_tensor(weight), ..Model::new() };
    let mut koala = Koala::new(Config::default()).unwrap();
    for step in 0..3 {
        let gradients = model.gradients();
        let before = allocated_bytes();
        let report;
        (model, report) = koala.step(LOSS, model, gradients);
        let bytes = allocated_bytes() - before;
        assert_eq!(report.unwrap().stepped, 2);
        // The state, in the first step.
        assert!(step == 0 || bytes < 1 << 16, "{bytes} in step {step}");
    }
    let before = allocated_bytes();
    drop(std::hint::black_box(model.weight.val().into_data()));
    assert!(allocated_bytes() - before >= 4 * size, "the count works: while the module holds it, this is a copy");
}
