package ctl

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

// reloadCommand returns the subcommand that reloads the configuration. The subcommand sends its
// request even if it finds the configuration invalid: the running dray reads the configuration
// itself, and reports a failure both in its answer and by a metric.
func reloadCommand(in Options) *cobra.Command {
	load := in.Load
	in.Load = func() (config.Config, error) {
		cfg, _ := load() // the running dray reports the problems
		return cfg, nil
	}
	return in.operate(&cobra.Command{
		Use:   "reload",
		Short: "Make a running dray read its configuration again",
		Long: `reload makes a running dray read its configuration file again, and prints the
keys that have changed. Most changes take effect at once: dray config reference
says so for each key. reload also prints the keys whose new values take effect
only when you restart dray. SIGHUP does the same, and dray logs the result.

Requests under way end with the configuration with which they began. If the file
is not valid, reload prints all problems, dray keeps the former configuration, and
the exit code is 1.

dray reads the file that it was started with, and keeps its environment. If reload
cannot find the address of the admin listener because the file is not valid, set
--admin.`,
		Args: usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		return change(ctx, o, "reload", api.ReloadRequest{}, func(w io.Writer, r api.Reloaded) { reloadTable(w, o.stderr, r) })
	})
}

func reloadTable(w, notices io.Writer, r api.Reloaded) {
	if len(r.Changed)+len(r.Pending) == 0 {
		fmt.Fprintln(w, "nothing has changed")
	}
	for _, list := range []struct {
		title string
		keys  []string
	}{{"changed:", r.Changed}, {"takes effect at the next start:", r.Pending}} {
		if len(list.keys) > 0 {
			fmt.Fprintln(w, list.title)
		}
		for _, key := range list.keys {
			fmt.Fprintln(w, "  "+key)
		}
	}
	for _, n := range r.Notices {
		fmt.Fprintln(notices, "notice:", n)
	}
}
