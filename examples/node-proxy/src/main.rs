//! See the README beside it.

fn main() -> anyhow::Result<()> {
    steeple_node_proxy::run(std::env::args().skip(1))
}
