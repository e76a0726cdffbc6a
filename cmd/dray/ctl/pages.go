package ctl

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
)

// maxPage bounds the bytes of a page.
const maxPage = 64 << 20

// Pages returns a page of the admin listener of a running dray, such as /metrics. If no dray can be
// reached, the error wraps [ErrUnreachable].
type Pages func(ctx context.Context, path string) ([]byte, error)

// Browse gives cmd the flags by which subcommands find a running dray. cmd then calls the function
// action, which reads pages through [Pages]. If the configuration is invalid, the pages come from
// the default address: dray may be running with an earlier configuration.
func (in Options) Browse(cmd *cobra.Command, action func(context.Context, Pages) error) *cobra.Command {
	load := in.Load
	in.Load = func() (config.Config, error) {
		cfg, err := load()
		if err != nil {
			cfg = config.Default(nil)
		}
		if cfg.Admin.Address == config.AdminOff {
			// With AdminOff, Options.find would return an error, and cmd would not call action. With the
			// default address, where no dray listens, action gets errors instead of pages.
			cfg.Admin.Address = config.Default(nil).Admin.Address
			if cfg.Admin.HealthAddress != "" {
				cfg.Admin.Address = cfg.Admin.HealthAddress
			}
		}
		return cfg, nil
	}
	in.connect(cmd, func(ctx context.Context, o *operator, _ []string) error { return action(ctx, o.page) })
	return cmd
}

func (o *operator) page(ctx context.Context, path string) ([]byte, error) {
	resp, err := o.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, o.requestError(err)
	}
	if len(body) > maxPage {
		return nil, fmt.Errorf("%s has more than %d bytes, so it cannot be read", path, maxPage)
	}
	return body, nil
}
