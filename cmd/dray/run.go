package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/certificates"
	"dray/cmd/dray/config"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/setup"
	"dray/cmd/dray/usage"
)

// run runs the program and returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	in := &invocation{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := rootCommand(in)
	root.SetArgs(append([]string{}, args...)) // if args were nil, cobra would read os.Args
	cmd, err := root.ExecuteContextC(ctx)
	_, listed := errors.AsType[config.Problems](err)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errRejected):
		return exitRejected
	case errors.Is(err, usage.Err):
		see := "see " + cmd.CommandPath() + " --help"
		fmt.Fprintln(stderr, "dray:", strings.ReplaceAll(err.Error(), usage.Err.Error(), see))
		return exitUsage
	case errors.Is(err, ctl.ErrUnreachable):
		fmt.Fprintln(stderr, "dray:", err)
		return exitUnreachable
	case listed: // each line begins with the place of the problem
		fmt.Fprintln(stderr, err)
		return exitFailed
	default:
		fmt.Fprintln(stderr, "dray:", err)
		return exitFailed
	}
}

const short = "A caching mirror for container registries that forwards pushes to Amazon ECR"

func rootCommand(in *invocation) *cobra.Command {
	root := &cobra.Command{
		Use:           "dray",
		Short:         short,
		Long:          short + ".\n\nExit codes:\n" + exitCodes(),
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(root *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if near := root.SuggestionsFor(args[0]); len(near) > 0 {
				return fmt.Errorf("unknown command %q, did you mean %s?; %w", args[0], strings.Join(near, " or "), usage.Err)
			}
			return fmt.Errorf("unknown command %q; %w", args[0], usage.Err)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(in.stdin)
	root.SetOut(in.stdout)
	root.SetErr(in.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, usage.Err) })
	root.PersistentFlags().StringVarP(&in.configPath, "config", "c", "", "configuration file in YAML (default: the value of DRAY_CONFIG)")
	root.AddCommand(serveCommand(in), checkCommand(in), checkImageCommand(in), policyCommand(in), certificates.Command(in.stdout), configCommand(in), versionCommand(in))
	root.AddCommand(setup.Command(setup.Options{Stdout: in.stdout, Stderr: in.stderr, Load: in.load}))
	root.AddCommand(ctl.Commands(ctl.Options{Stdout: in.stdout, Stderr: in.stderr, Load: in.load})...)
	return root
}
