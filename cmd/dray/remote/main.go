// Command remote is dray for machines that run no mirror. Apart from version and man, it has only
// the subcommands that query or change a running dray. It also builds for systems on which the
// mirror is not tested. In releases, this program is also named dray.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"

	"dray/cmd/dray/config"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/manual"
	"dray/cmd/dray/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the program and returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := program.Root("Asks and changes a running dray, a caching mirror for container registries", stdin, stdout, stderr)
	path := root.PersistentFlags().StringP("config", "c", "", "configuration file in YAML (default: the value of DRAY_CONFIG)")
	load := func() (config.Config, error) { return config.Load(*path, environ) }
	root.AddCommand(program.VersionCommand(stdout), manual.Command())
	root.AddCommand(ctl.Commands(ctl.Options{Stdout: stdout, Stderr: stderr, Environ: environ, Load: load})...)
	return program.Run(ctx, root, args, stderr)
}
