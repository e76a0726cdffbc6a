package usage

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// Err is wrapped by every usage error. When the program prints such an error, it replaces the text
// of Err by a hint with the name of the subcommand, such as "see dray ls --help".
var Err = errors.New("see dray --help")

// NoArguments returns an error that wraps [Err] if there are arguments.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, got %q; %w", cmd.CommandPath(), args[0], Err)
	}
	return nil
}

// Between returns a check that there are minCount to maxCount arguments. Its errors wrap [Err].
func Between(minCount, maxCount int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.RangeArgs(minCount, maxCount)(cmd, args); err != nil {
			return fmt.Errorf("%s: %w; %w", cmd.CommandPath(), err, Err)
		}
		return nil
	}
}
