//! Generated wire types of every API Steeple speaks (`cargo xtask protos`). No hand-written line but this tree and the codec.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_docs,
    reason = "generated code"
)]

mod codec;

pub use codec::Codec;

/// Encoded `FileDescriptorSet` of everything below.
#[cfg(feature = "descriptors")]
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");

/// The SPIFFE Workload API.
#[cfg(feature = "workload")]
pub mod workload {
    include!("gen/_.rs");
}

/// SPIRE's CA journal blob.
#[cfg(feature = "private")]
pub mod journal {
    include!("gen/journal.rs");
}

/// The part of Envoy's xDS API that the agent speaks.
#[cfg(feature = "envoy")]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("gen/envoy.config.core.v3.rs");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    include!("gen/envoy.extensions.transport_sockets.tls.v3.rs");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                include!("gen/envoy.service.discovery.v3.rs");
            }
        }
        pub mod secret {
            pub mod v3 {
                include!("gen/envoy.service.secret.v3.rs");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            include!("gen/envoy.r#type.v3.rs");
        }
    }
}

/// gRPC's error model.
#[cfg(feature = "envoy")]
pub mod google {
    pub mod rpc {
        include!("gen/google.rpc.rs");
    }
}

/// Steeple's own.
#[cfg(feature = "steeple")]
pub mod steeple {
    pub mod agent {
        pub mod v1 {
            include!("gen/steeple.agent.v1.rs");
        }
    }
    pub mod server {
        pub mod v1 {
            include!("gen/steeple.server.v1.rs");
        }
    }
}

/// SPIRE's.
pub mod spire {
    /// What SPIRE stores.
    pub mod common {
        include!("gen/spire.common.rs");
    }
    #[cfg(feature = "agent")]
    pub mod agent {
        pub mod debug {
            pub mod v1 {
                include!("gen/spire.agent.debug.v1.rs");
            }
        }
    }
    pub mod api {
        pub mod types {
            include!("gen/spire.api.types.rs");
        }
        #[cfg(feature = "agent")]
        pub mod agent {
            pub mod delegatedidentity {
                pub mod v1 {
                    include!("gen/spire.api.agent.delegatedidentity.v1.rs");
                }
            }
            pub mod logger {
                pub mod v1 {
                    include!("gen/spire.api.agent.logger.v1.rs");
                }
            }
        }
        #[cfg(feature = "server")]
        pub mod server {
            pub mod agent {
                pub mod v1 {
                    include!("gen/spire.api.server.agent.v1.rs");
                }
            }
            pub mod bundle {
                pub mod v1 {
                    include!("gen/spire.api.server.bundle.v1.rs");
                }
            }
            pub mod debug {
                pub mod v1 {
                    include!("gen/spire.api.server.debug.v1.rs");
                }
            }
            pub mod entry {
                pub mod v1 {
                    include!("gen/spire.api.server.entry.v1.rs");
                }
            }
            pub mod localauthority {
                pub mod v1 {
                    include!("gen/spire.api.server.localauthority.v1.rs");
                }
            }
            pub mod logger {
                pub mod v1 {
                    include!("gen/spire.api.server.logger.v1.rs");
                }
            }
            pub mod svid {
                pub mod v1 {
                    include!("gen/spire.api.server.svid.v1.rs");
                }
            }
            pub mod trustdomain {
                pub mod v1 {
                    include!("gen/spire.api.server.trustdomain.v1.rs");
                }
            }
        }
    }
}
