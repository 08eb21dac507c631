//! JWT-SVID: signing, parsing and validation (JWT-SVID §2 to §4).

mod sign;
mod validate;

pub use sign::{Claims, assemble, signing_input};
pub use validate::{EXPIRY_LEEWAY, JwtBundleSource, JwtError, JwtSvid, parse_insecure, validate};
