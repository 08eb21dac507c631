use super::*;
use crate::testdata::decode;

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Names with what Go's crypto/x509 makes of them: DER, and pkix.Name.String of the parsed DER.
#[test]
fn bytes_and_text_equal_gos() {
    let cases = [
        (DistinguishedName::default_svid(), "MB0xCzAJBgNVBAYTAlVTMQ4wDAYDVQQKEwVTUElSRQ==", "O=SPIRE,C=US"),
        (
            DistinguishedName {
                country: list(&["US", "DE"]),
                organization: list(&["B", "A"]),
                organizational_unit: list(&["DOWNSTREAM-1"]),
                common_name: "x.example.org".into(),
                serial_number: "123".into(),
                ..DistinguishedName::default()
            },
            "MGsxFjAJBgNVBAYTAkRFMAkGA1UEBhMCVVMxFDAIBgNVBAoTAUEwCAYDVQQKEwFCMRUwEwYDVQQLEwxET1dOU1RSRUFNLTExFjAUBgNVBAMTDXguZXhhbXBsZS5vcmcxDDAKBgNVBAUTAzEyMw==",
            "SERIALNUMBER=123,CN=x.example.org,OU=DOWNSTREAM-1,O=A+O=B,C=DE+C=US",
        ),
        (
            DistinguishedName {
                organization: list(&["#a b"]),
                common_name: "ü, +x\" #y ".into(),
                extra: vec![(vec![0x55, 0x04, 45], "abc".into())],
                ..DistinguishedName::default()
            },
            "MDMxDTALBgNVBAoMBCNhIGIxFDASBgNVBAMMC8O8LCAreCIgI3kgMQwwCgYDVQQtEwNhYmM=",
            "CN=ü\\, \\+x\\\" #y\\ ,O=\\#a b,2.5.4.45=#1303616263",
        ),
        (
            DistinguishedName {
                locality: list(&["L"]),
                province: list(&["P"]),
                street_address: list(&["S"]),
                postal_code: list(&["1"]),
                common_name: "a*b&c@d_e".into(),
                ..DistinguishedName::default()
            },
            "MEQxCjAIBgNVBAgTAVAxCjAIBgNVBAcTAUwxCjAIBgNVBAkTAVMxCjAIBgNVBBETATExEjAQBgNVBAMMCWEqYiZjQGRfZQ==",
            "CN=a*b&c@d_e,POSTALCODE=1,STREET=S,L=L,ST=P",
        ),
        (DistinguishedName::default(), "MAA=", ""),
    ];
    for (name, der, text) in cases {
        assert_eq!(name.to_der(), decode(der), "{text}");
        let read = DistinguishedName::from_der(&decode(der)).unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!(read.to_der(), decode(der));
    }
}

#[test]
fn malformed_names_are_refused() {
    for der in [&[][..], &[0x30], &[0x30, 0x02, 0x31, 0x05], &[0x30, 0x00, 0x00], &[0x31, 0x00]] {
        assert_eq!(DistinguishedName::from_der(der), Err(X509Error::MalformedName));
    }
}

#[test]
fn oids_are_dotted() {
    assert_eq!(dotted(&[0x55, 0x04, 45]), "2.5.4.45");
    assert_eq!(dotted(&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x84, 0x83, 0x3c]), "1.3.6.1.4.1.65980");
    assert_eq!(dotted(&[0x88, 0x37, 0x03]), "2.999.3");
}
