package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

type stdAnswer struct {
	Result string `json:"result"`
	Error  string `json:"error"`
}

// std answers a question about Go's standard library.
func std(q question) (a stdAnswer) {
	set := func(result any, err error) {
		if err != nil {
			a.Error = err.Error()
			return
		}
		a.Result = fmt.Sprint(result)
	}
	switch q.Ask {
	case "duration":
		d, err := time.ParseDuration(q.Text)
		set(fmt.Sprintf("%d %s", int64(d), d), err)
	case "int":
		n, err := strconv.ParseInt(q.Text, 0, 64)
		set(n, err)
	case "quote":
		a.Result = strconv.Quote(q.Text)
	case "expand":
		a.Result = os.Expand(q.Text, func(name string) string {
			values := map[string]string{"$": "$", "A": "1", "B_2": "two $A", "a b": "spaced", "1": "one"}
			return values[name]
		})
	case "flags":
		a.Result = flags(q.Args)
	default:
		a.Error = "unknown question"
	}
	return a
}

// flags parses a command line and prints all there is to see of it.
func flags(args []string) string {
	var out bytes.Buffer
	fs := flag.NewFlagSet("entry create", flag.ContinueOnError)
	fs.SetOutput(&out)
	text := fs.String("spiffeID", "", "An ID")
	path := fs.String("socketPath", "/tmp/\"x\"\\y", "A path\nover two lines")
	letter := fs.String("o", "", "One letter")
	named := fs.String("write", "", "Write to `directory` (default none)")
	half := fs.String("half", "d", "One ` back quote")
	quiet := fs.Bool("q", false, "Quiet")
	verbose := fs.Bool("verbose", true, "Verbose")
	ttl := fs.Int64("ttl", 600, "Seconds")
	zero := fs.Int64("x509SVIDTTL", 0, "Seconds")
	wait := fs.Duration("wait", 90*time.Second, "How long")
	ttl2 := fs.Duration("jwtTTL", 0, "How long")
	timeout := durationFlag(time.Second)
	fs.Var(&timeout, "timeout", "How long to wait")
	var selectors stringsFlag
	fs.Var(&selectors, "selector", "Repeated")
	var audience csvFlag
	fs.Var(&audience, "audience", "With commas")
	var banned triFlag
	fs.Var(&banned, "banned", "true, false or all")

	if err := fs.Parse(args); err != nil {
		return fmt.Sprintf("%s|%v|%q", out.String(), err, fs.Args())
	}
	fmt.Fprintf(&out, "%q %q %q %q %q %v %v %d %d %v %v %v %q %q %d|%q|", *text, *path, *letter, *named, *half,
		*quiet, *verbose, *ttl, *zero, *wait, *ttl2, timeout, []string(selectors), []string(audience), int(banned), fs.Args())
	fs.Visit(func(f *flag.Flag) { fmt.Fprintf(&out, " %s", f.Name) })
	return out.String()
}

type durationFlag time.Duration

func (f durationFlag) String() string { return time.Duration(f).String() }

func (f *durationFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err == nil {
		*f = durationFlag(d)
	}
	return err
}

type stringsFlag []string

func (f *stringsFlag) String() string { return fmt.Sprint(*f) }

func (f *stringsFlag) Set(text string) error {
	*f = append(*f, text)
	return nil
}

type csvFlag []string

func (f *csvFlag) String() string { return strings.Join(*f, ",") }

func (f *csvFlag) Set(text string) error {
	*f = strings.Split(text, ",")
	return nil
}

// triFlag: 0 all, 1 false, 2 true.
type triFlag int

func (f *triFlag) String() string { return "" }

func (f *triFlag) Set(text string) error {
	*f = map[string]triFlag{"false": 1, "true": 2}[text]
	return nil
}
