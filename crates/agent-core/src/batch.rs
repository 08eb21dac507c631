//! How many CSRs go into one BatchNewX509SVID: SPIRE's server lets 500 a second through per caller.

/// Halves when a call fails, doubles when one succeeds.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize(usize);

/// SPIRE's signing limit per caller and second; a larger batch is refused outright.
pub const MAX_BATCH: usize = 500;

impl Default for BatchSize {
    fn default() -> Self {
        Self(MAX_BATCH)
    }
}

impl BatchSize {
    pub fn size(self) -> usize {
        self.0
    }

    pub fn succeeded(&mut self) {
        self.0 = (self.0 * 2).min(MAX_BATCH);
    }

    pub fn failed(&mut self) {
        self.0 = (self.0 / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_to_one_and_doubles_back_to_the_limit() {
        let mut batch = BatchSize::default();
        assert_eq!(batch.size(), 500);
        for expected in [250, 125, 62, 31, 15, 7, 3, 1, 1] {
            batch.failed();
            assert_eq!(batch.size(), expected);
        }
        for expected in [2, 4, 8, 16, 32, 64, 128, 256, 500, 500] {
            batch.succeeded();
            assert_eq!(batch.size(), expected);
        }
    }
}
