//! spire-agent: arguments → command. The agent itself is [`run`].

mod commands;
mod config;
mod healthcheck;
mod run;
mod validate;
mod version;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    steeple_runtime::keep_memory_small();
    commands::PROGRAM.main()
}
