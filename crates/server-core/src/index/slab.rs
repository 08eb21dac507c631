//! Things by number. Grows page by page, so that nothing is copied and no spare half is kept; numbers of removed
//! things are used again.

const PAGE: usize = 256;

#[derive(Debug)]
pub(super) struct Slab<T> {
    pages: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn add(&mut self, thing: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.pages[at as usize / PAGE][at as usize % PAGE] = Some(thing);
            return at;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let before = (self.pages.len() - 1) * PAGE;
        let page = &mut self.pages[before / PAGE];
        page.push(Some(thing));
        (before + page.len() - 1) as u32
    }

    pub fn remove(&mut self, at: u32) -> Option<T> {
        let removed = self.pages.get_mut(at as usize / PAGE)?.get_mut(at as usize % PAGE)?.take();
        if removed.is_some() {
            self.free.push(at);
        }
        removed
    }

    pub fn find(&self, at: u32) -> Option<&T> {
        self.pages.get(at as usize / PAGE)?.get(at as usize % PAGE)?.as_ref()
    }

    pub fn find_mut(&mut self, at: u32) -> Option<&mut T> {
        self.pages.get_mut(at as usize / PAGE)?.get_mut(at as usize % PAGE)?.as_mut()
    }

    /// For numbers whose owner keeps the thing.
    pub fn get(&self, at: u32) -> &T {
        match self.find(at) {
            Some(thing) => thing,
            None => unreachable!("{at} is used and was removed"),
        }
    }

    /// As [`Self::get`].
    pub fn get_mut(&mut self, at: u32) -> &mut T {
        match self.find_mut(at) {
            Some(thing) => thing,
            None => unreachable!("{at} is used and was removed"),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten().flatten()
    }
}
