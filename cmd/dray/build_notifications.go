package main

import (
	"fmt"
	"net/http"

	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
	"dray/mirror/notify"
)

// endpointOf returns the service that n, an entry of `notifications` in the configuration,
// describes. keys gives the key with which dray signs its requests to the service.
func endpointOf(n config.Notification, keys watched.Source) (notify.Endpoint, error) {
	key, err := keys(n.SecretFile, n.Secret)
	if err != nil {
		return notify.Endpoint{}, fmt.Errorf("secret_file: %w", err)
	}
	headers := map[string]string{}
	for name, value := range n.Headers {
		headers[name] = value.Reveal()
	}
	return notify.Endpoint{
		Name: n.Name, URL: n.URL.Reveal(), Headers: headers, Timeout: n.Timeout.Std(), Backlog: n.Backlog,
		Secret: func() []byte { return []byte(key().Reveal()) },
	}, nil
}

// buildNotifier makes the function that sends an event to all services that the configuration lists
// under `notifications`. It returns nil if there is no such service.
func (g *graph) buildNotifier() (func(notify.Event), error) {
	if len(g.cfg.Notifications) == 0 {
		return nil, nil
	}
	endpoints := make([]notify.Endpoint, len(g.cfg.Notifications))
	for i, n := range g.cfg.Notifications {
		var err error
		if endpoints[i], err = endpointOf(n, watched.Watching(g.log)); err != nil {
			return nil, fmt.Errorf("notifications[%d]: %w", i, err)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	n, err := notify.New(endpoints, transport, g.log)
	if err != nil {
		return nil, err
	}
	g.notifyTransport = transport
	g.register(n.Collectors())
	g.background["notifications"] = n.Run
	return n.Emit, nil
}
