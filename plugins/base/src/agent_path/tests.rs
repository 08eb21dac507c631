use super::*;

fn data() -> Value {
    let subject =
        Value::record("CN=node-1.example.org,O=Acme", [("CommonName", "node-1.example.org".into())]);
    Value::record(
        "",
        [
            ("PluginName", "x509pop".into()),
            ("Fingerprint", "abcd".into()),
            ("Subject", subject),
            ("SerialNumber", Value::Big { decimal: "255".into(), hex: "ff".into() }),
            ("DNSNames", Value::strings(["b.example.org", "a.example.org"])),
            (
                "URISanSelectors",
                Value::Map([("zone".to_owned(), "eu/1".into()), ("role".to_owned(), "db".into())].into()),
            ),
            ("Hostname", "".into()),
        ],
    )
}

fn run(template: &str) -> Result<String, String> {
    let example = data();
    let template = AgentPathTemplate::parse(template, &example).map_err(|e| e.to_string())?;
    eval::run(&template.nodes, &example)
}

/// What Go's text/template with Sprig makes of the same templates and data.
#[test]
fn templates_give_what_go_gives() {
    for (template, want) in [
        ("/{{ .PluginName }}/{{ .Fingerprint }}", "/x509pop/abcd"),
        ("/{{ .PluginName}}/{{.Subject.CommonName}}", "/x509pop/node-1.example.org"),
        ("/x/{{ .SerialNumber }}/{{ printf \"%x\" .SerialNumber }}", "/x/255/ff"),
        ("/{{ .Subject.CommonName | trimSuffix \".example.org\" | upper }}", "/NODE-1"),
        ("/{{ index .DNSNames 0 }}/{{ len .DNSNames }}", "/b.example.org/2"),
        ("/{{ index .URISanSelectors \"role\" }}/{{ .URISanSelectors.zone }}", "/db/eu/1"),
        ("{{ range .DNSNames }}/{{ . }}{{ end }}", "/b.example.org/a.example.org"),
        (
            "{{ range $k, $v := .URISanSelectors }}/{{ $k }}.{{ $v | replace \"/\" \"-\" }}{{ end }}",
            "/role.db/zone.eu-1",
        ),
        (
            "/{{ if .Hostname }}{{ .Hostname }}{{ else if eq .PluginName \"x\" }}x{{ else }}none{{ end }}",
            "/none",
        ),
        ("/{{ with .Subject }}{{ .CommonName }}/{{ $.PluginName }}{{ end }}", "/node-1.example.org/x509pop"),
        ("/{{ $x := .PluginName }}{{ $x }}-{{ $x = \"y\" }}{{ $x }}", "/x509pop-y"),
        ("/{{- /* a comment */ -}} a", "/a"),
        ("/ {{- .PluginName -}} /b", "/x509pop/b"),
        ("/{{ (index .DNSNames 1) | splitList \".\" | first }}", "/a"),
        ("/{{ default \"unknown\" .Hostname }}/{{ coalesce .Hostname \"c\" }}", "/unknown/c"),
        ("/{{ join \"/\" (sortAlpha .DNSNames) }}", "/a.example.org/b.example.org"),
        ("/{{ sha1sum \"a\" }}", "/86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        (
            "/{{ regexReplaceAll \"([a-z]+)-([0-9])\" .Subject.CommonName \"${2}x$1\" }}",
            "/1xnode.example.org",
        ),
        ("/{{ if and (hasPrefix \"node\" .Subject.CommonName) (not .Hostname) }}y{{ end }}", "/y"),
        ("/{{ ternary \"a\" \"b\" (contains \"x5\" .PluginName) }}", "/a"),
        ("/{{ trunc 3 .PluginName }}/{{ trunc -3 .PluginName }}/{{ substr 1 3 .PluginName }}", "/x50/pop/50"),
        (
            "/{{ b32enc \"hello\" | lower }}/{{ \"NBSWY3DP\" | b32dec }}/{{ `aGk=` | b64dec }}",
            "/nbswy3dp/hello/hi",
        ),
        ("/{{ printf \"%05d-%s\" 42 \"a\" }}", "/00042-a"),
        ("/{{ print 1 2 \"a\" 3 }}", "/1 2a3"),
        (
            "/{{ clean \"a//b/../c\" }}/{{ base \"a/b\" }}/{{ dir \"a/b\" }}/{{ ext \"a.b/c.d\" }}",
            "/a/c/b/a/.d",
        ),
        ("{{ slice .Fingerprint 1 3 }}/{{ .DNSNames }}", "bc/[b.example.org a.example.org]"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(want), "{template}");
    }
}

#[test]
fn what_cannot_work_is_refused_when_read() {
    for (template, names) in [
        ("/{{ .Nope }}", "Nope"),
        ("/{{ .Subject.Nope }}", "Subject.Nope"),
        ("/{{ $.Nope }}", "Nope"),
        ("/{{ if .PluginName }}{{ .Nope }}{{ end }}", "Nope"),
        ("/{{ nofunction .PluginName }}", "nofunction"),
        ("/{{ uuidv4 }}", "uuidv4"),
        ("/{{ env \"HOME\" }}", "env"),
        ("/{{ $x }}", "$x"),
        ("/{{ template \"a\" }}", "template"),
        ("/{{ .PluginName ", "unclosed action"),
        ("/{{ if .PluginName }}", "end"),
        ("/{{ end }}", "end"),
        ("/{{ \"a }}", "unterminated"),
        ("/{{ (.PluginName }}", "paren"),
        ("/{{ .PluginName .Fingerprint }}", "non-function"),
        ("/{{ }}", "missing value"),
        ("/{{ .PluginName | }}", "missing value"),
        ("/{{ 1x }}", "bad number"),
        ("/{{ %d }}", "unexpected"),
    ] {
        let error = run(template).unwrap_err();
        assert!(error.contains(names), "{template}: {error}");
    }
    let deep = format!("{}{}", "{{ if 1 }}".repeat(100), "{{ end }}".repeat(100));
    assert!(run(&deep).unwrap_err().contains("too deeply"));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100));
    assert!(run(&deep).unwrap_err().contains("too deeply"));
}

#[test]
fn what_data_lacks_is_an_error_at_attestation() {
    for (template, says) in [
        ("/{{ .URISanSelectors.nope }}", "map has no entry for key \"nope\""),
        ("/{{ index .DNSNames 7 }}", "index out of range: 7"),
        ("/{{ with .Subject }}{{ .Nope }}{{ end }}", "Nope"),
        ("/{{ upper 7 }}", "error calling upper"),
        ("/{{ fail \"not this one\" }}", "not this one"),
        ("/{{ repeat 100000 .PluginName }}", "longer than"),
        ("{{ range .DNSNames }}{{ repeat 9000 . | trunc 3000 }}{{ end }}", "longer than"),
    ] {
        let error = run(template).unwrap_err();
        assert!(error.contains(says), "{template}: {error}");
    }
}

#[test]
fn the_result_must_be_a_path() {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let example = data();
    let id = |template: &str| {
        AgentPathTemplate::parse(template, &example).unwrap().agent_id(&trust_domain, &example)
    };
    assert_eq!(id("/{{ .PluginName }}/x").unwrap().as_str(), "spiffe://example.org/spire/agent/x509pop/x");
    for (template, says) in [
        ("{{ .PluginName }}", "invalid agent path suffix \"x509pop\": path must have a leading slash"),
        ("", "path must have a leading slash"),
        ("/a//b", "empty segments"),
        ("/../server", "dot segments"),
        ("/a b", "characters are limited"),
        ("/a/", "trailing slash"),
        ("/{{ .DNSNames }}", "characters are limited"),
    ] {
        let error = id(template).unwrap_err().to_string();
        assert!(error.contains(says), "{template}: {error}");
    }
}
