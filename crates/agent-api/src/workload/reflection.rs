//! Server reflection (Workload Endpoint §7): what this socket serves, and nothing else.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_reflection::server::{Builder, v1, v1alpha};

const WORKLOAD_FILES: [&str; 2] = ["workload.proto", "google/protobuf/struct.proto"];

/// The services `grpc.reflection.v1` and `v1alpha`.
pub fn reflection() -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    tonic_reflection::server::Error,
> {
    Ok((builder()?.build_v1()?, builder()?.build_v1alpha()?))
}

fn builder() -> Result<Builder<'static>, tonic_reflection::server::Error> {
    let mut files = FileDescriptorSet::decode(steeple_proto::FILE_DESCRIPTOR_SET)?;
    files.file.retain(|file| WORKLOAD_FILES.iter().any(|wanted| file.name().ends_with(wanted)));
    Ok(Builder::configure()
        .register_file_descriptor_set(files)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}
