//! The optimizer, by candle's own trait. It steps variables, which have names or are known by their places in a list.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{self as candle, Var};
use koala_optim::{Error, GroupId, Loss, Optimizer, Report, Settings, StateType};

use crate::Config;
use crate::given::{StepLoss, element_type, elements, given, measured};
use crate::lending::{Taken, lent, lent_alone};
#[cfg(feature = "cuda")]
use crate::on_cuda::OnCuda;

/// KOALA++, or another [`Method`](koala_optim::Method), over variables of candle: see the [crate].
#[derive(Debug)]
pub struct Koala {
    optimizer: Optimizer,
    state: StateType,
    /// The first, which has the settings in [`Config`].
    group: GroupId,
    variables: Vec<(String, Var)>,
    /// What `set_learning_rate` was given last, if that is out of range: it cannot return an error, so the step does.
    refused_rate: Option<f64>,
    loss: Option<Loss>,
    report: Report,
    /// What has their state if the variables are on a CUDA device; `optimizer` then has groups and settings only.
    #[cfg(feature = "cuda")]
    on_cuda: Option<OnCuda>,
}

impl candle_nn::Optimizer for Koala {
    type Config = Config;

    /// Of these variables those that are of floating-point numbers, named by their place: `"0"`, `"1"` and so on.
    /// By such names nothing is saved or loaded: see [`of_map`](Koala::of_map).
    fn new(vars: Vec<Var>, config: Config) -> candle::Result<Self> {
        let mut optimizer = Optimizer::new(config.optimizer).map_err(candle::Error::wrap)?;
        let group = optimizer.add_group(config.settings).map_err(candle::Error::wrap)?;
        let mut koala = Koala {
            optimizer,
            state: config.state,
            group,
            variables: Vec::new(),
            refused_rate: None,
            loss: None,
            report: Report::default(),
            #[cfg(feature = "cuda")]
            on_cuda: None,
        };
        for (place, variable) in vars.into_iter().enumerate().filter(|(_, variable)| variable.dtype().is_float()) {
            let name = place.to_string();
            koala.add_variable(&name, variable, group)?;
            // The optimizer on the CPU does not know variables on a GPU, whose state is not saved anyway.
            if koala.optimizer.state(&name).is_some() {
                koala.optimizer.set_nameless(&name).map_err(candle::Error::wrap)?;
            }
        }
        Ok(koala)
    }

    /// Takes the loss from [`Koala::set_loss`], once: a method that needs one has to be given one for each step.
    fn step(&mut self, gradients: &GradStore) -> candle::Result<()> {
        let loss = match self.loss.take() {
            Some(loss) => loss,
            None if self.optimizer.method().measures() => {
                let name = self.optimizer.method().name();
                candle::bail!(
                    "{name} needs the loss of these gradients: set_loss before step, step_with or backward_step"
                )
            }
            None => Loss::new(0.0, 0.0),
        };
        self.put(StepLoss::Known(loss), gradients)
    }

    /// The learning rate of the first group.
    fn learning_rate(&self) -> f64 {
        let of_group = self.optimizer.settings(self.group).map_or(f64::NAN, |settings| settings.learning_rate);
        self.refused_rate.unwrap_or(of_group)
    }

    /// Sets one rate for all groups, whatever they had. A group's own is set by its id with
    /// [`Optimizer::set_learning_rate`] of [`Koala::optimizer_mut`]. A rate out of range is the next step's error.
    fn set_learning_rate(&mut self, learning_rate: f64) {
        let mut groups = self.optimizer.groups();
        let refused = groups.any(|group| self.optimizer.set_learning_rate(group, learning_rate).is_err());
        self.refused_rate = refused.then_some(learning_rate);
    }

    fn backward_step(&mut self, loss: &candle::Tensor) -> candle::Result<()> {
        let gradients = match loss.elem_count() {
            0 => return Err(candle::Error::wrap(Error::NoSamples)),
            1 => loss.backward()?,
            _ => loss.mean_all()?.backward()?,
        };
        self.put(StepLoss::OfSamples(loss), &gradients)
    }
}

impl Koala {
    /// Over the variables of a map, by their names and in the order of those, so that two runs give the same bits: the
    /// order of [`VarMap::all_vars`](candle_nn::VarMap::all_vars) differs from run to run.
    ///
    /// # Errors
    /// Those of [`add_variable`](Self::add_variable), and settings out of range.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use koala_candle::{Config, Koala};
    ///
    /// let map = VarMap::new();
    /// let layer = candle_nn::linear(3, 2, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu).pp("layer"))?;
    /// let optimizer = Koala::of_map(&map, Config::default())?;
    /// assert!(optimizer.optimizer().state("layer.weight").is_some());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn of_map(map: &candle_nn::VarMap, config: Config) -> candle::Result<Self> {
        let mut koala = <Koala as candle_nn::Optimizer>::new(Vec::new(), config)?;
        let Ok(variables) = map.data().lock() else {
            candle::bail!("another thread panicked with the map in its hands")
        };
        let named: BTreeMap<_, _> = variables.iter().collect();
        for (name, variable) in named {
            koala.add_variable(name, variable.clone(), koala.group)?;
        }
        Ok(koala)
    }

    /// A new group, for variables with settings of their own.
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range.
    ///
    /// ```
    /// use candle_core::{DType, Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala};
    /// use koala_optim::Settings;
    ///
    /// let mut optimizer = Koala::empty(Config::default())?;
    /// let decayed = optimizer.add_group(Settings { weight_decay: 5e-4, ..Settings::default() })?;
    /// optimizer.add_variable("weight", Var::zeros((2, 3), DType::F32, &Device::Cpu)?, decayed)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn add_group(&mut self, settings: Settings) -> candle::Result<GroupId> {
        self.optimizer.add_group(settings).map_err(candle::Error::wrap)
    }

    /// The groups, in the order in which they were added. The first is that of the settings in [`Config`].
    ///
    /// ```
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala};
    /// use koala_optim::Settings;
    /// let optimizer = Koala::empty(Config::default())?;
    /// assert!(optimizer.groups().all(|group| optimizer.optimizer().settings(group) == Ok(Settings::default())));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.optimizer.groups()
    }

    /// One more variable, by a name.
    ///
    /// # Errors
    /// A variable of another type than f32, f64, bf16 and f16, or on another device than those before it, or on one that
    /// there are no steps for; and those of [`Optimizer::add_tensor`], a variable that was added before among them. On a
    /// GPU, also what [cannot be had there](crate#on-a-gpu), and those of `cuda::Optimizer::add_tensor` and, for the
    /// first, of `cuda::Device::new`.
    ///
    /// See [`add_group`](Self::add_group).
    pub fn add_variable(&mut self, name: &str, variable: Var, group: GroupId) -> candle::Result<()> {
        let Some(element_type) = element_type(&variable) else {
            candle::bail!("tensor {name:?}: expected f32, f64, bf16 or f16, found {:?}", variable.dtype())
        };
        let device = variable.device();
        let is_supported = device.is_cpu() || cfg!(feature = "cuda") && device.is_cuda();
        if !is_supported {
            let location = device.location();
            candle::bail!("tensor {name:?}: expected the CPU, or a GPU with the feature cuda, found {location:?}");
        }
        if let Some((_, first)) = self.variables.first().filter(|(_, first)| !first.device().same_device(device)) {
            let [expected, found] = [first.device(), device].map(candle::Device::location);
            candle::bail!("tensor {name:?}: expected the device of the others, {expected:?}, found another, {found:?}");
        }
        if self.variables.iter().any(|(_, known)| known.id() == variable.id()) {
            return Err(candle::Error::wrap(Error::DuplicateTensor { tensor: name.into() }));
        }
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            let settings = &self.optimizer;
            match &mut self.on_cuda {
                Some(on_cuda) => on_cuda.add_variable(name, &variable, element_type, self.state, group, settings)?,
                none => {
                    let mut on_cuda = OnCuda::of(&variable, settings)?;
                    on_cuda.add_variable(name, &variable, element_type, self.state, group, settings)?;
                    *none = Some(on_cuda);
                }
            }
            self.variables.push((name.into(), variable));
            return Ok(());
        }
        self.optimizer
            .add_tensor(name, variable.elem_count(), element_type, self.state, group)
            .and_then(|()| self.optimizer.set_shape(name, variable.dims()))
            .map_err(candle::Error::wrap)?;
        self.variables.push((name.into(), variable));
        Ok(())
    }

    /// The loss of the next step's gradients, for a training loop that calls candle's `step`.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala, measured};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::Cpu)?;
    /// let mut optimizer = Koala::new(vec![weight.clone()], Config::default())?;
    /// let loss = weight.sqr()?.sum_all()?;
    /// let gradients = loss.backward()?;
    /// optimizer.set_loss(measured(&loss)?);
    /// optimizer.step(&gradients)?;
    /// assert!(optimizer.step(&gradients).is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn set_loss(&mut self, loss: Loss) {
        self.loss = Some(loss);
    }

    /// Steps every variable that has a gradient, with this loss. On a GPU, the host waits for it.
    ///
    /// # Errors
    /// A gradient of another shape or type, or one that is the memory of a variable; and those of
    /// [`Optimizer::step`], on a GPU `cuda::Optimizer::step`. Nothing has changed then.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala, measured};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::Cpu)?;
    /// let mut optimizer = Koala::new(vec![weight.clone()], Config::default())?;
    /// let losses = weight.sqr()?;
    /// let report = optimizer.step_with(measured(&losses)?, &losses.mean_all()?.backward()?)?;
    /// assert_eq!(report.first_steps, 1);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn step_with(&mut self, loss: Loss, gradients: &GradStore) -> candle::Result<Report> {
        self.put(StepLoss::Known(loss), gradients)?;
        self.wait_for_report()
    }

    /// A step, which on a GPU has not run when this returns.
    fn put(&mut self, loss: StepLoss<'_>, gradients: &GradStore) -> candle::Result<()> {
        if let Some(learning_rate) = self.refused_rate {
            self.optimizer.set_learning_rate(self.group, learning_rate).map_err(candle::Error::wrap)?;
        }
        let given = given(&self.variables, gradients)?;
        #[cfg(feature = "cuda")]
        if let Some(on_cuda) = &mut self.on_cuda {
            return on_cuda.step(&self.optimizer, loss, &given);
        }
        let loss = match loss {
            StepLoss::Known(loss) => loss,
            StepLoss::OfSamples(losses) => measured(losses)?,
        };
        let mut taken = given.iter().map(|one| Taken::from_cpu(one.variable)).collect::<Result<Vec<_>, _>>()?;
        let read: Vec<_> = given.iter().map(|one| one.gradient.storage_and_layout()).collect();
        let mut tensors = Vec::with_capacity(taken.len());
        for ((one, taken), (storage, layout)) in given.iter().zip(&mut taken).zip(&read) {
            let tensor = lent(one.name, &mut taken.memory, storage, elements(layout));
            tensors.push(tensor.ok_or_else(|| one.is_of_a_variable())?);
        }
        self.report = self.optimizer.step(loss, &mut tensors).map_err(candle::Error::wrap)?;
        Ok(())
    }

    /// As [`Optimizer::predict`], which KOALA-M needs before the loss is computed; nothing for another method.
    ///
    /// # Errors
    /// Those of [`Optimizer::predict`]. Nothing has changed then.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala};
    /// use koala_optim::{KoalaM, Method};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::Cpu)?;
    /// let method = Method::KoalaM(KoalaM::default());
    /// let config = Config { optimizer: koala_optim::Config { method, ..Default::default() }, ..Config::default() };
    /// let mut optimizer = Koala::new(vec![weight.clone()], config)?;
    /// optimizer.predict()?;
    /// optimizer.backward_step(&weight.sqr()?)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn predict(&mut self) -> candle::Result<()> {
        #[cfg(feature = "cuda")]
        if self.on_cuda.is_some() {
            return Ok(());
        }
        let mut taken =
            self.variables.iter().map(|(_, variable)| Taken::from_cpu(variable)).collect::<Result<Vec<_>, _>>()?;
        let named = self.variables.iter().zip(&mut taken);
        let mut tensors: Vec<_> = named.filter_map(|((name, _), taken)| lent_alone(name, &mut taken.memory)).collect();
        self.optimizer.predict(&mut tensors).map_err(candle::Error::wrap)
    }

    /// What the last step did; all zeros before one. On a GPU it is the last of those whose report was
    /// [waited for](Self::wait_for_report).
    ///
    /// See the [crate's example](crate).
    pub fn report(&self) -> Report {
        self.report
    }

    /// What the last step did: on a GPU, the host waits for it.
    ///
    /// # Errors
    /// Those of `cuda::Optimizer::report`; none on the CPU.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::cuda_if_available(0)?)?;
    /// let mut optimizer = Koala::new(vec![weight.clone()], Config::default())?;
    /// optimizer.backward_step(&weight.sqr()?)?;
    /// assert_eq!(optimizer.wait_for_report()?.first_steps, 1);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn wait_for_report(&mut self) -> candle::Result<Report> {
        #[cfg(feature = "cuda")]
        if let Some(on_cuda) = &mut self.on_cuda {
            self.report = on_cuda.report()?;
        }
        Ok(self.report)
    }

    /// The optimizer below, for what candle's interface does not have: the state, the noise, details.
    ///
    /// ```
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala};
    /// assert_eq!(Koala::empty(Config::default())?.optimizer().noise(), 1.0);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The same, to change settings, scaling and threads from the next step on.
    ///
    /// ```
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala};
    /// use koala_optim::Scaling;
    /// let mut optimizer = Koala::empty(Config::default())?;
    /// optimizer.optimizer_mut().set_scaling(Scaling { limit: 1.0, ..Scaling::default() })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// The optimizer of variables on a GPU, if these are: for their state, which is on the device, and details. Groups
    /// and settings are those of [`optimizer`](Self::optimizer) at each step.
    ///
    /// ```no_run
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_candle::{Config, Koala};
    /// use koala_optim::cuda::Stream;
    ///
    /// let device = Device::new_cuda(0)?;
    /// let mut optimizer = Koala::new(vec![Var::new(&[1.0_f32, -2.0], &device)?], Config::default())?;
    /// device.synchronize()?; // What has been put on candle's stream is done, so that any stream will do here:
    /// println!("{:?}", optimizer.cuda_optimizer_mut().unwrap().state(Stream::DEFAULT, "0"));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[cfg(feature = "cuda")]
    pub fn cuda_optimizer_mut(&mut self) -> Option<&mut koala_optim::cuda::Optimizer> {
        self.on_cuda.as_mut().map(OnCuda::optimizer_mut)
    }
}
