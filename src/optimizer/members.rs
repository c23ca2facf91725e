//! What an optimizer is told before and between its steps: groups, their settings, and tensors.

use crate::methods::Method;
use crate::methods::plan::Scalars;
use crate::optimizer::Optimizer;
use crate::optimizer::registry::{Entry, Group, GroupId, count_elements};
use crate::optimizer::state::{StateType, TensorState};
use crate::types::element::ElementType;
use crate::types::error::{Error, check_lengths, owned};
use crate::types::settings::Settings;

// The groups.
impl Optimizer {
    /// A new group, whose method has the numbers of [`Config::method`](crate::Config::method).
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range, [`Error::Memory`] if there is none for it.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let no_decay = optimizer.add_group(Settings { weight_decay: 0.0, ..Settings::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn add_group(&mut self, settings: Settings) -> Result<GroupId, Error> {
        settings.validate()?;
        // So that a step does not allocate.
        let steps = (self.groups.len() + 1).saturating_sub(self.group_steps.len());
        let room = self.groups.try_reserve(1).and_then(|()| self.group_steps.try_reserve(steps));
        room.map_err(|_| Error::Memory { tensor: String::new(), elements: 0 })?;
        self.groups.push(Group { settings, method: self.method });
        Ok(GroupId(self.groups.len() - 1))
    }

    /// A new group, whose method has numbers of its own.
    ///
    /// # Errors
    /// As [`add_group`](Self::add_group) and [`set_method`](Self::set_method); there is no new group then.
    ///
    /// ```
    /// # use koala_optim::{AdamW, Config, Method, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config { method: Method::AdamW(AdamW::default()), ..Config::default() })?;
    /// let embeddings = optimizer.add_group_with(Settings::default(), AdamW { beta2: 0.95, ..AdamW::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn add_group_with(&mut self, settings: Settings, method: impl Into<Method>) -> Result<GroupId, Error> {
        let group = self.add_group(settings)?;
        self.set_method(group, method).inspect_err(|_| self.groups.truncate(group.0))?;
        Ok(group)
    }

    /// Changes the numbers of a group's method from the next step on.
    ///
    /// # Errors
    /// [`Error::Method`] for another method than the optimizer's, for one whose numbers all tensors share (KOALA-V and
    /// KOALA-M), and where tensors of the group have other state vectors than it; [`Error::Setting`] for a number out
    /// of range; [`Error::UnknownGroup`].
    ///
    /// ```
    /// # use koala_optim::{AdamW, Config, Error, KoalaPlusPlus, Method, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_method(group, KoalaPlusPlus { process_noise: 1.0, ..KoalaPlusPlus::default() })?;
    /// let error = optimizer.set_method(group, AdamW::default()).unwrap_err();
    /// assert_eq!(error, Error::Method { found: "adamw", expected: "koala++" });
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_method(&mut self, group: GroupId, method: impl Into<Method>) -> Result<(), Error> {
        let method = method.into();
        method.validate()?;
        let own = self.group_method(group)?;
        let refused = |found, expected| Err(Error::Method { found, expected });
        if method.name() != own.name() {
            return refused(method.name(), own.name());
        }
        if own.is_shared() && method != own {
            return refused("one with numbers of its own", "one with the numbers that all tensors share");
        }
        if !method.is_like(&own) && self.entries.iter().any(|entry| entry.group == group.0) {
            return refused("one with other state vectors", "one with those of the group's tensors");
        }
        self.groups[group.0].method = method;
        Ok(())
    }

    /// The method of a group, with its numbers as they are after the last step.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`] if the optimizer has not so many groups.
    ///
    /// See [`set_method`](Self::set_method).
    pub fn group_method(&self, group: GroupId) -> Result<Method, Error> {
        let own = self.groups.get(group.0).ok_or_else(|| self.unknown_group(group))?.method;
        Ok(if own.is_shared() { self.method } else { own })
    }

    /// The groups, in the order in which they were added.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let (first, second) = (optimizer.add_group(Settings::default())?, optimizer.add_group(Settings::default())?);
    /// assert!(optimizer.groups().eq([first, second]));
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.groups.len()).map(GroupId)
    }

    /// The settings of a group.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`] if the optimizer has not so many groups.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// assert_eq!(optimizer.settings(group)?, Settings::default());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn settings(&self, group: GroupId) -> Result<Settings, Error> {
        self.groups.get(group.0).map(|group| group.settings).ok_or_else(|| self.unknown_group(group))
    }

    /// Changes the settings of a group from the next step on.
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range, [`Error::UnknownGroup`] if the optimizer has not so many groups.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_settings(group, Settings { frozen: true, ..optimizer.settings(group)? })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_settings(&mut self, group: GroupId, settings: Settings) -> Result<(), Error> {
        settings.validate()?;
        let error = self.unknown_group(group);
        self.groups.get_mut(group.0).ok_or(error)?.settings = settings;
        Ok(())
    }

    /// Changes the learning rate of a group from the next step on.
    ///
    /// # Errors
    /// As [`set_settings`](Self::set_settings).
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_learning_rate(group, 0.1)?;
    /// assert!(optimizer.set_learning_rate(group, f64::NAN).is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_learning_rate(&mut self, group: GroupId, learning_rate: f64) -> Result<(), Error> {
        self.set_settings(group, Settings { learning_rate, ..self.settings(group)? })
    }
}

// The tensors.
impl Optimizer {
    fn unknown_group(&self, group: GroupId) -> Error {
        Error::UnknownGroup { group: group.0, groups: self.groups.len() }
    }

    /// Makes a tensor known, and allocates its state. A tensor may be added at any time.
    ///
    /// # Errors
    /// [`Error::DuplicateTensor`], [`Error::UnknownGroup`], or [`Error::Memory`].
    ///
    /// ```
    /// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("bias", 10, ElementType::F32, StateType::Same, group)?;
    /// assert!(optimizer.add_tensor("bias", 10, ElementType::F32, StateType::Same, group).is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn add_tensor(
        &mut self,
        name: &str,
        length: usize,
        parameters: ElementType,
        state: StateType,
        group: GroupId,
    ) -> Result<(), Error> {
        if self.by_name.contains_key(name) {
            return Err(Error::DuplicateTensor { tensor: owned(name) });
        }
        let method = self.group_method(group)?;
        let state =
            TensorState::with_types(&method, length, parameters, state).map_err(|error| error.of_tensor(name))?;
        let [known, name] = self
            .make_room(name)
            .ok_or_else(|| Error::Memory { tensor: String::new(), elements: length }.of_tensor(name))?;
        self.by_name.insert(known, self.entries.len());
        let group = group.0;
        self.entries.push(Entry { name, is_nameless: false, group, shape: None, given_in_call: 0, state });
        Ok(())
    }

    /// All the memory that one more tensor of that name needs, its state apart: its name twice, and room in the
    /// lists. `None` where there is none for it.
    fn make_room(&mut self, name: &str) -> Option<[Box<str>; 2]> {
        let copied = || Some(owned(name).into_boxed_str()).filter(|copy| copy.len() == name.len());
        self.by_name.try_reserve(1).ok()?;
        self.entries.try_reserve(1).ok()?;
        // So that a step with details does not allocate.
        self.details.try_reserve(self.entries.len() + 1 - self.details.len()).ok()?;
        Some([copied()?, copied()?])
    }

    /// Tells the shape of a tensor. No step reads it: a checkpoint keeps it, and is not loaded into a tensor of another
    /// shape. A tensor whose shape was not told has one dimension there, and any shape with as many elements fits.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Length`] if the shape's lengths do not make the tensor's number of elements
    /// together.
    ///
    /// ```
    /// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("weight", 6, ElementType::F32, StateType::Same, group)?;
    /// optimizer.set_shape("weight", &[2, 3])?;
    /// assert!(optimizer.set_shape("weight", &[3, 3]).is_err());
    /// assert_eq!(optimizer.shape("weight"), Some(&[2, 3][..]));
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_shape(&mut self, name: &str, shape: &[usize]) -> Result<(), Error> {
        let index = *self.by_name.get(name).ok_or_else(|| Error::UnknownTensor { tensor: owned(name) })?;
        let entry = &mut self.entries[index];
        let (found, expected) = (count_elements(shape).unwrap_or(usize::MAX), entry.state.len());
        check_lengths([("shape", found, expected)]).map_err(|error| error.of_tensor(name))?;
        entry.shape = Some(shape.into());
        Ok(())
    }

    /// The shape of a tensor, if there is one of that name and its shape was told.
    ///
    /// See [`set_shape`](Self::set_shape).
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries[*self.by_name.get(name)?].shape.as_deref()
    }

    /// Tells that the name of a tensor is only its place in a list. In the next run the list may be in another order,
    /// so that the name would be another tensor's: an optimizer with such a tensor is neither saved to a checkpoint nor
    /// loaded from one.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    ///
    /// ```
    /// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("0", 6, ElementType::F32, StateType::Same, group)?;
    /// optimizer.set_nameless("0")?;
    /// # #[cfg(feature = "checkpoint")]
    /// assert!(optimizer.save("run.safetensors").is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_nameless(&mut self, name: &str) -> Result<(), Error> {
        let index = self.by_name.get(name).ok_or_else(|| Error::UnknownTensor { tensor: owned(name) })?;
        self.entries[*index].is_nameless = true;
        Ok(())
    }

    /// The filter of a tensor, if there is one of that name.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert!(Optimizer::new(Config::default())?.state("weight").is_none());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn state(&self, name: &str) -> Option<&TensorState> {
        Some(&self.entries[*self.by_name.get(name)?].state)
    }

    /// Restarts the filter of a tensor: its next step will be a first step.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert!(Optimizer::new(Config::default())?.restart("weight").is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn restart(&mut self, name: &str) -> Result<(), Error> {
        let index = self.by_name.get(name).ok_or_else(|| Error::UnknownTensor { tensor: owned(name) })?;
        self.entries[*index].state.restart();
        Ok(())
    }

    /// The names of the tensors and their scalars, in the order in which they were added.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert_eq!(Optimizer::new(Config::default())?.scalars().count(), 0);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn scalars(&self) -> impl Iterator<Item = (&str, Scalars)> {
        self.entries.iter().map(|entry| (&*entry.name, entry.state.scalars()))
    }
}
