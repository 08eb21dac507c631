// A workload that uses go-spiffe. The commands are the same for all languages: see ../README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: fetch | watch N | serve | connect ADDR ID | jwt AUD | validate AUD TOKEN | agent-validate AUD TOKEN")
	}
	switch args[0] {
	case "fetch":
		svid, err := workloadapi.FetchX509SVID(ctx)
		if err != nil {
			return err
		}
		show(svid)
		return nil
	case "watch":
		return watch(ctx, args[1])
	case "serve":
		return serve(ctx)
	case "connect":
		return connect(ctx, args[1], args[2])
	case "jwt":
		svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: args[1]})
		if err != nil {
			return err
		}
		fmt.Println(svid.Marshal())
		return nil
	case "validate":
		source, err := workloadapi.NewJWTSource(ctx)
		if err != nil {
			return err
		}
		defer source.Close()
		svid, err := jwtsvid.ParseAndValidate(args[2], source, []string{args[1]})
		if err != nil {
			return err
		}
		fmt.Println(svid.ID)
		return nil
	case "agent-validate":
		svid, err := workloadapi.ValidateJWTSVID(ctx, args[2], args[1])
		if err != nil {
			return err
		}
		fmt.Println(svid.ID)
		return nil
	}
	return fmt.Errorf("no command %q", args[0])
}

func show(svid *x509svid.SVID) {
	leaf := svid.Certificates[0]
	line, _ := json.Marshal(map[string]any{"id": svid.ID.String(), "serial": leaf.SerialNumber.String(), "not_after": leaf.NotAfter.Unix()})
	fmt.Println(string(line))
}

type watcher struct {
	left int
	seen map[string]bool
	done chan error
}

func (w *watcher) OnX509ContextUpdate(c *workloadapi.X509Context) {
	svid := c.DefaultSVID()
	serial := svid.Certificates[0].SerialNumber.String()
	if w.left == 0 || w.seen[serial] {
		return
	}
	w.seen[serial] = true
	show(svid)
	if w.left--; w.left == 0 {
		w.done <- nil
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	fmt.Fprintln(os.Stderr, "go: watch:", err)
}

func watch(ctx context.Context, n string) error {
	left, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	w := &watcher{left: left, seen: map[string]bool{}, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- workloadapi.WatchX509Context(ctx, w) }()
	select {
	case err := <-w.done:
		return err
	case err := <-ended:
		return fmt.Errorf("watch ended: %w", err)
	}
}

// serve answers each line of a caller with that caller's SPIFFE ID, until stdin closes.
func serve(ctx context.Context) error {
	listener, err := spiffetls.Listen(ctx, "tcp", "127.0.0.1:0", tlsconfig.AuthorizeAny())
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
				fmt.Fprintln(os.Stderr, "go: serve:", err)
				return
			}
			id, err := spiffetls.PeerIDFromConn(conn)
			if err != nil {
				fmt.Fprintln(os.Stderr, "go: serve:", err)
				return
			}
			fmt.Fprintf(conn, "%s\n", id)
		}()
	}
}

func connect(ctx context.Context, addr, server string) error {
	id, err := spiffeid.FromString(server)
	if err != nil {
		return err
	}
	conn, err := spiffetls.Dial(ctx, "tcp", addr, tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, "who am I"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(answer)
	return nil
}
