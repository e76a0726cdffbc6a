// Command dray is a caching pull-through mirror for container registries that forwards pushes to
// Amazon ECR.
//
// Only this package and the packages below it choose implementations and connect them. Only the
// function main ends the process. [run] runs the mirror or another subcommand. It gets the
// arguments, the environment and the streams as parameters, so that tests can call it.
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
