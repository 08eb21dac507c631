use super::*;
use crate::parse;

fn read(text: &str) -> Result<Vec<PluginConfig>, ConfigError> {
    let body = parse("f.conf", text).expect(text);
    let inner = body.block().body("plugins").expect(text).expect("a plugins block");
    plugins(&inner)
}

fn names(text: &str) -> Vec<String> {
    read(text).expect(text).iter().map(|p| format!("{}/{}", p.kind, p.name)).collect()
}

#[test]
fn every_nesting_in_file_order() {
    for text in [
        r#"plugins { Z "b" { plugin_data { x = 1 } } A "a" { plugin_data { x = 1 } } Z "a" { plugin_data { x = 1 } } }"#,
        r#"plugins { Z { b { plugin_data { x = 1 } } } A { a { plugin_data { x = 1 } } } Z { "a" { plugin_data { x = 1 } } } }"#,
        r#"plugins { Z "b" plugin_data { x = 1 } A "a" plugin_data { x = 1 } Z "a" plugin_data { x = 1 } }"#,
        r#"plugins "Z" "b" { plugin_data { x = 1 } } plugins "A" "a" { plugin_data { x = 1 } } plugins Z a plugin_data { x = 1 }"#,
        r#"{"plugins":[{"Z":{"b":{"plugin_data":{"x":1}}}},{"A":{"a":{"plugin_data":{"x":1}}}},{"Z":[{"a":{"plugin_data":[{"x":1}]}}]}]}"#,
    ] {
        assert_eq!(names(text), ["Z/b", "A/a", "Z/a"], "{text}");
        for plugin in read(text).expect(text) {
            assert_eq!(plugin.body().expect("data").block().int("x").expect("x"), Some(1), "{text}");
            assert!(plugin.enabled && !plugin.is_external() && plugin.args.is_empty());
        }
    }
}

#[test]
fn everything_of_an_external_plugin() {
    let text = r#"plugins {
        NodeAttestor "x" {
            plugin_cmd = "/opt/x" plugin_args = ["-a", "b"] plugin_checksum = "00ff" enabled = false
            plugin_data { token = "t" }
        }
    }"#;
    let plugin = read(text).expect(text).remove(0);
    assert_eq!(plugin.command.as_deref(), Some("/opt/x"));
    assert_eq!(plugin.args, ["-a", "b"]);
    assert_eq!(plugin.checksum.as_deref(), Some("00ff"));
    assert!(plugin.is_external() && !plugin.enabled && !plugin.data.is_dynamic());
    assert_eq!(plugin.data.text().expect("inline").as_deref(), Some("token = \"t\"\n"));
    assert_eq!((plugin.file.as_str(), plugin.pos), ("f.conf", Pos { line: 2, column: 22 }));
}

#[test]
fn no_data_in_many_ways() {
    for data in ["", "plugin_data {}", "plugin_data = {}", "plugin_data { }"] {
        let plugin =
            read(&format!("plugins {{ KeyManager \"memory\" {{ {data} }} }}")).expect(data).remove(0);
        assert!(plugin.data.is_none(), "{data}");
        assert_eq!(plugin.data.text().expect("nothing"), None);
        assert!(plugin.body().expect("nothing").is_empty());
    }
    for data in ["null", "{}", "[{}]"] {
        let text = format!(r#"{{"plugins":{{"KeyManager":{{"memory":{{"plugin_data":{data}}}}}}}}}"#);
        assert!(read(&text).expect(data).remove(0).data.is_none(), "{data}");
    }
}

#[test]
fn data_from_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data.hcl");
    let path = path.to_str().expect("a UTF-8 path");
    let plugin = read(&format!("plugins {{ A \"b\" {{ plugin_data_file = \"{path}\" }} }}"))
        .expect("a file")
        .remove(0);
    assert!(plugin.data.is_dynamic());
    let missing = plugin.data.text().expect_err("no such file").to_string();
    assert!(missing.starts_with(&format!("failed to read plugin_data_file {path:?}: ")), "{missing}");
    std::fs::write(path, "x = 1").expect("a file");
    assert_eq!(plugin.data.text().expect("readable").as_deref(), Some("x = 1"));
    assert_eq!(plugin.body().expect("well-formed").block().int("x").expect("x"), Some(1));
    std::fs::write(path, "x = ?").expect("a file");
    assert_eq!(
        plugin.body().expect_err("not well-formed").to_string(),
        format!("{path}:1:5: unexpected character '?'")
    );
}

/// SPIRE trips over the second: it sees one plugin twice.
#[test]
fn json_objects_fold_into_one_plugin() {
    let text =
        r#"{"plugins":{"NodeAttestor":{"k8s_psat":{"plugin_data":{"clusters":{"a":{"x":1},"b":{"x":2}}}}}}}"#;
    let plugin = read(text).expect(text).remove(0);
    let labels: Vec<String> = plugin
        .body()
        .expect("data")
        .block()
        .labelled("clusters")
        .expect("clusters")
        .into_iter()
        .map(|(l, _)| l)
        .collect();
    assert_eq!(labels, ["a", "b"]);
}

#[test]
fn refusals() {
    let cases = [
        ("plugins { A \"b\" {} A \"b\" {} }", "f.conf:1:22: plugin \"A\"/\"b\" declared more than once"),
        ("plugins { A \"b\" {} A { b {} } }", "f.conf:1:24: plugin \"A\"/\"b\" declared more than once"),
        ("plugins { A = 1 }", "f.conf:1:15: plugins.A: expected a block, found a number"),
        ("plugins { A { b = 1 } }", "f.conf:1:19: plugins.A \"b\": expected a block, found a number"),
        ("plugins { A = [{}] }", "f.conf:1:15: plugins.A: expected a block, found a list"),
        (
            "plugins { A \"b\" { plugin_data = \"x\" } }",
            "f.conf:1:33: plugin_data: expected a block, found a string",
        ),
        (
            "plugins { A \"b\" { enabled = \"false\" } }",
            "f.conf:1:29: enabled: expected true or false, found a string",
        ),
        (
            "plugins { A \"b\" { plugin_data { x = 1 } plugin_data_file = \"f\" } }",
            "f.conf:1:41: plugin_data_file: only one of [plugin_data, plugin_data_file] can be used",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(read(text).expect_err(text).to_string(), want, "{text}");
    }
}

/// SPIRE looks for no unknown keys here.
#[test]
fn unknown_keys_pass() {
    assert_eq!(names("plugins { A \"b\" { plugin_comand = \"x\" extra {} } }"), ["A/b"]);
    assert!(names("plugins {}").is_empty());
    assert!(names("plugins { A {} }").is_empty());
}
