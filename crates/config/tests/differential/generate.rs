//! Texts from a grammar, with a fixed seed.

use fastrand::Rng;

pub struct Generator {
    rng: Rng,
}

const IDENTS: &[&str] = &["a", "b_1", "trust_domain", "x.y", "k-8", "Type", "true1", "größe", "_"];
const STRINGS: &[&str] = &[
    "\"\"",
    "\"x\"",
    "\"example.org\"",
    "\"a b\"",
    r#""\t\\\"""#,
    r#""\x41\101\u00e9\U0001F600""#,
    "\"${x}\"",
    "\"${f(\"x\")} y\"",
    "\"%{x}\"",
    "\"{{ .A }}\"",
    "\"8081\"",
    "\"# no\"",
    "\"$\"",
    "\"é世\"",
    "\"'\"",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "8081",
    "0x1F",
    "0755",
    "1.5",
    "-0.25",
    "1e3",
    "2.5E-3",
    ".5",
    "1.",
    "99999999999999999999",
];
const MUTATIONS: &[&str] = &[
    "{", "}", "[", "]", "=", ",", "\"", "\\", "$", "${", "#", "//", "/*", "*/", "\n", " ", ".", "-", "+",
    "0", "9", "x", "e", "true", "<<E\n", "E\n", "<<-E\n", "  E\n", "\t", "a", "é", ":", "'", "\"\"", "{}",
    "[]", "= 1", "\r",
];

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed) }
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.rng.usize(..from.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    /// White space, with or without line ends and comments.
    fn space(&mut self) -> &'static str {
        let spaces = [
            " ",
            " ",
            " ",
            "\n",
            "  ",
            "\t",
            "\n\n  ",
            " # c\n",
            " // \"c\n",
            " /* c */ ",
            "\n/* c\n */\n",
            "\r\n",
        ];
        spaces[self.rng.usize(..spaces.len())]
    }

    pub fn hcl(&mut self) -> String {
        let mut out = String::new();
        if self.chance(10) {
            out.push_str(self.space());
        }
        self.items(&mut out, 0);
        out
    }

    fn items(&mut self, out: &mut String, depth: usize) {
        for _ in 0..self.rng.usize(..4 + usize::from(depth == 0)) {
            self.item(out, depth);
            match self.rng.u32(..10) {
                0..=4 => out.push('\n'),
                5 => out.push_str(", "),
                6 => out.push_str(",\n"),
                _ => out.push_str(self.space()),
            }
        }
    }

    fn key(&mut self, out: &mut String) {
        if self.chance(25) { out.push_str(self.pick(STRINGS)) } else { out.push_str(self.pick(IDENTS)) }
    }

    fn item(&mut self, out: &mut String, depth: usize) {
        self.key(out);
        if depth < 4 && self.chance(40) {
            while self.chance(35) {
                out.push_str(self.space());
                self.key(out);
            }
            out.push_str(self.space());
            self.object(out, depth);
        } else {
            let assign = [" = ", "=", " =\n", "\t= "];
            out.push_str(assign[self.rng.usize(..assign.len())]);
            self.value(out, depth);
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) {
        out.push('{');
        out.push_str(if self.chance(50) { "\n" } else { " " });
        self.items(out, depth + 1);
        out.push('}');
    }

    fn value(&mut self, out: &mut String, depth: usize) {
        match self.rng.u32(..20) {
            0..=6 => out.push_str(self.pick(STRINGS)),
            7..=9 => out.push_str(self.pick(NUMBERS)),
            10..=11 => out.push_str(self.pick(&["true", "false"])),
            12 => self.heredoc(out),
            13..=16 if depth < 5 => self.list(out, depth),
            17..=19 if depth < 5 => self.object(out, depth),
            _ => out.push_str("1 "),
        }
    }

    fn list(&mut self, out: &mut String, depth: usize) {
        out.push('[');
        for _ in 0..self.rng.usize(..4) {
            self.value(out, depth + 1);
            out.push_str(if self.chance(85) { "," } else { " " });
            if self.chance(30) {
                out.push_str(self.space());
            }
        }
        out.push(']');
    }

    fn heredoc(&mut self, out: &mut String) {
        let dash = self.pick(&["", "-"]);
        let marker = self.pick(&["E", "EOF", "_1"]);
        out.push_str(&format!("<<{dash}{marker}\n"));
        for _ in 0..self.rng.usize(..4) {
            out.push_str(self.pick(&["", "  ", "    ", "\t"]));
            out.push_str(self.pick(&["text", "", "EOF x", "\"q\" \\n ${x}", "# c", "é", "}"]));
            out.push('\n');
        }
        out.push_str(self.pick(&["", "", "  ", "\t"]));
        out.push_str(marker);
        out.push('\n');
    }

    /// Changes a few places of a text.
    pub fn mutate(&mut self, text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=self.rng.usize(..3) {
            let at = self.rng.usize(..=chars.len());
            let end = (at + self.rng.usize(1..4)).min(chars.len());
            match self.rng.u32(..4) {
                0 => drop(chars.drain(at..end)),
                1 => drop(chars.splice(at..at, self.pick(MUTATIONS).chars())),
                2 => drop(chars.splice(at..end, self.pick(MUTATIONS).chars())),
                _ => {
                    let copied: Vec<char> = chars[at..end].to_vec();
                    let to = self.rng.usize(..=chars.len());
                    drop(chars.splice(to..to, copied));
                }
            }
        }
        chars.into_iter().collect()
    }

    pub fn json(&mut self) -> String {
        let mut out = String::new();
        self.json_object(&mut out, 0);
        out
    }

    fn json_object(&mut self, out: &mut String, depth: usize) {
        out.push('{');
        for i in 0..self.rng.usize(..4) {
            if i > 0 {
                out.push(',');
            }
            out.push_str(self.pick(&["", " ", "\n  "]));
            out.push_str(self.pick(&["\"a\"", "\"b c\"", "\"x\\u00e9\"", "\"\"", "\"server\"", "\"${k}\""]));
            out.push_str(self.pick(&[":", " : "]));
            self.json_value(out, depth);
        }
        out.push_str(self.pick(&["", "\n"]));
        out.push('}');
    }

    fn json_value(&mut self, out: &mut String, depth: usize) {
        match self.rng.u32(..12) {
            0..=2 => out.push_str(self.pick(&[
                "\"\"",
                "\"x\"",
                "\"\\n\\\"\\\\\"",
                "\"\\u003c\"",
                "\"${x}\"",
                "\"é\"",
            ])),
            3 => out.push_str(self.pick(&["0", "-1", "8081", "1.5", "1e3", "2.5E-3", "-0.5"])),
            4 => out.push_str(self.pick(&["true", "false", "null"])),
            5..=8 if depth < 4 => self.json_object(out, depth + 1),
            9..=11 if depth < 4 => {
                out.push('[');
                // HCL 1 knows no booleans and no lists in a JSON list.
                let objects = self.chance(60);
                for i in 0..self.rng.usize(..3) {
                    if i > 0 {
                        out.push(',');
                    }
                    if objects || self.chance(20) {
                        self.json_object(out, depth + 1);
                    } else {
                        out.push_str(self.pick(&["\"x\"", "1", "2.5"]));
                    }
                }
                out.push(']');
            }
            _ => out.push_str("\"leaf\""),
        }
    }

    /// SPIRE's keys with values that are mostly of the right type.
    pub fn configuration(&mut self) -> String {
        if self.chance(30) { self.json_configuration() } else { self.hcl_configuration() }
    }

    fn typed(&mut self, kind: Kind) -> String {
        let kind = if self.chance(6) { Kind::ALL[self.rng.usize(..Kind::ALL.len())] } else { kind };
        let values: &[&str] = match kind {
            Kind::Text => &["\"example.org\"", "\"\"", "\"5s\"", "42", "0x10"],
            Kind::Int => &["8081", "\"8081\"", "0", "-3", "\"0x1f\"", "0755", "\"\"", "\"x\""],
            Kind::Bool => &["true", "false"],
            Kind::Float => &["0.5", "2", "-1.5e2"],
            Kind::Texts => &["[]", "[\"a\"]", "[\"a\", \"b\",]", "[1, \"b\"]"],
        };
        self.pick(values).to_owned()
    }

    fn attributes(&mut self, out: &mut String, keys: &[(&str, Kind)]) {
        for (key, kind) in keys {
            if self.chance(50) {
                let key = if self.chance(5) { key.to_uppercase() } else { (*key).to_owned() };
                let key = if self.chance(10) { format!("\"{key}\"") } else { key };
                out.push_str(&format!(
                    "{key} = {}{}",
                    self.typed(*kind),
                    self.pick(&["\n", " ", ", ", ",\n"])
                ));
            }
        }
        if self.chance(8) {
            out.push_str(self.pick(&[
                "unknown = 1\n",
                "\"unknown\" = 1\n",
                "unknown { a = 1 }\n",
                "other.x = []\n",
            ]));
        }
    }

    fn section(
        &mut self,
        out: &mut String,
        percent: u32,
        head: &str,
        inside: impl FnOnce(&mut Self, &mut String),
    ) {
        if !self.chance(percent) {
            return;
        }
        out.push_str(head);
        out.push_str(self.pick(&[" {\n", " = {", "\n{\n", "{"]));
        inside(self, out);
        out.push_str(self.pick(&["}\n", "} ", "},\n"]));
    }

    fn hcl_configuration(&mut self) -> String {
        let mut out = String::new();
        let repeat = 1 + usize::from(self.chance(8));
        for _ in 0..repeat {
            self.section(&mut out, 85, "server", |g, out| {
                g.attributes(out, SERVER);
                g.section(out, 40, "ca_subject", |g, out| g.attributes(out, SUBJECT));
                g.section(out, 40, "ratelimit", |g, out| g.attributes(out, RATELIMIT));
                g.section(out, 40, "federation", Self::federation);
                g.section(out, 20, "experimental", |g, out| g.attributes(out, RATELIMIT));
            });
        }
        let head = self.pick(&["plugins", "\"plugins\""]);
        let one_by_one = self.chance(40);
        self.section(&mut out, 70, head, |g, out| g.plugins(out, one_by_one));
        self.section(&mut out, 50, "telemetry", |g, out| {
            g.section(out, 50, "Prometheus", |g, out| g.attributes(out, PROMETHEUS));
            if g.chance(40) {
                out.push_str(g.pick(&[
                    "Statsd = [{ address = \"a:1\" }, { address = \"b:2\" }]\n",
                    "Statsd { address = \"a:1\" }\n",
                    "Statsd = []\n",
                    "Statsd = [{}]\n",
                ]));
            }
            g.section(out, 30, "Labels", |_, out| out.push_str("region = \"eu\" zone = 1 "));
        });
        out
    }

    fn federation(&mut self, out: &mut String) {
        let nested = self.chance(40);
        if nested {
            out.push_str("federates_with {\n");
        }
        for label in ["\"two.test\"", "three.test", "\"four.test\""] {
            if self.chance(60) {
                let key = if nested { "" } else { "federates_with " };
                out.push_str(&format!("{key}{label} {{ "));
                self.attributes(out, &[("bundle_endpoint_url", Kind::Text)]);
                out.push_str("}\n");
            }
        }
        if nested {
            out.push_str("}\n");
        }
    }

    fn plugins(&mut self, out: &mut String, one_by_one: bool) {
        let names =
            [("NodeAttestor", "\"join_token\""), ("NodeAttestor", "x509pop"), ("KeyManager", "\"disk\"")];
        for (kind, name) in names {
            if self.chance(40) {
                continue;
            }
            let (open, close) = if one_by_one {
                (format!("{kind} {name}"), "")
            } else {
                (format!("{kind} {{ {name}"), "}\n")
            };
            if one_by_one && self.chance(20) {
                out.push_str(&format!("{open} plugin_data {{\n"));
                self.items(out, 2);
                out.push_str("}\n");
                continue;
            }
            out.push_str(&format!("{open} {{\n"));
            self.attributes(out, PLUGIN);
            if self.chance(70) {
                out.push_str(self.pick(&["plugin_data {\n", "plugin_data = {\n"]));
                self.items(out, 2);
                out.push_str("}\n");
            }
            out.push_str("}\n");
            out.push_str(close);
        }
    }

    fn json_configuration(&mut self) -> String {
        let server = self.json_attributes(SERVER);
        let mut server: Vec<String> = server;
        if self.chance(40) {
            let subject = self.json_attributes(SUBJECT).join(",");
            let wrapped = if self.chance(50) { format!("[{{{subject}}}]") } else { format!("{{{subject}}}") };
            server.push(format!("\"ca_subject\":{wrapped}"));
        }
        if self.chance(30) {
            server.push(format!("\"ratelimit\":{{{}}}", self.json_attributes(RATELIMIT).join(",")));
        }
        if self.chance(30) {
            server.push(
                "\"federation\":{\"federates_with\":{\"two.test\":{\"bundle_endpoint_url\":\"u\"}}}"
                    .to_owned(),
            );
        }
        let data = self.pick(&[
            "null",
            "{}",
            "{\"a\":\"b\"}",
            "{\"c\":[{\"d\":{\"e\":[]}}]}",
            "{\"c\":{\"d\":{\"e\":1}}}",
        ]);
        let mut plugin = self.json_attributes(PLUGIN);
        plugin.push(format!("\"plugin_data\":{data}"));
        let plugin = format!("{{\"k8s_psat\":{{{}}}}}", plugin.join(","));
        let plugin = if self.chance(50) { format!("[{plugin}]") } else { plugin };
        let mut parts = vec![format!(
            "\"plugins\":{{\"NodeAttestor\":{plugin},\"KeyManager\":{{\"memory\":{{\"plugin_data\":null}}}}}}"
        )];
        if self.chance(90) {
            parts.push(format!("\"server\":{{{}}}", server.join(", ")));
        }
        if self.chance(40) {
            let prometheus = self.json_attributes(PROMETHEUS).join(",");
            parts.push(format!(
                "\"telemetry\": {{\"Prometheus\":{{{prometheus}}}, \"Labels\": {{\"a\":\"b\"}}}}"
            ));
        }
        if self.chance(5) {
            parts.push("\"unknown\":1".to_owned());
        }
        self.rng.shuffle(&mut parts);
        format!("{{{}}}", parts.join(",\n"))
    }

    fn json_attributes(&mut self, keys: &[(&str, Kind)]) -> Vec<String> {
        let mut out = Vec::new();
        for (key, kind) in keys {
            if self.chance(50) {
                // Hex and octal are HCL's alone.
                let value = self.typed(*kind).replace("0x10", "16").replace("0755", "755").replace(",]", "]");
                out.push(format!("\"{key}\":{value}"));
            }
        }
        if self.chance(6) {
            out.push("\"unknown\":\"x\"".to_owned());
        }
        out
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Bool,
    Float,
    Texts,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Text, Self::Int, Self::Bool, Self::Float, Self::Texts];
}

const SERVER: &[(&str, Kind)] = &[
    ("trust_domain", Kind::Text),
    ("bind_port", Kind::Int),
    ("ca_ttl", Kind::Text),
    ("audit_log_enabled", Kind::Bool),
    ("admin_ids", Kind::Texts),
    ("max_attested_node_info_staleness", Kind::Text),
];
const SUBJECT: &[(&str, Kind)] = &[("country", Kind::Texts), ("common_name", Kind::Text)];
const RATELIMIT: &[(&str, Kind)] = &[("attestation", Kind::Bool), ("fraction", Kind::Float)];
const PROMETHEUS: &[(&str, Kind)] = &[("host", Kind::Text), ("port", Kind::Int)];
const PLUGIN: &[(&str, Kind)] = &[
    ("plugin_cmd", Kind::Text),
    ("plugin_args", Kind::Texts),
    ("plugin_checksum", Kind::Text),
    ("enabled", Kind::Bool),
];
