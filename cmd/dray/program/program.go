package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/usage"
)

// Exit codes. docs/operating.md has the same table.
const (
	OK          = 0
	Failed      = 1
	Usage       = 2
	Unreachable = 3
	Rejected    = 4
)

// ErrRejected reports that the command completed with a negative result.
var ErrRejected = errors.New("rejected")

// exitCodes explains the exit codes, in one line each.
func exitCodes() string {
	var b strings.Builder
	for code, meaning := range []string{
		OK:          "success",
		Failed:      "error; see standard error",
		Usage:       "usage error",
		Unreachable: "no running dray could be reached",
		Rejected:    "the image would be rejected, or a policy test or a check of doctor failed",
	} {
		fmt.Fprintf(&b, "  %d  %s\n", code, meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Root returns the command that prints the help. The caller adds subcommands to it. summary
// describes the program in a line.
func Root(summary string, stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "dray",
		Short:         summary,
		Long:          summary + ".\n\nExit codes:\n" + exitCodes(),
		Version:       Version(),
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
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, usage.Err) })
	return root
}

// Run runs a program and returns the exit code. It prints an error to stderr, except ErrRejected.
func Run(ctx context.Context, root *cobra.Command, args []string, stderr io.Writer) int {
	root.SetArgs(append([]string{}, args...)) // if args were nil, cobra would read os.Args
	cmd, err := root.ExecuteContextC(ctx)
	_, listed := errors.AsType[config.Problems](err)
	switch {
	case err == nil:
		return OK
	case errors.Is(err, ErrRejected):
		return Rejected
	case errors.Is(err, usage.Err):
		see := "see " + cmd.CommandPath() + " --help"
		fmt.Fprintln(stderr, "dray:", strings.ReplaceAll(err.Error(), usage.Err.Error(), see))
		return Usage
	case errors.Is(err, ctl.ErrUnreachable):
		fmt.Fprintln(stderr, "dray:", err)
		return Unreachable
	case listed: // without "dray:", because each line begins with the place of a problem
		fmt.Fprintln(stderr, err)
		return Failed
	default:
		fmt.Fprintln(stderr, "dray:", err)
		return Failed
	}
}
