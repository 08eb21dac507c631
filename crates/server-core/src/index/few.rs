//! A set of numbers that mostly holds none or one.

use std::collections::BTreeSet;

#[derive(Debug, Default, Clone)]
#[allow(clippy::box_collection, reason = "the set is three words, most places hold one number")]
pub(super) enum Few {
    #[default]
    None,
    One(u32),
    Many(Box<BTreeSet<u32>>),
}

impl Few {
    pub fn insert(&mut self, number: u32) {
        match self {
            Self::None => *self = Self::One(number),
            Self::One(one) if *one == number => {}
            Self::One(one) => *self = Self::Many(Box::new(BTreeSet::from([*one, number]))),
            Self::Many(many) => {
                many.insert(number);
            }
        }
    }

    pub fn remove(&mut self, number: u32) {
        match self {
            Self::One(one) if *one == number => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(many) => {
                many.remove(&number);
                if many.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(many) => many.len(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some(*one), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|many| many.iter().copied()))
    }
}
