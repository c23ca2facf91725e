//! What C knows by numbers: an optimizer's groups and its tensors, each from 0 on in the order in which they were
//! added.

use koala_optim::{Error, GroupId};

use crate::border::failure::{Failure, fail, no_memory};
use crate::border::status::koala_status;

/// The groups.
#[derive(Default)]
pub(crate) struct Groups(Vec<GroupId>);

impl Groups {
    pub fn get(&self, number: u32) -> Result<GroupId, Failure> {
        let (group, groups) = (number as usize, self.0.len());
        Ok(self.0.get(group).copied().ok_or(Error::UnknownGroup { group, groups })?)
    }

    /// The number of a group that `make` makes.
    pub fn add<E>(&mut self, make: impl FnOnce() -> Result<GroupId, E>) -> Result<u32, Failure>
    where
        Failure: From<E>,
    {
        let number = u32::try_from(self.0.len())
            .map_err(|_| fail(koala_status::UnknownGroup, format_args!("there are 2^32 groups already")))?;
        self.0.try_reserve(1).map_err(|_| no_memory("a group"))?;
        self.0.push(make()?);
        Ok(number)
    }
}

/// The names of the tensors.
#[derive(Default)]
pub(crate) struct Names(Vec<Box<str>>);

impl Names {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, tensor: usize) -> Result<&str, Failure> {
        self.0.get(tensor).map(|name| &**name).ok_or_else(|| {
            let count = self.len();
            fail(koala_status::UnknownTensor, format_args!("there is no tensor {tensor}: there are {count}"))
        })
    }

    /// Whether so many tensors can be given at once, none of them twice.
    pub fn check_count(&self, given: usize) -> Result<(), Failure> {
        let known = self.len();
        if given <= known {
            return Ok(());
        }
        let text = format_args!("{given} tensors are given, but there are only {known}");
        Err(fail(koala_status::DuplicateTensor, text))
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| **known == *name)
    }

    /// A copy of a name to add, and room for it, so that nothing is left to fail.
    pub fn make_room(&mut self, name: &str) -> Result<Box<str>, Failure> {
        let mut copy = String::new();
        let room = copy.try_reserve_exact(name.len()).and_then(|()| self.0.try_reserve(1));
        room.map_err(|_| no_memory("a name"))?;
        copy.push_str(name);
        Ok(copy.into_boxed_str())
    }

    /// The number of a tensor that was added by that name.
    pub fn add(&mut self, name: Box<str>) -> usize {
        self.0.push(name);
        self.len() - 1
    }
}
