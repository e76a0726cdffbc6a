package main

import (
	"net/http"

	"dray/cmd/dray/config"
	"dray/mirror/notify"
)

func endpointOf(n config.Notification) notify.Endpoint {
	headers := map[string]string{}
	for name, value := range n.Headers {
		headers[name] = value.Reveal()
	}
	return notify.Endpoint{Name: n.Name, URL: n.URL.Reveal(), Headers: headers, Secret: []byte(n.Secret.Reveal()), Timeout: n.Timeout.Std(), Backlog: n.Backlog}
}

// buildNotifier makes the function that sends an event to the services under notifications. It
// returns nil if there are none.
func (g *graph) buildNotifier() (func(notify.Event), error) {
	if len(g.cfg.Notifications) == 0 {
		return nil, nil
	}
	endpoints := make([]notify.Endpoint, len(g.cfg.Notifications))
	for i, n := range g.cfg.Notifications {
		endpoints[i] = endpointOf(n)
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
