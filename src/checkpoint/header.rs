//! The header of a file: JSON, read more strictly than others do, who of two entries of one name take the last.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{Formatter, Result as Formatted};

use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::optimizer::registry::count_elements;

pub const VERSION_ENTRY: &str = "koala-checkpoint";
pub const LIBRARY_ENTRY: &str = "koala-optim";
pub const RECORD_ENTRY: &str = "optimizer";
pub const NOTE_PREFIX: &str = "note/";

/// Whether metadata by this key is ours.
pub fn is_known(key: &str) -> bool {
    [VERSION_ENTRY, LIBRARY_ENTRY, RECORD_ENTRY].contains(&key) || key.starts_with(NOTE_PREFIX)
}

const METADATA: &str = "__metadata__";

/// What a file says of itself.
pub struct Header {
    pub metadata: BTreeMap<String, String>,
    /// In the order of their bytes, which follow each other without a gap.
    pub tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

/// The entries of the header: the metadata, and a place for each tensor.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Header;

    fn expecting(&self, f: &mut Formatter<'_>) -> Formatted {
        f.write_str("a header of safetensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut metadata, mut tensors) = (None, Vec::<(String, TensorInfo)>::new());
        while let Some(name) = map.next_key::<String>()? {
            if name != METADATA {
                tensors.push((name, map.next_value()?));
            } else if metadata.replace(map.next_value::<Texts>()?).is_some() {
                return Err(twice(METADATA));
            }
        }
        tensors.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(twice(&pair[0].0));
        }
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        check_places(&tensors)?;
        Ok(Header { metadata: metadata.map_or_else(BTreeMap::new, |Texts(texts)| texts), tensors })
    }
}

/// The metadata: a text for each key that means something here. What else there is takes no memory.
struct Texts(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TextEntries)
    }
}

struct TextEntries;

impl<'de> Visitor<'de> for TextEntries {
    type Value = Texts;

    fn expecting(&self, f: &mut Formatter<'_>) -> Formatted {
        f.write_str("a text for each key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((key, text)) = map.next_entry::<String, String>()? {
            match texts.entry(key) {
                Entry::Occupied(entry) => return Err(twice(entry.key())),
                Entry::Vacant(entry) if is_known(entry.key()) => drop(entry.insert(text)),
                Entry::Vacant(_) => {}
            }
        }
        Ok(Texts(texts))
    }
}

fn twice<E: Error>(name: &str) -> E {
    E::custom(format_args!("{name:?} is in it twice"))
}

/// Whether each tensor begins where the one before it ends, and has as many bytes as its type and shape ask for.
fn check_places<E: Error>(tensors: &[(String, TensorInfo)]) -> Result<(), E> {
    let mut place = 0;
    for (name, TensorInfo { dtype, shape, data_offsets: (start, end) }) in tensors {
        let bits = count_elements(shape).and_then(|elements| elements.checked_mul(dtype.bitsize()));
        let found = end.checked_sub(*start).and_then(|bytes| bytes.checked_mul(8));
        if *start != place || bits.is_none() || bits != found {
            return Err(E::custom(format_args!(
                "the bytes of {name:?} are not where, or not as many as, they have to be"
            )));
        }
        place = *end;
    }
    Ok(())
}
