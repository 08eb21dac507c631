//! `examples/node-proxy`, built with the tests that run it.

fn main() -> anyhow::Result<()> {
    steeple_node_proxy::run(std::env::args().skip(1))
}
