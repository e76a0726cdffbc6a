// Command dray is a caching pull-through mirror for container registries that forwards pushes to
// Amazon ECR.
//
// It is the only package that chooses implementations and connects them. Only the function main
// ends the process. [run] has the whole program, with its arguments, environment and streams as
// parameters.
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
	os.Exit(untilSignal(os.Args[1:]))
}

// untilSignal runs the program with the environment and the streams of the process. SIGINT and
// SIGTERM end its context.
func untilSignal(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, args, os.Environ(), os.Stdin, os.Stdout, os.Stderr)
}
