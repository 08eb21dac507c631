//! Server reflection on the Unix socket, so that `grpcurl -unix` needs no proto files. SPIRE's server has none.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_reflection::server::{Builder, Error, v1, v1alpha};

use crate::access::METHODS;

/// The services `grpc.reflection.v1` and `v1alpha`: they tell of what this socket serves and nothing else.
pub fn reflection() -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    Error,
> {
    Ok((builder()?.build_v1()?, builder()?.build_v1alpha()?))
}

fn builder() -> Result<Builder<'static>, Error> {
    let mut files = FileDescriptorSet::decode(steeple_proto::FILE_DESCRIPTOR_SET)?;
    let mut wanted = serving_files(&files);
    // What they import, all the way down.
    while let Some(file) = files.file.iter().find(|file| {
        wanted.contains(file.name()) && file.dependency.iter().any(|name| !wanted.contains(name))
    }) {
        wanted.extend(file.dependency.iter().cloned());
    }
    files.file.retain(|file| wanted.contains(file.name()));
    Ok(Builder::configure()
        .register_file_descriptor_set(files)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}

/// Files that hold a service with a method that local callers may call.
fn serving_files(files: &FileDescriptorSet) -> BTreeSet<String> {
    let served: BTreeSet<&str> = METHODS
        .iter()
        .filter(|method| method.access.local || method.access.anyone)
        .filter_map(|method| method.path.trim_start_matches('/').split_once('/'))
        .map(|(service, _)| service)
        .collect();
    let serves = |file: &&prost_types::FileDescriptorProto| {
        file.service
            .iter()
            .any(|service| served.contains(format!("{}.{}", file.package(), service.name()).as_str()))
    };
    files.file.iter().filter(serves).map(|file| file.name().to_owned()).collect()
}
