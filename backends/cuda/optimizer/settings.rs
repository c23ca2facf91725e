//! What a step goes by, and may change from one to the next: settings of groups, and what becomes of gradients.

use super::Optimizer;
use crate::cuda::device_numbers::{DeviceLearningRate, DeviceScaler};
use crate::cuda::error::Error;
use crate::cuda::tensor::check_address;
use crate::methods::{KoalaPlusPlus, Method};
use crate::optimizer::registry::GroupId;
use crate::types::element::ElementType;
use crate::types::error::Error as CallError;
use crate::types::settings::{Scaling, Settings};

impl Optimizer {
    /// The settings of a group.
    ///
    /// # Errors
    /// [`Error::Call`] if there is no such group.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// assert_eq!(optimizer.settings(group)?, Settings::default());
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn settings(&self, group: GroupId) -> Result<Settings, Error> {
        let error = CallError::UnknownGroup { group: group.0, groups: self.groups.len() };
        Ok(self.groups.get(group.0).ok_or(error)?.settings)
    }

    /// Changes the settings of a group from the next step on. A learning rate on the device stays.
    ///
    /// # Errors
    /// [`Error::Call`] for a number out of range or if there is no such group.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_settings(group, Settings { frozen: true, ..optimizer.settings(group)? })?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn set_settings(&mut self, group: GroupId, settings: Settings) -> Result<(), Error> {
        settings.validate()?;
        if self.settings(group)? != settings {
            self.groups[group.0].settings = settings;
            self.groups[group.0].changed = true;
        }
        Ok(())
    }

    /// The numbers of a group's KOALA++.
    ///
    /// # Errors
    /// [`Error::Call`] if the optimizer has not so many groups.
    ///
    /// See [`add_group_with`](Self::add_group_with).
    pub fn numbers(&self, group: GroupId) -> Result<KoalaPlusPlus, Error> {
        let error = CallError::UnknownGroup { group: group.0, groups: self.groups.len() };
        Ok(self.groups.get(group.0).ok_or(error)?.numbers)
    }

    /// Changes the numbers of a group's KOALA++ from the next step on.
    ///
    /// # Errors
    /// As [`add_group_with`](Self::add_group_with).
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer};
    /// # use koala_optim::{KoalaPlusPlus, Settings};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_numbers(group, KoalaPlusPlus { process_noise: 1.0, ..optimizer.numbers(group)? })?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn set_numbers(&mut self, group: GroupId, numbers: KoalaPlusPlus) -> Result<(), Error> {
        Method::from(numbers).validate()?;
        if self.numbers(group)? != numbers {
            self.groups[group.0].numbers = numbers;
            self.groups[group.0].changed = true;
        }
        Ok(())
    }

    /// Changes the learning rate of a group from the next step on.
    ///
    /// # Errors
    /// As [`set_settings`](Self::set_settings).
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_learning_rate(group, 0.1)?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn set_learning_rate(&mut self, group: GroupId, learning_rate: f64) -> Result<(), Error> {
        self.set_settings(group, Settings { learning_rate, ..self.settings(group)? })?;
        self.set_device_learning_rate(group, None)
    }

    /// Has every step from the next one on read the learning rate of a group on the device, when it runs; or no longer,
    /// and take that of its settings. [`set_learning_rate`](Self::set_learning_rate) ends it too. A captured step reads
    /// what was last written of this before its graph is launched, as with all settings.
    ///
    /// # Errors
    /// [`Error::Call`] if there is no such group, [`Error::NotOnDevice`], [`Error::Misaligned`].
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, DeviceLearningRate, Optimizer};
    /// # use koala_optim::{ElementType, Settings};
    /// # fn buffer() -> u64 { 0 }
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// // SAFETY: the buffer is the device's, of an f32, for as long as the optimizer.
    /// let rate = unsafe { DeviceLearningRate::new(ElementType::F32, buffer()) };
    /// optimizer.set_device_learning_rate(group, Some(rate))?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn set_device_learning_rate(&mut self, group: GroupId, rate: Option<DeviceLearningRate>) -> Result<(), Error> {
        self.settings(group)?;
        if let Some(DeviceLearningRate { address, element_type }) = rate {
            self.check_number("learning rate", element_type, address)?;
        }
        let group = &mut self.groups[group.0];
        if group.device_learning_rate != rate {
            group.device_learning_rate = rate;
            group.changed = true;
        }
        Ok(())
    }

    /// Changes what becomes of gradients as they are loaded, from the next step on. At first they are taken as they are. A
    /// captured step keeps what held when it was captured.
    ///
    /// # Errors
    /// [`Error::Call`] for a number out of range.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer};
    /// # use koala_optim::Scaling;
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// optimizer.set_scaling(Scaling { factor: 1.0 / 1024.0, ..Scaling::default() })?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn set_scaling(&mut self, scaling: Scaling) -> Result<(), Error> {
        scaling.validate()?;
        self.scaling = scaling;
        Ok(())
    }

    /// Has every step from the next one on read what a gradient scaler keeps on the device, when it runs; or no longer. A
    /// captured step keeps the addresses that held when it was captured.
    ///
    /// # Errors
    /// [`Error::NotOnDevice`], [`Error::Misaligned`].
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, DeviceScaler, Optimizer};
    /// # use koala_optim::ElementType;
    /// # fn buffers() -> (u64, u64) { (0, 0) }
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let (scale, found_infinite) = buffers();
    /// // SAFETY: the buffers are the device's, of an f32 each, for as long as the optimizer.
    /// let scaler = unsafe { DeviceScaler::new(ElementType::F32, Some(scale), Some(found_infinite)) };
    /// optimizer.set_device_scaler(Some(scaler))?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn set_device_scaler(&mut self, scaler: Option<DeviceScaler>) -> Result<(), Error> {
        let scaler = scaler.unwrap_or(DeviceScaler::NONE);
        let DeviceScaler { scale, found_infinite, element_type } = scaler;
        for (buffer, address) in [("scale of the loss", scale), ("flag of what is infinite", found_infinite)] {
            if address != 0 {
                self.check_number(buffer, element_type, address)?;
            }
        }
        self.scaler = scaler;
        Ok(())
    }

    /// Whether a number of that type can be at the address.
    pub(super) fn check_number(&self, what: &'static str, element_type: ElementType, at: u64) -> Result<(), Error> {
        check_address("", what, element_type, at, |address| self.counted.driver.is_on_device(address))
    }
}
