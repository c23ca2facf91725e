//! Models whose tensors have any types and lengths, with gradients that follow from a seed.

use koala_optim::checkpoint::Checkpoint;
use koala_optim::{
    Config, Element, ElementType, Error, KoalaPlusPlus, Loss, Method, Noise, Optimizer, Policy, Report, Scaling,
    Settings, StateType, Tensor, bf16, f16,
};

use super::common::{offset_vector, random_vector, scalar_bits};

/// What a model is made from.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Whether now and then a gradient is zero, or has an infinite element, or the loss is NaN.
    pub rough: bool,
    pub noise: Noise,
    pub policy: Policy,
    pub method: Method,
    pub scaling: Scaling,
    pub clip_norm: Option<f64>,
    /// The settings of each group, and numbers of its own, if they are of the plan's method.
    pub groups: Vec<(Settings, Option<Method>)>,
    pub tensors: Vec<Planned>,
}

#[derive(Clone, Debug)]
pub struct Planned {
    pub name: String,
    pub length: usize,
    pub types: (ElementType, StateType),
    pub group: usize,
}

impl Planned {
    pub fn new(name: &str, length: usize, types: (ElementType, StateType), group: usize) -> Self {
        Planned { name: name.into(), length, types, group }
    }
}

impl Plan {
    /// What a tensor is stepped with in the step of that number.
    fn gradient(&self, number: u64, place: usize) -> Values {
        let Planned { length, types: (element_type, _), .. } = self.tensors[place];
        let seed = self.seed + 1000 * (number + 1) + place as u64;
        let mut gradient = random_vector(seed, length, 0.1);
        match (self.rough, seed % 7) {
            (true, 0) => gradient.fill(0.0),
            // Not NaN, whose payload the contract does not promise.
            (true, 1) => gradient.iter_mut().rev().take(1).for_each(|last| *last = f64::INFINITY),
            _ => {}
        }
        Values::of_type(element_type, &gradient)
    }
}

/// Numbers of a type that is a value.
pub enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

/// `$body` with the elements of `$values`.
macro_rules! typed {
    ($values:expr, |$elements:ident| $body:expr) => {
        match $values {
            Values::F32($elements) => $body,
            Values::F64($elements) => $body,
            Values::Bf16($elements) => $body,
            Values::F16($elements) => $body,
        }
    };
}

impl Values {
    fn of_type(element_type: ElementType, values: &[f64]) -> Self {
        match element_type {
            ElementType::F32 => Values::F32(offset_vector(values, 0)),
            ElementType::F64 => Values::F64(offset_vector(values, 0)),
            ElementType::Bf16 => Values::Bf16(offset_vector(values, 0)),
            ElementType::F16 => Values::F16(offset_vector(values, 0)),
        }
    }

    fn bytes(&self) -> &[u8] {
        typed!(self, |elements| bytemuck::cast_slice(elements))
    }
}

fn read<P: Element>(checkpoint: &Checkpoint, name: &str, elements: &mut Vec<P>) {
    *elements = checkpoint.tensor(name, &[elements.len(), 1]).unwrap();
}

/// A model in training.
pub struct Model {
    pub plan: Plan,
    pub optimizer: Optimizer,
    parameters: Vec<Values>,
}

impl Model {
    /// Before the first step. Threads and backend are of `config`.
    pub fn new(plan: &Plan, config: Config) -> Self {
        let Plan { noise, policy, method, scaling, clip_norm, .. } = *plan;
        let config = Config { noise, policy, method, scaling, clip_norm, ..config };
        let mut optimizer = Optimizer::new(config).unwrap();
        let mut add = |(settings, own): &(Settings, Option<Method>)| match own {
            Some(own) if own.name() == method.name() => optimizer.add_group_with(*settings, *own).unwrap(),
            _ => optimizer.add_group(*settings).unwrap(),
        };
        let groups: Vec<_> = plan.groups.iter().map(&mut add).collect();
        let mut parameters = Vec::new();
        for (place, Planned { name, length, types: (element_type, state), group }) in plan.tensors.iter().enumerate() {
            optimizer.add_tensor(name, *length, *element_type, *state, groups[*group]).unwrap();
            let values = random_vector(plan.seed + place as u64, *length, 1.0);
            parameters.push(Values::of_type(*element_type, &values));
        }
        Model { plan: plan.clone(), optimizer, parameters }
    }

    /// The steps of these numbers, each with its prediction.
    pub fn step(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.predict(number);
            self.correct(number).unwrap();
        }
    }

    /// What comes before the step of that number.
    pub fn predict(&mut self, number: u64) {
        self.with_tensors(number, |optimizer, tensors| optimizer.predict(tensors)).unwrap();
    }

    /// The step of that number, after its prediction.
    pub fn correct(&mut self, number: u64) -> Result<Report, Error> {
        let rough = self.plan.rough && (self.plan.seed + number).is_multiple_of(6);
        let mean = if rough { f64::NAN } else { 0.9 / (number + 1) as f64 };
        let loss = Loss::new(mean, 0.7 + 0.01 * number as f64);
        self.with_tensors(number, |optimizer, tensors| optimizer.step(loss, tensors))
    }

    /// Calls `task` with the tensors of a step. Not every one is in each.
    fn with_tensors<T>(&mut self, number: u64, task: impl FnOnce(&mut Optimizer, &mut [Tensor<'_>]) -> T) -> T {
        let plan = &self.plan;
        let gradients: Vec<Values> = (0..plan.tensors.len()).map(|place| plan.gradient(number, place)).collect();
        let mut tensors = Vec::new();
        for (place, (values, gradient)) in self.parameters.iter_mut().zip(&gradients).enumerate() {
            let name = &plan.tensors[place].name;
            if (plan.seed + number + place as u64).is_multiple_of(5) {
                continue;
            }
            let gradient = gradient.bytes();
            tensors.push(typed!(values, |own| Tensor::new(name, own, bytemuck::cast_slice(gradient))));
        }
        task(&mut self.optimizer, &mut tensors)
    }

    /// The optimizer, with the parameters.
    pub fn checkpoint(&self) -> Checkpoint<'_> {
        let mut checkpoint = Checkpoint::of(&self.optimizer);
        for (tensor, values) in self.plan.tensors.iter().zip(&self.parameters) {
            let shape = [tensor.length, 1];
            checkpoint = typed!(values, |elements| checkpoint.with_tensor(&tensor.name, &shape, elements).unwrap());
        }
        checkpoint
    }

    pub fn read_parameters(&mut self, checkpoint: &Checkpoint) {
        for (tensor, values) in self.plan.tensors.iter().zip(&mut self.parameters) {
            typed!(values, |elements| read(checkpoint, &tensor.name, elements));
        }
    }

    /// The parameters' bytes.
    pub fn parameters(&self) -> Vec<&[u8]> {
        self.parameters.iter().map(Values::bytes).collect()
    }
}

/// The state of each tensor, and the noise, as bits.
pub type State = (Vec<(String, [Vec<u8>; 2], [u64; 4])>, u64);

pub fn state(optimizer: &Optimizer) -> State {
    let tensors = optimizer.scalars().map(|(name, scalars)| {
        let vectors = optimizer.state(name).unwrap().bytes().map(<[u8]>::to_vec);
        (name.to_owned(), vectors, scalar_bits(&scalars))
    });
    (tensors.collect(), optimizer.noise().to_bits())
}

/// The same, with settings, rules and the number of steps.
pub fn all(optimizer: &Optimizer) -> (State, String) {
    (state(optimizer), format!("{:?}", Checkpoint::of(optimizer)))
}

/// A small model of all that there is: no elements, one, several; two groups; half precision beside f64.
pub fn small() -> Plan {
    let settings = Settings { weight_decay: 0.01, learning_rate: 0.1 + 0.2, ..Settings::default() };
    let own = KoalaPlusPlus { process_noise: 1.0 / 3.0, ..KoalaPlusPlus::default() };
    Plan {
        seed: 7,
        rough: false,
        noise: Noise::default(),
        policy: Policy::default(),
        method: Method::default(),
        scaling: Scaling::default(),
        clip_norm: None,
        groups: vec![(settings, None), (Settings::default(), Some(own.into()))],
        tensors: vec![
            Planned::new("weight", 5, (ElementType::F32, StateType::Same), 0),
            Planned::new("bias", 1, (ElementType::F64, StateType::Same), 1),
            Planned::new("half", 3, (ElementType::Bf16, StateType::F32), 1),
            Planned::new("empty", 0, (ElementType::F16, StateType::Bf16), 0),
        ],
    }
}

/// A model of one parameter, whose file is as small as there are any.
pub fn tiny(method: Method) -> Plan {
    let tensors = vec![Planned::new("w", 1, (ElementType::F32, StateType::Same), 0)];
    Plan { method, groups: vec![(Settings::default(), None)], tensors, ..small() }
}

pub fn small_model(steps: u64) -> Model {
    let mut model = Model::new(&small(), Config::default());
    model.step(0..steps);
    model
}
