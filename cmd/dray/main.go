// Command dray is a caching pull-through mirror for container registries that forwards pushes to
// Amazon ECR.
//
// It is the only package that chooses implementations and connects them. Only main ends the
// process; run is the whole program as a function of its arguments, environment and streams.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"dray/mirror/pipeline/scanner"
)

func main() {
	if code, was := scanner.Supervise(os.Args); was {
		os.Exit(code)
	}
	scanner.HideProcess()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
