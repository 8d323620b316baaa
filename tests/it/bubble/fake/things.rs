//! The things of one type, ordered by id and by both dates, so that a page of a month with 600,000
//! things costs no look at the others.

use std::sync::Arc;

use super::datum::Datum;

/// One thing.
#[derive(Clone, Debug)]
pub struct Thing {
    pub id: Arc<str>,
    /// Its Created Date, in milliseconds since 1970.
    pub created: i64,
    /// Its Modified Date.
    pub modified: i64,
    /// The id of the user who made it.
    pub by: Arc<str>,
    /// By the number of the field. A field that was added later may be missing.
    pub values: Vec<Option<Datum>>,
}

impl Thing {
    pub fn value(&self, field: usize) -> Option<&Datum> {
        self.values.get(field)?.as_ref()
    }
}

/// One of the two dates that every thing has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    Created,
    Modified,
}

impl Axis {
    pub const ALL: [Self; 2] = [Self::Created, Self::Modified];

    pub fn of(self, thing: &Thing) -> i64 {
        match self {
            Self::Created => thing.created,
            Self::Modified => thing.modified,
        }
    }
}

/// Where a thing stands in memory.
pub type Slot = u32;

/// The things of a type. Making them in the order of their dates is fastest.
#[derive(Clone, Debug, Default)]
pub struct Things {
    slots: Vec<Option<Thing>>,
    by_id: Vec<Slot>,
    by_date: [Vec<(i64, Slot)>; 2],
}

impl Things {
    /// All, ascending by id.
    pub fn by_id(&self) -> &[Slot] {
        &self.by_id
    }

    /// All, ascending by a date.
    pub fn by_date(&self, axis: Axis) -> &[(i64, Slot)] {
        &self.by_date[axis as usize]
    }

    /// The thing that stands at `slot`.
    pub fn at(&self, slot: Slot) -> &Thing {
        self.slots[slot as usize].as_ref().unwrap()
    }

    pub fn add(&mut self, thing: Thing) {
        let slot = Slot::try_from(self.slots.len()).unwrap();
        let place = self.place(&thing.id).expect_err("an id of its own");
        for axis in Axis::ALL {
            insert(&mut self.by_date[axis as usize], (axis.of(&thing), slot));
        }
        self.slots.push(Some(thing));
        self.by_id.insert(place, slot);
    }

    /// Replaces the thing with this id by what `change` makes of it.
    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Thing)) {
        let mut thing = self.remove(id);
        change(&mut thing);
        self.add(thing);
    }

    pub fn remove(&mut self, id: &str) -> Thing {
        let place = self.place(id).unwrap_or_else(|_| panic!("no thing {id}"));
        let slot = self.by_id.remove(place);
        let thing = self.slots[slot as usize].take().unwrap();
        for axis in Axis::ALL {
            let dates = &mut self.by_date[axis as usize];
            dates.remove(dates.binary_search(&(axis.of(&thing), slot)).unwrap());
        }
        thing
    }

    /// The thing with this id.
    pub fn find(&self, id: &str) -> Option<&Thing> {
        self.place(id).ok().map(|place| self.at(self.by_id[place]))
    }

    fn place(&self, id: &str) -> Result<usize, usize> {
        // The newest thing's device mostly shows the latest time.
        if self.by_id.last().is_none_or(|last| &*self.at(*last).id < id) {
            return Err(self.by_id.len());
        }
        self.by_id.binary_search_by(|slot| (*self.at(*slot).id).cmp(id))
    }
}

fn insert(dates: &mut Vec<(i64, Slot)>, entry: (i64, Slot)) {
    let is_last = dates.last().is_none_or(|last| *last < entry);
    let place = if is_last { dates.len() } else { dates.partition_point(|it| *it < entry) };
    dates.insert(place, entry);
}
