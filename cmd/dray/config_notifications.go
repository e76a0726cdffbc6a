package main

import (
	"net/http"

	"dray/mirror/notify"
)

// Notification is a service that is told what was pushed, judged by checks, and deleted: one JSON document by POST for each, in the form of the notifications of the distribution
// registry. docs/operating.md describes them.
type Notification struct {
	// Name in metrics and logs. Default: the host of `url`.
	Name string `yaml:"name,omitempty"`
	// Where the service is.
	URL string `yaml:"url"`
	// Headers that are sent along.
	Headers map[string]string `yaml:"headers,omitempty"`
	// File with the key that requests are signed by (HMAC-SHA-256), as those of `webhooks`; white space around it does not count.
	SecretFile string `yaml:"secret_file,omitempty"`
	// The key as found in the file. It is shown by `dray check` as redacted, and cannot be set here.
	Secret Secret `yaml:"secret,omitempty"`
	// Time for one request. Default: `5s`.
	Timeout Duration `yaml:"timeout,omitempty"`
	// How many events wait while the service cannot be reached; further ones are dropped and counted. Default: `1000`.
	Backlog int `yaml:"backlog,omitempty"`
}

func (n Notification) endpoint() notify.Endpoint {
	return notify.Endpoint{Name: n.Name, URL: n.URL, Headers: n.Headers, Secret: []byte(n.Secret.Reveal()), Timeout: n.Timeout.Std(), Backlog: n.Backlog}
}

func (c Config) validateNotifications(k *check) {
	names := map[string]bool{}
	for i, n := range c.Notifications {
		if _, err := notify.New([]notify.Endpoint{n.endpoint()}, nil, nil); err != nil {
			k.add(at("notifications", i), "%v", err)
		}
		if n.Name != "" && names[n.Name] {
			k.add(at("notifications", i)+".name", "name %q is already that of another one", n.Name)
		}
		names[n.Name] = true
	}
}

// buildNotifier makes what tells the services; nil where there are none.
func (g *graph) buildNotifier() (func(notify.Event), error) {
	if len(g.cfg.Notifications) == 0 {
		return nil, nil
	}
	endpoints := make([]notify.Endpoint, len(g.cfg.Notifications))
	for i, n := range g.cfg.Notifications {
		endpoints[i] = n.endpoint()
	}
	wire := http.DefaultTransport.(*http.Transport).Clone()
	n, err := notify.New(endpoints, wire, g.log)
	if err != nil {
		return nil, err
	}
	g.notifying = wire
	g.register(n.Collectors())
	g.background["notifications"] = n.Run
	return n.Tell, nil
}
