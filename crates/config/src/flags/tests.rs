use super::*;

/// The command line's message, if it is refused.
fn message(args: &[&str]) -> Option<String> {
    let mut flags = FlagSet::new("entry create");
    flags.string("spiffeID", "", "ID");
    flags.bool("admin", false, "Admin");
    flags.int("ttl", 0, "Seconds");
    flags.duration("wait", GoDuration::ZERO, "How long");
    flags.duration_value("timeout", GoDuration::from_secs(1), "How long");
    flags.value("output", "Format", None, (), |(), text| {
        if text == "json" { Ok(()) } else { Err("bad formatter flag".to_owned()) }
    });
    flags.parse(args).err().map(|e| e.to_string())
}

#[test]
fn refuses_in_gos_words() {
    let cases: &[(&[&str], &str)] = &[
        (&["-x"], "flag provided but not defined: -x"),
        (&["--x=1"], "flag provided but not defined: -x"),
        (&["-spiffeID"], "flag needs an argument: -spiffeID"),
        (&["-ttl", "x"], "invalid value \"x\" for flag -ttl: parse error"),
        (
            &["-ttl=99999999999999999999"],
            "invalid value \"99999999999999999999\" for flag -ttl: value out of range",
        ),
        (&["-wait", "5"], "invalid value \"5\" for flag -wait: parse error"),
        (&["-timeout", "5"], "invalid value \"5\" for flag -timeout: time: missing unit in duration \"5\""),
        (&["-admin=maybe"], "invalid boolean value \"maybe\" for -admin: parse error"),
        (&["-output", "xml"], "invalid value \"xml\" for flag -output: bad formatter flag"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["-=x"], "bad flag syntax: -=x"),
        (&["-h"], "flag: help requested"),
        (&["-help"], "flag: help requested"),
    ];
    for (args, want) in cases {
        assert_eq!(message(args).as_deref(), Some(*want), "{args:?}");
    }
    assert_eq!(message(&["-output=json", "-admin", "-ttl", "0x10"]), None);
}

#[test]
fn the_first_bad_flag_prints_its_message_and_the_usage() {
    let mut flags = FlagSet::new("bundle list");
    flags.string("id", "", "SPIFFE ID");
    flags.string("format", "pem", "Format");
    flags.bool("q", false, "Quiet");
    flags.value("output", "Output `form`", None, (), |(), _| Ok(()));
    let usage = "Usage of bundle list:\n  -format string\n    \tFormat (default \"pem\")\n  -id string\n    \tSPIFFE ID\n  -output form\n    \tOutput form\n  -q\tQuiet\n";
    assert_eq!(flags.usage(), usage);
    let bad = flags.parse(&["-one", "-two"]).expect_err("not defined");
    assert_eq!(bad.output(), format!("flag provided but not defined: -one\n{usage}"));
    let help = flags.parse(&["-help"]).expect_err("help");
    assert!(help.is_help());
    assert_eq!(help.output(), usage);
    assert_eq!(FlagSet::new("").usage(), "Usage:\n");
}

#[test]
fn forms_and_ends() {
    let read = |args: &[&str]| {
        let mut flags = FlagSet::new("x");
        let id = flags.string("spiffeID", "none", "ID");
        let admin = flags.bool("admin", false, "Admin");
        flags.parse(args).expect("well-formed");
        (id.get(), id.is_set(), admin.get(), flags.args().to_vec())
    };
    let rest = |args: &[&str]| args.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert_eq!(read(&["-spiffeID", "a"]), ("a".into(), true, false, rest(&[])));
    assert_eq!(read(&["--spiffeID=a=b"]), ("a=b".into(), true, false, rest(&[])));
    assert_eq!(read(&["-spiffeID="]), (String::new(), true, false, rest(&[])));
    assert_eq!(read(&["-spiffeID", "-admin"]), ("-admin".into(), true, false, rest(&[])));
    assert_eq!(read(&["-admin", "false"]), ("none".into(), false, true, rest(&["false"])));
    assert_eq!(read(&["-admin=T", "--", "-spiffeID"]), ("none".into(), false, true, rest(&["-spiffeID"])));
    assert_eq!(read(&["a", "-admin"]), ("none".into(), false, false, rest(&["a", "-admin"])));
    assert_eq!(read(&["-"]), ("none".into(), false, false, rest(&["-"])));
    assert_eq!(read(&[]), ("none".into(), false, false, rest(&[])));
}

#[test]
fn lists_and_states() {
    let mut flags = FlagSet::new("x");
    let selectors = flags.strings("selector", "Selectors");
    let audience = flags.csv("audience", "Audiences");
    let banned = flags.tri_bool("banned", "Banned");
    let ttl = flags.int("ttl", 600, "Seconds");
    let args = ["-selector", "a", "-selector=b", "-audience=x", "-audience=y,z", "-banned", "false"];
    flags.parse(&args).expect("well-formed");
    assert_eq!(selectors.get(), ["a", "b"]);
    assert_eq!(audience.get(), ["y", "z"]);
    assert_eq!(banned.get(), Some(false));
    assert_eq!((ttl.get(), ttl.get_if_set()), (600, None));
    flags.parse(&["-banned=all", "-ttl=5"]).expect("well-formed");
    assert_eq!((banned.get(), ttl.get_if_set()), (None, Some(5)));
}
