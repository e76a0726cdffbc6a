package config

// Notification is a service to which dray reports pushes, verdicts of checks, deletions and, if you
// want, pulls. dray sends one JSON document by POST for each event, in the form of the
// notifications of the distribution registry. docs/operating.md describes these documents.
type Notification struct {
	// The name in metrics and logs. Default: the host in the URL of the service.
	Name    string `yaml:"name,omitempty"`
	Service `yaml:",inline"`
	// The largest number of events that wait while dray cannot reach the service; dray drops further
	// events and counts them. Default: `1000`.
	Backlog int `yaml:"backlog,omitempty"`
	// If `true`, dray also reports each pull of an image to the service, when the pull has ended. That
	// can be many events. Default: `false`.
	Pulls bool `yaml:"pulls,omitempty"`
}

func (c Config) validateNotifications(k *Report) {
	names := map[string]bool{}
	for i, n := range c.Notifications {
		if n.Name != "" && names[n.Name] {
			k.Add(At("notifications", i)+".name", "the name %q is already used", n.Name)
		}
		names[n.Name] = true
	}
}
