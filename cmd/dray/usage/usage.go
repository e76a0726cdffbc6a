package usage

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// Err is in every error about how a subcommand was called. The program replaces its text by the
// name of the subcommand that was meant.
var Err = errors.New("see dray --help")

// NoArguments refuses arguments.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, got %q; %w", cmd.CommandPath(), args[0], Err)
	}
	return nil
}

// Between refuses fewer and more arguments.
func Between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.RangeArgs(least, most)(cmd, args); err != nil {
			return fmt.Errorf("%s: %w; %w", cmd.CommandPath(), err, Err)
		}
		return nil
	}
}
