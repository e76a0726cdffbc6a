package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"dray/cmd/dray/config"
	"dray/cmd/dray/services"
	"dray/cmd/dray/watched"
	"dray/mirror/live"
	"dray/mirror/notify"
	"dray/mirror/past"
)

// endpointOf returns the service that an entry of `notifications` in the configuration describes.
// source reads the secrets of the service from files.
func endpointOf(n config.Notification, source watched.Source) (notify.Endpoint, error) {
	service, err := services.Of(n.Service, source)
	return notify.Endpoint{Service: service, Name: n.Name, Timeout: n.Timeout.Std(), Backlog: n.Backlog, Pulls: n.Pulls}, err
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

// pullEvents returns the function to call for each pull that has ended. The function records the
// pull in the parameter history. If one of the services receives events about pulls, the function
// also emits an event.
func pullEvents(services []config.Notification, emit func(notify.Event), history *past.Past) func(live.Ended) {
	told := slices.ContainsFunc(services, func(n config.Notification) bool { return n.Pulls })
	return func(p live.Ended) {
		history.Pulled(p.LivePull)
		if !told {
			return
		}
		e := notify.Event{
			Action: notify.Pull, Upstream: p.Upstream, Actor: notify.Actor{Name: p.User},
			Target:  notify.Target{MediaType: p.MediaType, Digest: digest.Digest(p.Digest), Size: p.ManifestSize, Repository: p.Repository},
			Request: notify.Request{Addr: p.Client, Method: http.MethodGet, UserAgent: p.Agent},
			Pull:    &notify.Pulled{Began: p.Began, Ended: p.Last, Asked: p.Layers.Asked, Layers: p.Layers.Of, Bytes: p.Bytes, Sources: p.Sources, Failures: p.Failures},
		}
		if !strings.Contains(p.Reference, ":") {
			e.Target.Tag = p.Reference
		}
		emit(e)
	}
}
