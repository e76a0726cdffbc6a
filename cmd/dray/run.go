package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"dray/cmd/dray/backup"
	"dray/cmd/dray/bucket"
	"dray/cmd/dray/bundle"
	"dray/cmd/dray/certificates"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/doctor"
	"dray/cmd/dray/htpasswd"
	"dray/cmd/dray/manual"
	"dray/cmd/dray/program"
	"dray/cmd/dray/setup"
)

// run runs the program and returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	in := &invocation{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	return program.Run(ctx, rootCommand(in), args, stderr)
}

func rootCommand(in *invocation) *cobra.Command {
	root := program.Root("A caching mirror for container registries that forwards pushes to Amazon ECR", in.stdin, in.stdout, in.stderr)
	root.PersistentFlags().StringVarP(&in.configPath, "config", "c", "", "configuration file in YAML (default: the value of DRAY_CONFIG)")
	operators := ctl.Options{Stdout: in.stdout, Stderr: in.stderr, Environ: in.environ, Load: in.load}
	examined := doctorOptions(in)
	root.AddCommand(serveCommand(in), checkCommand(in), doctor.Command(examined), checkImageCommand(in), policyCommand(in), certificates.Command(in.stdout), htpasswd.Command(in.stdin, in.stdout, in.stderr), configCommand(in), program.VersionCommand(in.stdout), manual.Command())
	clients := setup.Command(setup.Options{Stdout: in.stdout, Stderr: in.stderr, Load: in.load})
	clients.AddCommand(bucket.Command(bucket.Options{Stdout: in.stdout, Load: in.load, AWS: in.aws}))
	root.AddCommand(clients)
	root.AddCommand(backup.Commands(backup.Options{Stdin: in.stdin, Stdout: in.stdout, Stderr: in.stderr, Directories: in.directories})...)
	root.AddCommand(bundle.Command(bundle.Options{Stdout: in.stdout, Stderr: in.stderr, Environ: in.environ, Load: in.load, Doctor: examined.Report, Running: operators.Browse}))
	root.AddCommand(ctl.Commands(operators)...)
	return root
}
