// Command playtest shows dray at work on a machine that needs only Go. It builds dray and a
// stand-in for Amazon ECR, starts both, pushes and pulls images of several megabytes, and prints
// the results.
//
// It uses dray as a new user would: as a binary with the environment variables of dray's README,
// over TLS. Unless TLS_CERTIFICATE names a certificate, the binary makes one. playtest measures how
// long each operation takes, and how many bytes the clients send and receive. It reads the numbers
// about ECR from the stand-in or, with a real ECR, from dray's metrics. It stops all processes that
// it starts, and removes the temporary directory with its files; only the binaries in bin/playtest
// remain.
//
// If ECR_REGISTRY is set, playtest uses that registry instead of the stand-in, and only the
// repository dray-playtest in it.
//
// If DRAY_ADDRESS is set, other machines can connect to this dray only if the host in DRAY_ADDRESS
// is not a loopback address. Without DRAY_ADDRESS, they can connect only if the name of dray that
// clients use (the variable REGISTRY, by default localhost) resolves to an address other than
// loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/go-containerregistry/pkg/logs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the flags.
type options struct {
	dray, fakeecr string // paths of binaries; if one is empty, the binary is built from source
	once          bool
	clients       int
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	logs.Warn.SetOutput(io.Discard) // hides warnings about retries; the table includes their time
	var o options
	flags := flag.NewFlagSet("playtest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dray, "dray", "", "use this binary of dray; without it bin/playtest/dray is built")
	flags.StringVar(&o.fakeecr, "fakeecr", "", "use this binary of fakeecr; without it bin/playtest/fakeecr is built")
	flags.BoolVar(&o.once, "once", false, "end after the table")
	flags.IntVar(&o.clients, "clients", 8, "clients that pull at the same time")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := play(ctx, o, environ, stdout); err != nil {
		fmt.Fprintln(stderr, "playtest:", err)
		return 1
	}
	return 0
}

// play starts the testbed and runs the scenario. Unless o.once is set, it then keeps the testbed up
// until ctx is done or dray ends.
func play(ctx context.Context, o options, environ []string, stdout io.Writer) (err error) {
	s, err := newTestbed(ctx, o, environ, stdout)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return err
	}
	rows, err := s.scenario(ctx, o.clients)
	printTable(stdout, rows)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.dray.tail())
	}
	if o.once {
		return nil
	}
	s.printNext(stdout)
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout)
		return nil
	case <-s.dray.done:
		return fmt.Errorf("dray ended: %v\n%s", s.dray.err, s.dray.tail())
	}
}
