//! What Go's standard library does for SPIRE's command lines and texts.

use fastrand::Rng;
use steeple_config::{FlagSet, GoDuration, expand_env, go_quote};

use crate::{oracle, seed};

/// Texts of a few pieces each.
fn texts(seed: u64, count: usize, pieces: &[&str]) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let mut text = || (0..rng.usize(..6)).map(|_| pieces[rng.usize(..pieces.len())]).collect::<String>();
    (0..count).map(|_| text()).collect()
}

fn compare(kind: &str, texts: &[String], ours: impl Fn(&str) -> Result<String, String>) {
    let mut good = 0;
    for (text, theirs) in texts.iter().zip(oracle::ask_std(kind, texts)) {
        assert_eq!(ours(text), theirs, "{kind} {text:?}");
        good += usize::from(theirs.is_ok());
    }
    assert!(good > texts.len() / 10, "{kind}: {good} of {} mean something", texts.len());
}

#[test]
fn durations() {
    let pieces = [
        "1h",
        "30m",
        "1.5s",
        "300ms",
        "2us",
        "2µs",
        "2μs",
        "7ns",
        "0",
        "1",
        "24",
        ".5h",
        "1.s",
        "-",
        "+",
        "s",
        "m",
        "h",
        "0.000000001s",
        "9223372036854775807ns",
        "2562047h",
        "1d",
        ".",
        " ",
        "0.1234567890123456789s",
    ];
    let mut cases = texts(seed(5), 3000, &pieces);
    cases.extend(
        [
            "",
            "0",
            "-0",
            "-9223372036854775808ns",
            "9223372036854775808ns",
            "1h1m1.001001001s",
            "1e3s",
            "∞",
            "1\"s",
        ]
        .map(str::to_owned),
    );
    compare("duration", &cases, |text| match text.parse::<GoDuration>() {
        Ok(d) => Ok(format!("{} {d}", d.nanos())),
        Err(e) => Err(e.to_string()),
    });
}

#[test]
fn quoting() {
    let pieces = [
        "a",
        "\"",
        "\\",
        "\n",
        "\t",
        "\r",
        "\u{7}",
        "\u{8}",
        "\u{b}",
        "\u{c}",
        "\0",
        "\u{1b}",
        "\u{7f}",
        "é",
        "世",
        "😀",
        "\u{85}",
        "\u{a0}",
        "\u{feff}",
        "`",
        "'",
        "\u{2028}",
        "\u{200b}",
        "\u{e000}",
        "\u{10ffff}",
        "e\u{301}",
        "\u{301}",
        "\u{e0001}",
        "\u{3000}",
        "\u{ad}",
        "\u{fffd}",
    ];
    compare("quote", &texts(seed(5), 2000, &pieces), |text| Ok(go_quote(text)));
}

#[test]
fn environment() {
    let pieces = [
        "$A", "${A}", "$B_2", "${a b}", "$$", "${$}", "$1", "${1}", "$", "{", "}", "${", "${}", "$NONE", "x",
        " ", "é", "$-", "$é", "\"", "A",
    ];
    compare("expand", &texts(seed(5), 3000, &pieces), |text| {
        Ok(expand_env(text, |name| {
            let known = [("A", "1"), ("B_2", "two $A"), ("a b", "spaced"), ("1", "one")];
            known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }))
    });
}

#[test]
fn command_lines() {
    let pieces = [
        "-spiffeID",
        "spiffe://td/x",
        "-spiffeID=a=b",
        "--spiffeID",
        "--spiffeID=",
        "-socketPath",
        "-o",
        "-o=x",
        "-write",
        "-half",
        "-q",
        "-q=true",
        "-q=0",
        "-q=maybe",
        "-q=",
        "--q=F",
        "-verbose=false",
        "-verbose",
        "false",
        "-ttl",
        "-ttl=0x10",
        "-ttl=1_0",
        "-ttl=",
        "-ttl=99999999999999999999",
        "-ttl=-1",
        "-x509SVIDTTL=x",
        "-wait=1h",
        "-wait=1",
        "-jwtTTL=0",
        "-timeout=2s",
        "-timeout=x",
        "-timeout",
        "-selector",
        "-selector=unix:uid:1",
        "-selector=",
        "-audience=a,b",
        "-audience=",
        "-banned=true",
        "-banned=false",
        "-banned=x",
        "-banned",
        "--",
        "-",
        "---q",
        "-=x",
        "--=x",
        "",
        "rest",
        "-h",
        "-help",
        "--help",
        "-nope",
        "-nope=1",
        "-Q",
        "-\"x\"",
        "é",
    ];
    let mut rng = Rng::with_seed(seed(6));
    let lines: Vec<Vec<String>> = (0..4000)
        .map(|_| (0..rng.usize(..5)).map(|_| pieces[rng.usize(..pieces.len())].to_owned()).collect())
        .collect();
    for (line, theirs) in lines.iter().zip(oracle::ask_flags(&lines)) {
        assert_eq!(Ok(our_flags(line)), theirs, "{line:?}");
    }
}

/// As `flags` in the oracle.
fn our_flags(args: &[String]) -> String {
    let mut fs = FlagSet::new("entry create");
    let text = fs.string("spiffeID", "", "An ID");
    let path = fs.string("socketPath", "/tmp/\"x\"\\y", "A path\nover two lines");
    let letter = fs.string("o", "", "One letter");
    let named = fs.string("write", "", "Write to `directory` (default none)");
    let half = fs.string("half", "d", "One ` back quote");
    let quiet = fs.bool("q", false, "Quiet");
    let verbose = fs.bool("verbose", true, "Verbose");
    let ttl = fs.int("ttl", 600, "Seconds");
    let zero = fs.int("x509SVIDTTL", 0, "Seconds");
    let wait = fs.duration("wait", GoDuration::from_secs(90), "How long");
    let jwt_ttl = fs.duration("jwtTTL", GoDuration::ZERO, "How long");
    let timeout = fs.duration_value("timeout", GoDuration::from_secs(1), "How long to wait");
    let selectors = fs.strings("selector", "Repeated");
    let audience = fs.csv("audience", "With commas");
    let banned = fs.tri_bool("banned", "true, false or all");

    let list =
        |items: &[String]| format!("[{}]", items.iter().map(|i| go_quote(i)).collect::<Vec<_>>().join(" "));
    if let Err(e) = fs.parse(args) {
        return format!("{}|{e}|{}", e.output(), list(fs.args()));
    }
    let mut set = [
        ("audience", audience.is_set()),
        ("banned", banned.is_set()),
        ("half", half.is_set()),
        ("jwtTTL", jwt_ttl.is_set()),
        ("o", letter.is_set()),
        ("q", quiet.is_set()),
        ("selector", selectors.is_set()),
        ("socketPath", path.is_set()),
        ("spiffeID", text.is_set()),
        ("timeout", timeout.is_set()),
        ("ttl", ttl.is_set()),
        ("verbose", verbose.is_set()),
        ("wait", wait.is_set()),
        ("write", named.is_set()),
        ("x509SVIDTTL", zero.is_set()),
    ];
    set.sort_unstable();
    let set: String = set.iter().filter(|(_, set)| *set).map(|(name, _)| format!(" {name}")).collect();
    let values = [
        go_quote(&text.get()),
        go_quote(&path.get()),
        go_quote(&letter.get()),
        go_quote(&named.get()),
        go_quote(&half.get()),
        quiet.get().to_string(),
        verbose.get().to_string(),
        ttl.get().to_string(),
        zero.get().to_string(),
        wait.get().to_string(),
        jwt_ttl.get().to_string(),
        timeout.get().to_string(),
        list(&selectors.get()),
        list(&audience.get()),
        match banned.get() {
            None => "0",
            Some(false) => "1",
            Some(true) => "2",
        }
        .to_owned(),
    ];
    format!("{}|{}|{set}", values.join(" "), list(fs.args()))
}
