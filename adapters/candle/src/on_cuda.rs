//! Variables on a CUDA device: their steps, on candle's stream.

use candle_core::backend::BackendDevice;
use candle_core::{self as candle, CudaStorage, DType, Shape, Storage, Var};
use koala_optim::{Config, ElementType, Error, GroupId, Loss, Method, Optimizer, Report, StateType, cuda};

use crate::cuda_memory::{OnStream, Step};
use crate::given::{Given, StepLoss, element_type, elements, measured};
use crate::lending::Taken;

/// The optimizer of variables on a device. Its settings are those of the one on the CPU, which has no tensors then.
#[derive(Debug)]
pub struct OnCuda {
    on_stream: OnStream,
    /// One for each variable, by its name: some other memory, and while a step is put on the stream, the variable's
    /// own.
    places: Vec<(String, Storage)>,
}

impl OnCuda {
    /// On the device of the variable, which is the first.
    pub fn of(variable: &Var, settings: &Optimizer) -> candle::Result<Self> {
        let on_stream = OnStream::of(&some_memory(variable)?, config_of(settings)?)?;
        Ok(OnCuda { on_stream, places: Vec::new() })
    }

    pub fn optimizer_mut(&mut self) -> &mut cuda::Optimizer {
        &mut self.on_stream.optimizer
    }

    /// One more variable, which is on the same device as the others.
    pub fn add_variable(
        &mut self,
        name: &str,
        variable: &Var,
        element_type: ElementType,
        state: StateType,
        group: GroupId,
        settings: &Optimizer,
    ) -> candle::Result<()> {
        self.take_settings(settings)?;
        let place = some_memory(variable)?;
        self.on_stream
            .optimizer
            .add_tensor(name, variable.elem_count(), element_type, state, group)
            .map_err(candle::Error::wrap)?;
        self.places.push((name.into(), Storage::Cuda(place)));
        Ok(())
    }

    /// Makes groups, settings and scaling what they are in the optimizer on the CPU, groups under the same ids.
    fn take_settings(&mut self, of: &Optimizer) -> candle::Result<()> {
        let optimizer = &mut self.on_stream.optimizer;
        for group in of.groups() {
            let settings = of.settings(group).map_err(candle::Error::wrap)?;
            let Method::KoalaPlusPlus(numbers) = of.group_method(group).map_err(candle::Error::wrap)? else { continue };
            match optimizer.settings(group) {
                Ok(_) => optimizer.set_settings(group, settings).and_then(|()| optimizer.set_numbers(group, numbers)),
                Err(_) => optimizer.add_group_with(settings, numbers).map(|_| ()),
            }
            .map_err(candle::Error::wrap)?;
        }
        optimizer.set_scaling(of.config().scaling).map_err(candle::Error::wrap)
    }

    /// Puts a step on candle's stream.
    pub fn step(&mut self, settings: &Optimizer, loss: StepLoss<'_>, given: &[Given<'_>]) -> candle::Result<()> {
        config_of(settings)?;
        let (known, moments) = match loss {
            StepLoss::Known(loss) => (loss, None),
            StepLoss::OfSamples(losses) if losses.device().is_cpu() => (measured(losses)?, None),
            StepLoss::OfSamples(losses) => (Loss::new(0.0, 0.0), Some(moments(losses)?)),
        };
        self.take_settings(settings)?;
        let stream = self.on_stream.stream.clone();
        // In the same order, with some left out.
        let mut places = self.places.iter_mut();
        let taken = given.iter().map(|one| {
            let place = places.find(|(name, _)| name == one.name);
            let unknown = || candle::Error::wrap(Error::UnknownTensor { tensor: one.name.into() });
            Taken::from(one.variable, &mut place.ok_or_else(unknown)?.1)
        });
        let mut taken = taken.collect::<candle::Result<Vec<_>>>()?;
        let read: Vec<_> = given.iter().map(|one| one.gradient.storage_and_layout()).collect();
        let moments = moments.as_ref().map(|moments| moments.each_ref().map(|moment| moment.storage_and_layout()));

        let mut step = Step::new(&stream, known);
        for ((one, taken), (storage, layout)) in given.iter().zip(&mut taken).zip(&read) {
            let added = match (&mut *taken.memory, &**storage, element_type(one.variable)) {
                (Storage::Cuda(parameters), Storage::Cuda(storage), Some(element_type)) => {
                    step.add(one.name, element_type, parameters, (storage, elements(layout)))
                }
                _ => None,
            };
            if added.is_none() {
                return Err(one.is_of_a_variable());
            }
        }
        if let Some([mean, second_moment]) = &moments {
            let numbers = match (&*mean.0, &*second_moment.0) {
                (Storage::Cuda(first), Storage::Cuda(second)) => {
                    step.set_loss([(first, mean.1.start_offset()), (second, second_moment.1.start_offset())])
                }
                _ => None,
            };
            if numbers.is_none() {
                candle::bail!("the loss: expected memory of the device");
            }
        }
        self.on_stream.step(step)
    }

    /// What the last step did. The host waits for it.
    pub fn report(&mut self) -> candle::Result<Report> {
        self.on_stream.report()
    }
}

/// The mean of losses, and that of their squares, in memory of their own where the losses are.
fn moments(losses: &candle::Tensor) -> candle::Result<[candle::Tensor; 2]> {
    let losses = losses.detach().to_dtype(DType::F64)?.flatten_all()?;
    Ok([losses.mean_all()?, losses.sqr()?.mean_all()?])
}

/// A byte on the variable's device.
fn some_memory(variable: &Var) -> candle::Result<CudaStorage> {
    variable.device().as_cuda_device()?.zeros_impl(&Shape::from(1), DType::U8)
}

/// What an optimizer on a device is made with to do as the one on the CPU would.
fn config_of(optimizer: &Optimizer) -> candle::Result<cuda::Config> {
    let Config { method, noise, policy, clip_norm, details, .. } = optimizer.config();
    let refused = match () {
        () if method.name() != Method::default().name() => method.name(),
        () if clip_norm.is_some() => "clipping by the norm",
        () => return Ok(cuda::Config { noise, policy, details, ..cuda::Config::default() }),
    };
    candle::bail!("{refused} cannot be had on a CUDA device, only koala++ without a norm to clip by")
}
