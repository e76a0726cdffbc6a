package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

// healthCommand returns the subcommand that dray's containers run as their health check: they have
// no shell and no HTTP client. A degraded dray counts as healthy, because a restart of its
// container would not help against a registry that is down.
func healthCommand(in Options) *cobra.Command {
	load, invalid := in.Load, error(nil)
	in.Load = func() (cfg config.Config, _ error) {
		if cfg, invalid = load(); invalid != nil {
			cfg = config.Default(nil)
		}
		if cfg.Admin.Address == config.AdminOff && cfg.Admin.HealthAddress != "" {
			cfg.Admin.Address = cfg.Admin.HealthAddress
		}
		return cfg, nil
	}
	timeout := 5 * time.Second
	cmd := in.operate(&cobra.Command{
		Use:   "health",
		Short: "Ask a running dray whether it can serve clients",
		Long: `health reads /readyz of the admin listener, and prints the state and every check
that fails. The exit code is 0 if dray is ready or degraded. dray is degraded if
it works without a part that fails, such as one of several registries. The exit
code is 1 if dray is not ready or does not answer in time, and 3 if nothing
listens on the address.

If the configuration is invalid, health uses the default address, because dray
may run with an earlier configuration.`,
		Args: usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		err := o.health(ctx)
		if err != nil && invalid != nil {
			return fmt.Errorf("%w\nthe configuration, which gives another address if it sets admin.address, is invalid: %w", err, invalid)
		}
		return err
	})
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "longest time to wait for the answer")
	return cmd
}

// Readiness returns the health of a running dray. address is the address of its admin listener.
func Readiness(ctx context.Context, address string) (api.Readiness, error) {
	base, err := adminURL(address)
	if err != nil {
		return api.Readiness{}, err
	}
	o := &operator{base: base, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	r, _, err := o.readiness(ctx)
	return r, err
}

// readiness returns the answer of /readyz and its HTTP status. /readyz needs no credentials.
func (o *operator) readiness(ctx context.Context) (r api.Readiness, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.base+"/readyz", nil)
	if err != nil {
		return r, 0, err
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return r, 0, o.requestError(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&r); err != nil || r.Status == "" {
		return r, 0, fmt.Errorf("%s answered %s, which is no answer of dray; is another program listening there?", o.base, resp.Status)
	}
	return r, resp.StatusCode, nil
}

// health prints the answer of /readyz. It returns an error if dray is not ready.
func (o *operator) health(ctx context.Context) error {
	r, status, err := o.readiness(ctx)
	if err != nil {
		return err
	}
	if err := o.print(r, func(w io.Writer) { healthTable(w, r) }); err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s is %s", o.base, r.Status)
	}
	return nil
}

func healthTable(w io.Writer, r api.Readiness) {
	fmt.Fprintln(w, r.Status)
	for _, c := range r.Checks {
		if c.Failed() {
			fmt.Fprintf(w, "%s\t%s\n", c.Name, c.Error)
		}
	}
}
