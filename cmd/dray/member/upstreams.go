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

// upstreams has the identities of the upstreams that are registries. Members compare these
// identities.
type upstreams struct {
	identities map[string]string   // by the name of the upstream
	names      map[string][]string // by the identity of the upstreams
	all        string
}

func upstreamsOf(c config.Config) *upstreams {
	all := &upstreams{identities: map[string]string{}, names: map[string][]string{}}
	for _, u := range c.Upstreams {
		if u.Kind == config.KindLocal {
			continue // not compared, because each dray has hosted content of its own
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

// identityOf returns a hash of the registry's kind, URL and prefix, and of the user or role that
// the configuration names for it. The hash contains no secret. It does not depend on the password,
// because members may replace the password one after the other. It does not depend on the fleet's
// secret either. If it did, members with the old secret and members with the new secret would use
// different keys for the facts about a tag. If a member then forgot a tag ([meta.Tags]), members
// with the other secret would still see their facts about it.
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

// hash returns a hash of a list of texts, as 26 letters and digits.
func hash(texts ...string) string {
	text, _ := json.Marshal(texts) // never fails for texts
	sum := sha256.Sum256(append([]byte("dray upstream 1\n"), text...))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// Use makes the member compare the upstreams of c with those of other members from now on, and
// share the ceilings of their limiters. The map limiters has the names of the upstreams as its
// keys. m may be nil.
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

// shown returns the description of the upstreams for other members.
func (m *Member) shown() fleet.Upstreams {
	var all []fleet.Upstream
	identities := m.upstreams.Load().identities
	for _, name := range slices.Sorted(maps.Keys(identities)) {
		all = append(all, fleet.Upstream{Name: name, Identity: identities[name], Quota: m.ceilings.Quota(name)})
	}
	return fleet.NewUpstreams(all)
}

// Facts returns a store through which the members of the fleet share facts in the store s. Without
// a fleet, it returns s itself. m may be nil.
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
