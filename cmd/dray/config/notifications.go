package config

import "dray/upstream/auth"

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
	Secret auth.Secret `yaml:"secret,omitempty"`
	// Time for one request. Default: `5s`.
	Timeout Duration `yaml:"timeout,omitempty"`
	// How many events wait while the service cannot be reached; further ones are dropped and counted. Default: `1000`.
	Backlog int `yaml:"backlog,omitempty"`
}

func (c Config) validateNotifications(k *Report) {
	names := map[string]bool{}
	for i, n := range c.Notifications {
		if n.Name != "" && names[n.Name] {
			k.Add(At("notifications", i)+".name", "name %q is already that of another one", n.Name)
		}
		names[n.Name] = true
	}
}
