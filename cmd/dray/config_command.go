package main

import (
	"io"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/usage"
)

func configCommand(in *invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Explain the configuration",
		Args:  usage.NoArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "reference",
		Short: "Print the reference of all keys and variables, as Markdown",
		Args:  usage.NoArguments,
		RunE:  func(*cobra.Command, []string) error { return in.page(config.Reference) },
	}, &cobra.Command{
		Use:   "example",
		Short: "Print a file that says what dray does by default, with the meaning of each key",
		Args:  usage.NoArguments,
		RunE:  func(*cobra.Command, []string) error { return in.page(config.Example) },
	})
	return cmd
}

func (in *invocation) page(text string) error {
	_, err := io.WriteString(in.stdout, text)
	return err
}
