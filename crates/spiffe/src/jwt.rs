//! JWT-SVID: signing, parsing and validation (JWT-SVID §2 to §4). WIT-SVID: signing (WIT-SVID §2, §3).

mod sign;
mod validate;
mod wit;

pub use sign::{Claims, assemble, signing_input};
pub use validate::{EXPIRY_LEEWAY, JwtBundleSource, JwtError, JwtSvid, parse_insecure, validate};
pub use wit::{WitClaims, WitError, wit_signing_input};
