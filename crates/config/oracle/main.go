// The oracle answers how Go's HCL 1 library reads a text.
//
// One JSON object per line on stdin ({"text": …}), one per line on stdout. `tree` is what the text parses to,
// `config` what it decodes to as a configuration of SPIRE's shape; `tree_error` and `config_error` say why not. A
// panic inside the library counts as an error. Other questions, for Go's standard library, are in std.go.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"unicode/utf8"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/token"
)

type question struct {
	Text string `json:"text"`
	// Any but "" goes to std.go.
	Ask  string   `json:"ask"`
	Args []string `json:"args"`
}

type answer struct {
	Tree        []any   `json:"tree"`
	TreeError   *string `json:"tree_error"`
	Config      *config `json:"config"`
	ConfigError *string `json:"config_error"`
}

type positions = map[string][]token.Pos

type config struct {
	Server    *server   `hcl:"server" json:"server"`
	Plugins   ast.Node  `hcl:"plugins" json:"-"`
	Telemetry telemetry `hcl:"telemetry" json:"telemetry"`

	Unused      positions         `hcl:",unusedKeyPositions" json:"-"`
	UnusedKeys  []string          `hcl:"-" json:"unused"`
	PluginsSeen map[string]plugin `hcl:"-" json:"plugins"`
}

type server struct {
	TrustDomain string     `hcl:"trust_domain" json:"trust_domain"`
	BindPort    int        `hcl:"bind_port" json:"bind_port"`
	CATTL       string     `hcl:"ca_ttl" json:"ca_ttl"`
	AuditLog    bool       `hcl:"audit_log_enabled" json:"audit_log_enabled"`
	AdminIDs    []string   `hcl:"admin_ids" json:"admin_ids"`
	Staleness   *string    `hcl:"max_attested_node_info_staleness" json:"max_attested_node_info_staleness"`
	Subject     *subject   `hcl:"ca_subject" json:"ca_subject"`
	Ratelimit   ratelimit  `hcl:"ratelimit" json:"ratelimit"`
	Federation  federation `hcl:"federation" json:"federation"`
	Unused      positions  `hcl:",unusedKeyPositions" json:"-"`
}

type subject struct {
	Country    []string  `hcl:"country" json:"country"`
	CommonName string    `hcl:"common_name" json:"common_name"`
	Unused     positions `hcl:",unusedKeyPositions" json:"-"`
}

type ratelimit struct {
	Attestation *bool     `hcl:"attestation" json:"attestation"`
	Fraction    float64   `hcl:"fraction" json:"fraction"`
	Unused      positions `hcl:",unusedKeyPositions" json:"-"`
}

type federation struct {
	With map[string]federatesWith `hcl:"federates_with" json:"federates_with"`
}

type federatesWith struct {
	URL string `hcl:"bundle_endpoint_url" json:"bundle_endpoint_url"`
}

type telemetry struct {
	Prometheus *prometheus       `hcl:"Prometheus" json:"Prometheus"`
	Statsd     []statsd          `hcl:"Statsd" json:"Statsd"`
	Labels     map[string]string `hcl:"Labels" json:"Labels"`
}

type prometheus struct {
	Host   string    `hcl:"host" json:"host"`
	Port   int       `hcl:"port" json:"port"`
	Unused positions `hcl:",unusedKeyPositions" json:"-"`
}

type statsd struct {
	Address string `hcl:"address" json:"address"`
}

type plugin struct {
	Command  string   `hcl:"plugin_cmd" json:"command"`
	Args     []string `hcl:"plugin_args" json:"args"`
	Checksum string   `hcl:"plugin_checksum" json:"checksum"`
	Data     ast.Node `hcl:"plugin_data" json:"-"`
	DataFile *string  `hcl:"plugin_data_file" json:"data_file"`
	Enabled  *bool    `hcl:"enabled" json:"enabled"`
	DataTree []any    `hcl:"-" json:"data"`
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	for in.Scan() {
		var q question
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, "bad question:", err)
			os.Exit(1)
		}
		if q.Ask != "" {
			if err := encoder.Encode(std(q)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			continue
		}
		var a answer
		a.TreeError = guarded(func() (err error) { a.Tree, err = readTree(q.Text); return })
		a.ConfigError = guarded(func() (err error) { a.Config, err = readConfig(q.Text); return })
		if err := encoder.Encode(a); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func guarded(f func() error) *string {
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return f()
	}()
	if err == nil {
		return nil
	}
	text := err.Error()
	return &text
}

func readTree(text string) ([]any, error) {
	var node ast.Node
	if err := hcl.Decode(&node, text); err != nil {
		return nil, err
	}
	return items(node.(*ast.ObjectList))
}

// An item is [[key…], value]; a key [kind, text, line, column].
func items(list *ast.ObjectList) ([]any, error) {
	result := []any{}
	for _, item := range list.Items {
		keys := []any{}
		for _, k := range item.Keys {
			text, err := stringOf(k.Token)
			if err != nil {
				return nil, err
			}
			kind := "quoted"
			switch {
			case k.Token.Type == token.IDENT:
				kind = "bare"
			case k.Token.JSON:
				kind = "json"
			}
			keys = append(keys, []any{kind, text, k.Token.Pos.Line, k.Token.Pos.Column})
		}
		v, err := value(item.Val)
		if err != nil {
			return nil, err
		}
		result = append(result, []any{keys, v})
	}
	return result, nil
}

// A value is [kind, content, line, column].
func value(node ast.Node) (any, error) {
	switch n := node.(type) {
	case *ast.LiteralType:
		kind, text := "", n.Token.Text
		switch n.Token.Type {
		case token.NUMBER:
			kind = "number"
		case token.FLOAT:
			if _, err := strconv.ParseFloat(text, 64); err != nil {
				return nil, err
			}
			kind = "float"
		case token.BOOL:
			kind = "bool"
		case token.STRING, token.HEREDOC:
			kind = "string"
			if n.Token.Type == token.HEREDOC {
				kind = "heredoc"
			}
			if text == "" {
				kind = "null"
				break
			}
			var err error
			if text, err = stringOf(n.Token); err != nil {
				return nil, err
			}
		}
		return []any{kind, text, n.Pos().Line, n.Pos().Column}, nil
	case *ast.ListType:
		list := []any{}
		for _, item := range n.List {
			v, err := value(item)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return []any{"list", list, n.Pos().Line, n.Pos().Column}, nil
	case *ast.ObjectType:
		list, err := items(n.List)
		return []any{"object", list, n.Pos().Line, n.Pos().Column}, err
	}
	return nil, fmt.Errorf("unexpected node %T", node)
}

func stringOf(t token.Token) (string, error) {
	text := t.Value().(string)
	if !utf8.ValidString(text) {
		return "", errors.New("value is not UTF-8")
	}
	return text, nil
}

func readConfig(text string) (*config, error) {
	c := &config{}
	if err := hcl.Decode(c, text); err != nil {
		return nil, err
	}
	c.UnusedKeys = unusedKeys(c)
	var err error
	c.PluginsSeen, err = readPlugins(c.Plugins)
	return c, err
}

func unusedKeys(c *config) []string {
	keys := []string{}
	add := func(section string, unused positions) {
		for key := range unused {
			keys = append(keys, section+"/"+key)
		}
	}
	add("top-level", c.Unused)
	if s := c.Server; s != nil {
		add("server", s.Unused)
		add("ratelimit", s.Ratelimit.Unused)
		if s.Subject != nil {
			add("ca_subject", s.Subject.Unused)
		}
	}
	if p := c.Telemetry.Prometheus; p != nil {
		add("Prometheus", p.Unused)
	}
	sort.Strings(keys)
	return keys
}

func readPlugins(node ast.Node) (map[string]plugin, error) {
	seen := map[string]plugin{}
	if node == nil {
		return seen, nil
	}
	list, ok := node.(*ast.ObjectList)
	if !ok {
		return nil, fmt.Errorf("plugins is a %T", node)
	}
	var maps []map[string]map[string]plugin
	if err := hcl.DecodeObject(&maps, list); err != nil {
		return nil, err
	}
	for _, byKind := range maps {
		for kind, byName := range byKind {
			for name, p := range byName {
				// JSON's null.
				if l, ok := p.Data.(*ast.LiteralType); ok && l.Token.Text == "" {
					p.Data = nil
				}
				if p.Data != nil {
					data, ok := p.Data.(*ast.ObjectList)
					if !ok {
						return nil, fmt.Errorf("plugin_data is a %T", p.Data)
					}
					var err error
					if p.DataTree, err = items(data); err != nil {
						return nil, err
					}
				}
				seen[kind+"/"+name] = p
			}
		}
	}
	return seen, nil
}
