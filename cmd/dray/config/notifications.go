package config

import "dray/upstream/auth"

// Notification is a service that dray tells about pushes, verdicts of checks, and deletions. dray
// sends one JSON document by POST for each, in the form of the notifications of the distribution
// registry. docs/operating.md describes them.
type Notification struct {
	// The name in metrics and logs. Default: the host of `url`.
	Name string `yaml:"name,omitempty"`
	// The URL of the service. `dray check` shows only its host.
	URL SecretURL `yaml:"url"`
	// Headers that dray adds to each request. `dray check` shows their values redacted.
	Headers map[string]auth.Secret `yaml:"headers,omitempty"`
	// A file with the key that signs requests (HMAC-SHA-256), just as for `webhooks`; dray ignores
	// white space around it, and reads the file again when it changes.
	SecretFile string `yaml:"secret_file,omitempty"`
	// The key from the file. `dray check` shows it redacted; you cannot set it here.
	Secret auth.Secret `yaml:"secret,omitempty"`
	// The time for one request. Default: `5s`.
	Timeout Duration `yaml:"timeout,omitempty"`
	// The most events that wait while dray cannot reach the service; dray drops and counts further
	// ones. Default: `1000`.
	Backlog int `yaml:"backlog,omitempty"`
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
