package member

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"dray/cache/fleet"
	"dray/cache/meta"
	"dray/cmd/dray/config"
	"dray/mirror/ceilings"
	"dray/upstream"
)

// upstreams are the upstreams of a configuration that are registries, as members compare them.
type upstreams struct {
	identities map[string]string   // by name
	names      map[string][]string // by identity
	all        string
}

func upstreamsOf(c config.Config) *upstreams {
	all := &upstreams{identities: map[string]string{}, names: map[string][]string{}}
	for _, u := range c.Upstreams {
		if u.Kind == config.KindLocal {
			continue // each dray has content of its own
		}
		id := identityOf(u)
		all.identities[u.Name] = id
		all.names[id] = append(all.names[id], u.Name)
	}
	var text []string
	for _, name := range slices.Sorted(maps.Keys(all.identities)) {
		text = append(text, name, all.identities[name])
	}
	all.all = hash(text...)
	return all
}

// identityOf returns what a registry is to members: where it is, and with whose rights dray asks
// it. It does not depend on the password, which members may replace one after the other, and has
// nothing that is secret. It also does not depend on the fleet's secret, because members that
// replace that one after the other have to go on to hide each other's old tags.
func identityOf(u config.Upstream) string {
	whose := []string{"anonymous"}
	switch {
	case u.UsesAWS():
		whose = []string{"aws", u.RoleARN}
	case u.Credentials.Username != "":
		whose = []string{"user", u.Credentials.Username}
	}
	return hash(append([]string{string(u.Kind), strings.TrimSuffix(u.URL, "/"), strings.Trim(u.RepositoryPrefix, "/")}, whose...)...)
}

// hash returns 26 letters and digits that stand for a list of texts.
func hash(texts ...string) string {
	text, _ := json.Marshal(texts) // never fails for texts
	sum := sha256.Sum256(append([]byte("dray upstream 1\n"), text...))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// Use makes the member compare the upstreams of a configuration from now on, and share the ceilings
// of their limiters, which are given by name. m may be nil.
func (m *Member) Use(c config.Config, limiters map[string]*upstream.Limiter) {
	if m == nil {
		return
	}
	now := upstreamsOf(c)
	m.upstreams.Store(now)
	var shared []ceilings.Upstream
	for _, name := range slices.Sorted(maps.Keys(limiters)) {
		shared = append(shared, ceilings.Upstream{Name: name, Identity: now.identities[name], Limiter: limiters[name]})
	}
	m.ceilings.Use(shared)
}

// shown returns what other members see of the upstreams.
func (m *Member) shown() fleet.Upstreams {
	var all []fleet.Upstream
	identities := m.upstreams.Load().identities
	for _, name := range slices.Sorted(maps.Keys(identities)) {
		all = append(all, fleet.Upstream{Name: name, Identity: identities[name], Quota: m.ceilings.Quota(name)})
	}
	return fleet.NewUpstreams(all)
}

// Facts returns the facts of the fleet in a store, or without a fleet the store. m may be nil.
func (m *Member) Facts(s meta.Store) meta.Store {
	if m == nil {
		return s
	}
	m.facts = meta.NewShared(s, meta.SharedOptions{
		Identity: func(name string) string { return m.upstreams.Load().identities[name] },
		Names:    func(identity string) []string { return m.upstreams.Load().names[identity] },
		All:      func() string { return m.upstreams.Load().all },
		Sign:     func(message []byte) []byte { return m.keys().Sign(message) },
		Verify:   func(message, proof []byte) bool { return m.keys().Verify(message, proof) },
	})
	return m.facts
}
