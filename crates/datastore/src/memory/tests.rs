use super::MemoryStore;
use crate::conformance::Fresh;

fn fresh() -> Fresh {
    Fresh::new(MemoryStore::new(), ())
}

crate::conformance!(crate::memory::tests::fresh);
