//! ECDSA signatures as two numbers and in their ASN.1 form.

/// The widest curve served, P-521, has numbers of 66 bytes.
const MAX_NUMBER: usize = 66;

/// From big-endian numbers; `None` if one is 0 or too long.
pub fn to_der(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let mut content = integer(r)?;
    content.extend(integer(s)?);
    let mut out = vec![0x30];
    if content.len() >= 0x80 {
        out.push(0x81);
    }
    out.push(u8::try_from(content.len()).ok()?);
    out.extend(content);
    Some(out)
}

fn integer(number: &[u8]) -> Option<Vec<u8>> {
    let first = number.iter().position(|byte| *byte != 0)?;
    let digits = &number[first..];
    if digits.len() > MAX_NUMBER {
        return None;
    }
    let pad = usize::from(digits[0] & 0x80 != 0);
    let mut out = vec![2, (digits.len() + pad) as u8];
    out.extend(std::iter::repeat_n(0, pad));
    out.extend(digits);
    Some(out)
}

/// Both numbers, big-endian without leading zeros.
pub fn from_der(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let content = match der {
        [0x30, 0x81, len, content @ ..] | [0x30, len, content @ ..] if usize::from(*len) == content.len() => {
            content
        }
        _ => return None,
    };
    let (r, rest) = number(content)?;
    let (s, rest) = number(rest)?;
    rest.is_empty().then_some((r, s))
}

fn number(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [2, len, rest @ ..] = der else { return None };
    let (digits, rest) = rest.split_at_checked(usize::from(*len))?;
    let first = digits.iter().position(|byte| *byte != 0).unwrap_or(digits.len());
    Some((&digits[first..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_same() {
        for (r, s) in [(&[1_u8][..], &[0x80_u8][..]), (&[0xff; 32], &[0x7f; 32]), (&[0x01; 66], &[0xff; 66])]
        {
            let der = to_der(r, s).unwrap();
            assert_eq!(from_der(&der), Some((r, s)));
            assert_eq!(from_der(&der[..der.len() - 1]), None);
        }
        assert_eq!(to_der(&[0, 0], &[1]), None, "zero is no signature");
        assert_eq!(to_der(&[], &[1]), None);
        assert_eq!(to_der(&[1; 67], &[1]), None);
        assert_eq!(from_der(&[]), None);
        assert_eq!(from_der(&[0x30, 3, 2, 1, 1]), None);
    }
}
