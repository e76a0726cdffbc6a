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
		Short: "Print the reference, an example or a schema of the configuration",
		Args:  usage.NoArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "reference",
		Short: "Print the reference of all keys and variables as Markdown",
		Args:  usage.NoArguments,
		RunE:  func(*cobra.Command, []string) error { return in.page(config.Reference) },
	}, &cobra.Command{
		Use:   "example",
		Short: "Print an example configuration with all defaults and their meaning",
		Args:  usage.NoArguments,
		RunE:  func(*cobra.Command, []string) error { return in.page(config.Example) },
	}, &cobra.Command{
		Use:   "schema",
		Short: "Print a JSON Schema of the configuration file, for editors",
		Args:  usage.NoArguments,
		RunE:  func(*cobra.Command, []string) error { return in.page(config.Schema) },
	})
	return cmd
}

func (in *invocation) page(text string) error {
	_, err := io.WriteString(in.stdout, text)
	return err
}
