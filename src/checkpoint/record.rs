//! What a checkpoint says of an optimizer beside its vectors: JSON in the metadata, and the scalars of each tensor.

use std::collections::HashSet;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::data::TensorData;
use crate::methods::plan::Scalars;
use crate::methods::{KoalaPlusPlus, Method};
use crate::optimizer::Optimizer;
use crate::optimizer::registry::{Group, count_elements};
use crate::types::element::ElementType;
use crate::types::error::{Error, check_lengths};
use crate::types::range::Range;
use crate::types::settings::{Noise, Policy, Scaling, Settings};

/// The part of a tensor's state that its scalars are.
pub const SCALARS: &str = "scalars";

/// An optimizer but for its state vectors and scalars. All numbers come back as they were, to the bit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub steps: u64,
    #[serde(deserialize_with = "method_of_any_version")]
    pub method: Method,
    pub predicted: bool,
    pub gradient_factor: f64,
    /// None where there is no limit: JSON has no infinity.
    pub gradient_limit: Option<f64>,
    pub clip_norm: Option<f64>,
    pub noise: f64,
    pub noise_rule: Noise,
    pub policy: Policy,
    pub groups: Vec<GroupRecord>,
    pub tensors: Vec<TensorRecord>,
    /// One of them that has no name, for which there is no file.
    #[serde(skip)]
    pub nameless: Option<String>,
}

/// A group: its settings, and the numbers of its method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupRecord {
    #[serde(flatten)]
    pub settings: Settings,
    /// None in a file of the first version of this library, which had numbers of KOALA++ alone for each group.
    pub method: Option<Method>,
    /// These numbers, which are no longer written.
    #[serde(flatten, skip_serializing)]
    first_version: KoalaPlusPlus,
}

impl GroupRecord {
    fn of(&Group { settings, method }: &Group) -> Self {
        GroupRecord { settings, method: Some(method), first_version: KoalaPlusPlus::default() }
    }

    /// The group in an optimizer of that method.
    pub fn group(&self, of_optimizer: Method) -> Group {
        let first_version = match of_optimizer {
            Method::KoalaPlusPlus(_) => Method::KoalaPlusPlus(self.first_version),
            other => other,
        };
        Group { settings: self.settings, method: self.method.unwrap_or(first_version) }
    }

    fn validate(&self, of_optimizer: Method) -> Result<(), Error> {
        let Group { settings, method } = self.group(of_optimizer);
        let (found, expected) = (method.name(), of_optimizer.name());
        settings.validate()?;
        method.validate()?;
        if found == expected { Ok(()) } else { Err(Error::Method { found, expected }) }
    }
}

/// A method, with the defaults of the numbers that the file lacks. The first version wrote KOALA++ by its name alone.
fn method_of_any_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    let method = match Value::deserialize(deserializer)? {
        Value::String(name) => Value::Object([(name, Value::Object(Map::new()))].into_iter().collect()),
        other => other,
    };
    serde_json::from_value(method).map_err(D::Error::custom)
}

/// A tensor, as it was added.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorRecord {
    pub name: String,
    pub length: usize,
    pub parameters: ElementType,
    pub group: usize,
    /// None if it was not told; nor had the first version of this library shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<usize>>,
}

/// Nobody takes more steps: a greater count is none, and is never written. So one is exact as f64, and what was read can
/// be stepped, written and read again.
const MOST_STEPS: u64 = (1 << 53) - 1;

/// The place of a tensor that has no name, if there is one.
pub fn nameless(optimizer: &Optimizer) -> Option<String> {
    optimizer.entries.iter().find(|entry| entry.is_nameless).map(|entry| entry.name.to_string())
}

impl Record {
    pub fn of(optimizer: &Optimizer) -> Self {
        let tensors = optimizer.entries.iter().map(|entry| TensorRecord {
            name: entry.name.to_string(),
            length: entry.state.len(),
            parameters: entry.state.parameters_type(),
            group: entry.group,
            shape: entry.shape.as_deref().map(Into::into),
        });
        Record {
            steps: optimizer.steps.min(MOST_STEPS),
            method: optimizer.method,
            predicted: optimizer.predicted,
            gradient_factor: optimizer.scaling.factor,
            gradient_limit: Some(optimizer.scaling.limit).filter(|limit| limit.is_finite()),
            clip_norm: optimizer.clip_norm,
            noise: optimizer.noise,
            noise_rule: optimizer.noise_rule,
            policy: optimizer.policy,
            groups: optimizer.groups.iter().map(GroupRecord::of).collect(),
            tensors: tensors.collect(),
            nameless: nameless(optimizer),
        }
    }

    pub fn scaling(&self) -> Scaling {
        Scaling { factor: self.gradient_factor, limit: self.gradient_limit.unwrap_or(f64::INFINITY) }
    }

    /// Whether every number is one that an optimizer can have, and that JSON can hold.
    pub fn validate(&self) -> Result<(), Error> {
        Range::AT_LEAST_ZERO.check("measurement noise", self.noise)?;
        self.noise_rule.validate()?;
        self.method.validate()?;
        self.scaling().validate()?;
        self.clip_norm.map_or(Ok(()), |norm| Range::ABOVE_ZERO.check("norm to clip by", norm))?;
        self.groups.iter().try_for_each(|group| group.validate(self.method))?;
        if self.steps > MOST_STEPS {
            let (setting, value) = ("number of steps", self.steps as f64);
            return Err(Error::Setting { setting, value, expected: "below 2⁵³" });
        }
        let mut names = HashSet::new();
        if let Some(twice) = self.tensors.iter().find(|tensor| !names.insert(&*tensor.name)) {
            return Err(Error::DuplicateTensor { tensor: twice.name.clone() });
        }
        self.tensors.iter().try_for_each(|tensor| tensor.validate(self.groups.len()))
    }
}

impl TensorRecord {
    fn validate(&self, groups: usize) -> Result<(), Error> {
        let (group, expected) = (self.group, self.length);
        if group >= groups {
            return Err(Error::UnknownGroup { group, groups });
        }
        let found = self.shape.as_deref().map_or(Some(expected), count_elements).unwrap_or(usize::MAX);
        check_lengths([("shape", found, expected)]).map_err(|error| error.of_tensor(&self.name))
    }

    /// The shape in the file of a state vector of so many elements.
    pub fn shape_of_vector(&self, length: usize) -> Vec<usize> {
        match &self.shape {
            Some(shape) if length == self.length => shape.clone(),
            _ => vec![length],
        }
    }
}

impl TensorData<'static> {
    pub fn of_scalars(scalars: &Scalars) -> Self {
        let Scalars { h_h, h_v, innovation_variance, steps } = *scalars;
        let values = [h_h, h_v, innovation_variance, steps.min(MOST_STEPS) as f64];
        let bytes = bytemuck::cast_slice::<f64, u8>(&values).to_vec();
        TensorData { element_type: ElementType::F64, shape: vec![values.len()], bytes: bytes.into() }
    }
}

impl TensorData<'_> {
    /// The scalars that this is made of, if it is, and a step of that method can leave them.
    pub fn to_scalars(&self, method: Method) -> Option<Scalars> {
        let values: Vec<f64> = bytemuck::pod_collect_to_vec(&self.bytes);
        let &[h_h, h_v, innovation_variance, count] = &values[..] else { return None };
        let steps = count as u64;
        let counts = steps as f64 == count && steps <= MOST_STEPS;
        let scalars = Scalars { h_h, h_v, innovation_variance, steps };
        (self.element_type == ElementType::F64 && counts && can_be_left(method, &scalars)).then_some(scalars)
    }
}

/// Whether a step of that method can leave such scalars, or there was none yet. Only a filter divides by them.
fn can_be_left(method: Method, &Scalars { h_h, h_v, innovation_variance: s, steps }: &Scalars) -> bool {
    let divides = steps > 0 && method.filters();
    let is_sound = |value: f64| value > 0.0 || (value == 0.0 && !divides);
    [h_h, h_v, s].iter().all(|value| value.is_finite()) && is_sound(h_h) && is_sound(s)
}
