package config

import (
	"net"
	"time"
)

// Fleet makes this dray a member of a fleet: several drays on one Redis that fetch each layer from
// its registry once. See [fleet.md](fleet.md). Without this section, or without `metadata.url`,
// dray is in no fleet.
type Fleet struct {
	// The address on which dray serves the other members, and nobody else, as `host:port`. Connections
	// to it always use TLS 1.3. Default: none, which means no fleet.
	Address string `yaml:"address,omitempty"`
	// The address by which the other members reach this one, as `host:port`. Default: `address`, if
	// that names a host.
	Advertise string `yaml:"advertise,omitempty"`
	// The file with the secret of the fleet, the same for all members: at least 32 random characters,
	// such as `openssl rand -base64 32` prints. dray derives keys from it and never sends it. To
	// replace the secret, add the new one as a second line in the file of each member, then swap the
	// lines in each file, then remove the old secret from each file. dray reads the file again when it
	// changes.
	SecretFile string `yaml:"secret_file,omitempty"`
	// The name of the zone in which this member runs. Members read from members of their own zone
	// where they can, and count the bytes that cross zones. If some members have a zone, all need one.
	// Default: in a container of Amazon ECS, the Availability Zone of the task; on an instance of
	// Amazon EC2, the ID of its Availability Zone, such as `use1-az1`. dray looks up this default
	// after it has started, up to three times within two minutes. If `AWS_EC2_METADATA_DISABLED` is
	// `true`, it does not ask the instance.
	Zone string `yaml:"zone,omitempty"`
}

// On reports whether this dray is a member of a fleet. A fleet needs a Redis.
func (f Fleet) On(m Metadata) bool { return f.Address != "" && m.URL != "" }

func (f *Fleet) applyDefaults() {
	if host, _, err := net.SplitHostPort(f.Address); f.Advertise == "" && err == nil && NamesHost(host) {
		f.Advertise = f.Address
	}
}

func (c Config) validateFleet(k *Report) {
	f := c.Fleet
	if f == (Fleet{}) {
		return
	}
	if f.Address == "" {
		k.Add("fleet.address", "is missing; set the address on which this dray serves the other members, such as :5443")
		return
	}
	c.validateOwnAddress(k, "fleet.address", f.Address)
	switch host, _, err := net.SplitHostPort(f.Advertise); {
	case f.Advertise == "":
		k.Add("fleet.advertise", "is missing, and address names no host; set the host:port by which the other members reach this one")
	case err != nil || !NamesHost(host):
		k.Add("fleet.advertise", "%q is not a host:port that others can reach", f.Advertise)
	}
	if f.SecretFile == "" {
		k.Add("fleet.secret_file", "is missing; set a file with at least 32 random characters, the same for all members")
	}
	if stall := c.Cache.StallTimeout; stall < shortestStall {
		k.Add("fleet", "needs a cache.stall_timeout of at least %v, not %v: members need some seconds to find out that another one is dead, and dray must not give the layer up before", shortestStall, stall)
	}
}

// shortestStall is the least stall timeout of the cache in a fleet. It is more than 3 s, the
// longest time for which a member waits for another member that does not answer.
const shortestStall = Duration(5 * time.Second)

func (c Config) fleetNotices(add func(format string, args ...any)) {
	if c.Fleet.Address != "" && c.Metadata.URL == "" {
		add("fleet: has no effect without metadata.url. The members of a fleet find each other through a Redis.")
	}
	for _, u := range c.Upstreams {
		if u.Acknowledge == AcknowledgeLocal && c.Fleet.On(c.Metadata) {
			add("upstream %s: acknowledge: local in a fleet means that one member alone has a push until it is forwarded. If that member's disk is lost, the push is, too.", u.Name)
		}
	}
}
