//! `api validate jwt`

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session, go};
use steeple_config::{Flag, FlagSet};
use steeple_proto::workload::ValidateJwtsvidRequest;

use super::client;

pub struct ValidateJwt {
    audience: Flag<String>,
    svid: Flag<String>,
}

impl ClientCommand for ValidateJwt {
    const NAME: &'static str = "validate jwt";
    const API: Api = Api::Workload;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            audience: flags.string("audience", "", "Audience the token must be for"),
            svid: flags.string("svid", "", "The token"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let (audience, svid) = (self.audience.get(), self.svid.get());
        if audience.is_empty() {
            return Err(Failure::new("audience must be specified"));
        }
        if svid.is_empty() {
            return Err(Failure::new("svid must be specified"));
        }
        let mut client = client(&session.channel);
        let request = session.workload_request(ValidateJwtsvidRequest { audience, svid });
        let answer = match session.within(client.validate_jwtsvid(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == tonic::Code::InvalidArgument => {
                return Err(Failure::new(format!("SVID is not valid: {}", status.message())));
            }
            Err(status) => return Err(status).context("unable to validate JWT SVID"),
        };
        session.answer("ValidateJWTSVIDResponse", &answer, |answer| {
            let mut claims = String::new();
            push_struct(&answer.claims.clone().unwrap_or_default(), &mut claims);
            Ok(format!("SVID is valid.\nSPIFFE ID : {}\nClaims    : {claims}\n", answer.spiffe_id))
        })
    }
}

/// Claims as protojson writes them: a space behind commas, none behind colons.
fn push_struct(claims: &Struct, out: &mut String) {
    out.push('{');
    for (i, (name, claim)) in claims.fields.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        go::json_string(name, false, out);
        out.push(':');
        push_value(claim, out);
    }
    out.push('}');
}

fn push_value(value: &Value, out: &mut String) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => out.push_str("null"),
        Some(Kind::BoolValue(value)) => out.push_str(if *value { "true" } else { "false" }),
        Some(Kind::NumberValue(number)) => out.push_str(&go::float(*number)),
        Some(Kind::StringValue(text)) => go::json_string(text, false, out),
        Some(Kind::StructValue(value)) => push_struct(value, out),
        Some(Kind::ListValue(list)) => {
            out.push('[');
            for (i, item) in list.values.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                push_value(item, out);
            }
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    #[test]
    fn claims() {
        let text = |text: &str| value(Kind::StringValue(text.into()));
        let list = prost_types::ListValue { values: vec![text("a"), text("b<c>")] };
        let fields = [
            ("sub".to_owned(), text("spiffe://td/w")),
            ("aud".to_owned(), value(Kind::ListValue(list))),
            ("exp".to_owned(), value(Kind::NumberValue(1_795_449_600.0))),
            ("more".to_owned(), value(Kind::StructValue(Struct::default()))),
            ("none".to_owned(), value(Kind::NullValue(0))),
            ("yes".to_owned(), value(Kind::BoolValue(true))),
        ];
        let mut out = String::new();
        push_struct(&Struct { fields: fields.into() }, &mut out);
        assert_eq!(
            out,
            r#"{"aud":["a", "b<c>"], "exp":1795449600, "more":{}, "none":null, "sub":"spiffe://td/w", "yes":true}"#
        );
    }
}
