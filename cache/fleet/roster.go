package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

const (
	// maxNeighbours bounds the members that are asked whether they have fetched a blob long ago.
	maxNeighbours = 16
	// maxAsked bounds the members that are asked what they hold after the holder has failed.
	maxAsked = 64
)

// roster knows which members are alive.
type roster struct {
	me        Member // but for its zone and its upstreams
	here      atomic.Pointer[string]
	upstreams func() Upstreams
	live      atomic.Pointer[[]Member]
}

func newRoster(me Member, upstreams func() Upstreams) *roster {
	r := &roster{me: me, upstreams: upstreams}
	r.SetZone(me.Zone)
	r.live.Store(&[]Member{me})
	return r
}

// Live returns the members that were alive when this one last renewed its leases, which happens
// every RenewEvery, in the order of their IDs. This member is always among them. Members whose
// protocol is too far from this one's are, too. While the store of leases does not answer, Live
// returns the members that it last named; before its first answer, this one alone. Live never
// waits. The caller must not change the result.
func (r *roster) Live() []Member { return *r.live.Load() }

// zoneOf returns the zone of another member as far as it is known, or else this one's.
func (r *roster) zoneOf(id string) string {
	for _, m := range r.Live() {
		if m.ID == id {
			return m.Zone
		}
	}
	return r.zone()
}

// zone returns the zone of this member.
func (r *roster) zone() string { return *r.here.Load() }

// SetZone sets the zone of this member. Others see it when this one renews its leases.
func (r *roster) SetZone(zone string) { r.here.Store(&zone) }

// self returns this member as others see it now.
func (r *roster) self() Member {
	m := r.me
	m.Zone = r.zone()
	if r.upstreams != nil {
		m.Upstreams = r.upstreams()
	}
	return m
}

// update takes over which members are alive, as the store of leases says it.
func (r *roster) update(all []Member) {
	at := 0
	for at < len(all) && all[at].ID < r.me.ID {
		at++
	}
	live := make([]Member, 0, len(all)+1)
	live = append(append(live, all[:at]...), r.self())
	if at < len(all) && all[at].ID == r.me.ID {
		at++
	}
	live = append(live, all[at:]...)
	r.live.Store(&live)
}

// neighbours returns some of the other members that live in this one's zone.
func (r *roster) neighbours() (all []Member) {
	for _, m := range r.Live() {
		if m.ID != r.me.ID && m.Zone == r.zone() {
			all = append(all, m)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(len(all), maxNeighbours)]
}

// everybody returns the other members that live, and those at other addresses, but for the one that
// has failed.
func (r *roster) everybody(addresses []string, failed string) (all []Member) {
	seen := map[string]bool{failed: true, r.me.Address: true, "": true}
	add := func(m Member) {
		if !seen[m.Address] && len(all) < maxAsked {
			seen[m.Address] = true
			all = append(all, m)
		}
	}
	for _, a := range addresses { // they have some of it
		zone := ""
		if i := slices.IndexFunc(r.Live(), func(m Member) bool { return m.Address == a }); i >= 0 {
			zone = r.Live()[i].Zone
		}
		add(Member{Address: a, Zone: zone})
	}
	for _, m := range r.Live() {
		add(m)
	}
	return all
}

// Rendezvous returns the member that has the highest weight for a key, so that all who know the
// same members choose the same one, and only the keys of a member move when it leaves. The weight
// is made of the key and the ID alone, and is the same in all versions. Without members, the result
// is zero.
func Rendezvous(key string, members []Member) (first Member) {
	var most uint64
	for _, m := range members {
		w := weight(key, m.ID)
		if first.ID == "" || w > most || w == most && m.ID < first.ID {
			first, most = m, w
		}
	}
	return first
}

// weight is the beginning of the SHA-256 of the ID, a zero byte and the key.
func weight(key, id string) uint64 {
	h := sha256.New()
	_, _ = io.WriteString(h, id+"\x00"+key)
	return binary.BigEndian.Uint64(h.Sum(nil))
}
