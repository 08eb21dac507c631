//! JWT-SVID: signing, parsing and validation (JWT-SVID §2 to §4). WIT-SVID: the same (WIT-SVID §2 to §4, §6.2).

mod sign;
mod validate;
mod wit;

pub use sign::{Claims, assemble, signing_input};
pub use validate::{EXPIRY_LEEWAY, JwtBundleSource, JwtError, JwtSvid, parse_insecure, validate};
pub use wit::{InvalidWit, WitClaims, WitError, WitSvid, wit_signing_input};
