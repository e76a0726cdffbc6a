package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/routes"
	"dray/cmd/dray/usage"
)

func checkCommand(in *invocation) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and print the effective settings",
		Long: `check reads the configuration as serve does, opens the files that it names, and
prints the result with all defaults. Secrets are redacted.

check also prints notices to standard error, about settings that are valid but
seldom intended. If the configuration is invalid, check prints all problems to
standard error and exits with code 1.`,
		Args: usage.NoArguments,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			for _, notice := range in.notices(cfg) {
				fmt.Fprintln(in.stderr, "notice:", notice)
			}
			return cfg.Print(in.stdout)
		},
	}
}

// notices returns the notices about the environment and the configuration.
func (in *invocation) notices(cfg config.Config) []string {
	return slices.Concat(config.UnknownVariables(in.environ, cfg), cfg.Notices(), routes.FallbackNotices(cfg), cfg.ContainerNotices(in.environ), cfg.DiskNotices())
}
