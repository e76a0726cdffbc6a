package main

import (
	"fmt"
	"net/http"

	"dray/cmd/dray/config"
	"dray/cmd/dray/services"
	"dray/cmd/dray/watched"
	"dray/mirror/notify"
)

// endpointOf returns the service that an entry of `notifications` in the configuration describes.
// The parameter files reads the secrets of the service.
func endpointOf(n config.Notification, files watched.Source) (notify.Endpoint, error) {
	service, err := services.Of(n.Service, files)
	return notify.Endpoint{Service: service, Name: n.Name, Timeout: n.Timeout.Std(), Backlog: n.Backlog}, err
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
	g.transports = append(g.transports, transport)
	g.register(n.Collectors())
	g.background["notifications"] = n.Run
	return n.Emit, nil
}
