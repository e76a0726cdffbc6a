// Draybench compares dray with nginx, with distribution, and with no cache at all, in one run on
// one machine, and writes the results as a page of ratios.
//
// Everything runs on the loopback interface, in a network namespace of its own if the kernel
// permits that. The origin is as slow as a distant registry, and counts the requests that reach it.
// The kernel discards most bodies, so that the clients need little CPU. The servers are real
// programs; dray is built from this tree. A run stops its servers and removes its directories when
// it ends.
//
// draybench simulate replays a log of requests, or synthetic requests, on caches of several sizes
// and policies, and prints their hit ratios.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	quick, install bool
	only, servers  string
	out            string
	inside         string // the path of tools.json, if this process is the child inside the namespace
	bare           string // the address to listen on, if this process is the bare server of net/http
	bareSource     string // the server whose answers the bare server repeats
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "draybench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "simulate" {
		return simulate(ctx, args[1:], stdout, stderr)
	}
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.bare != "" {
		return (&bare{source: o.bareSource}).serve(ctx, o.bare)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if o.inside != "" {
		return o.measureInside(ctx, stdout, log)
	}
	dir, err := os.MkdirTemp("", "draybench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t, err := findTools(ctx, dir, o.install)
	if err != nil {
		return err
	}
	for _, sentence := range t.Missing {
		log.Warn(sentence)
	}
	file := filepath.Join(dir, "tools.json")
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return err
	}
	err = enterNamespace(ctx, slices.Concat([]string{"-inside", file}, args))
	if errors.Is(err, errNoNamespace) {
		log.Warn("measuring in the network of the host", "reason", err)
		return o.measure(ctx, t, "the network of the host", stdout, log)
	}
	return err
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	flags := flag.NewFlagSet("draybench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.quick, "quick", false, "run everything with small sizes, in less than a minute; the numbers mean nothing")
	flags.BoolVar(&o.install, "install", false, "fetch the peers that are missing, into the directory of test tools")
	flags.StringVar(&o.only, "only", "", "measure only these, separated by commas: "+strings.Join(names, ", "))
	flags.StringVar(&o.servers, "servers", "", "measure only these, separated by commas: "+strings.Join([]string{direct, dray, nginx, distribution}, ", "))
	flags.StringVar(&o.out, "out", "", "write the page to this file; the default is standard output")
	flags.StringVar(&o.inside, "inside", "", "used by the program itself")
	flags.StringVar(&o.bare, "bare", "", "used by the program itself")
	flags.StringVar(&o.bareSource, "bare-source", "", "used by the program itself")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	for _, name := range separated(o.servers) {
		if !slices.Contains([]string{direct, dray, nginx, distribution}, name) {
			return o, fmt.Errorf("-servers %s: there is none", name)
		}
	}
	for _, name := range o.names() {
		if !slices.Contains(names, name) {
			return o, fmt.Errorf("-only %s: there are %s", name, strings.Join(names, ", "))
		}
	}
	return o, nil
}

func (o options) names() []string { return separated(o.only) }

func separated(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func (o options) measureInside(ctx context.Context, stdout io.Writer, log *slog.Logger) error {
	var t tools
	raw, err := os.ReadFile(o.inside)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return err
	}
	if err := prepareNamespace(); err != nil {
		log.Warn("the namespace is not as it should be", "error", err)
	}
	return o.measure(ctx, t, "a network namespace of its own", stdout, log)
}

// measure runs the scenarios and writes the page.
func (o options) measure(ctx context.Context, t tools, network string, stdout io.Writer, log *slog.Logger) error {
	dir, err := os.MkdirTemp("", "draybench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{fakeECR: t.FakeECR, redis: t.Redis, gateway: t.Gateway, plan: fullPlan(), dir: dir, results: results{}, otherCores: map[string]float64{}, log: log, peers: []peer{{name: direct}, drayPeer(t.Dray)}}
	if o.quick {
		b.plan = quickPlan()
	}
	if t.Nginx != "" {
		b.peers = append(b.peers, nginxPeer(t.Nginx))
	}
	if t.Distribution != "" {
		b.peers = append(b.peers, distributionPeer(t.Distribution))
	}
	if servers := separated(o.servers); len(servers) > 0 {
		b.peers = slices.DeleteFunc(b.peers, func(p peer) bool { return !slices.Contains(servers, p.name) })
	}
	trust, err := b.certify()
	if err != nil {
		return err
	}
	b.loader = newLoader(trust)
	page := page{results: b.results, otherCoresIn: b.otherCores, plan: b.plan, tools: t, partial: o.only+o.servers != "", machine: describe(ctx, dir, network, t)}
	meter, begun := startMeter(), time.Now()
	if err := b.run(ctx, o.names()); err != nil {
		return err
	}
	page.otherCores, page.took = meter.otherCores(), time.Since(begun)
	if o.out == "" {
		_, err = io.WriteString(stdout, page.render())
		return err
	}
	return os.WriteFile(o.out, []byte(page.render()), 0o644)
}
