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
	// maxNeighbours bounds the members of this zone that this member asks for a blob before it asks
	// the registry.
	maxNeighbours = 16
	// maxAsked bounds the members that a new holder asks for parts of a blob after the former holder
	// has failed.
	maxAsked = 64
)

// roster is the list of the members that are alive.
type roster struct {
	me        Member // its Zone and Upstreams are not used; see self
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

// Live returns the members that were alive when this member last renewed its leases, sorted by ID.
// Members renew their leases every RenewEvery. The result always includes this member. It also
// includes members that cannot work with this member, because their protocols are too far apart.
// While the store of leases does not answer, Live returns the members of its last answer. Before
// the first answer, it returns only this member. Live never blocks. The caller must not change the
// result.
func (r *roster) Live() []Member { return *r.live.Load() }

// zoneOf returns the zone of a member. If the member is not known, zoneOf returns the zone of this
// member.
func (r *roster) zoneOf(id string) string {
	for _, m := range r.Live() {
		if m.ID == id {
			return m.Zone
		}
	}
	return r.zone()
}

func (r *roster) zone() string { return *r.here.Load() }

// SetZone sets the zone of this member. Other members see the zone after this member has renewed
// its leases.
func (r *roster) SetZone(zone string) { r.here.Store(&zone) }

// self returns this member with its present zone and upstreams.
func (r *roster) self() Member {
	m := r.me
	m.Zone = r.zone()
	if r.upstreams != nil {
		m.Upstreams = r.upstreams()
	}
	return m
}

// update replaces the list by the members that are alive according to the store of leases.
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

// neighbours returns up to maxNeighbours other members of this member's zone, in random order.
func (r *roster) neighbours() (all []Member) {
	for _, m := range r.Live() {
		if m.ID != r.me.ID && m.Zone == r.zone() {
			all = append(all, m)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(len(all), maxNeighbours)]
}

// everybody returns the members at the given addresses and then the other members that are alive,
// up to maxAsked. It leaves out this member, and the member at the address failedAddr.
func (r *roster) everybody(addresses []string, failedAddr string) (all []Member) {
	seen := map[string]bool{failedAddr: true, r.me.Address: true, "": true}
	add := func(m Member) {
		if !seen[m.Address] && len(all) < maxAsked {
			seen[m.Address] = true
			all = append(all, m)
		}
	}
	live := r.Live()
	for _, a := range addresses { // these members have parts of the blob
		zone := ""
		if i := slices.IndexFunc(live, func(m Member) bool { return m.Address == a }); i >= 0 {
			zone = live[i].Zone
		}
		add(Member{Address: a, Zone: zone})
	}
	for _, m := range live {
		add(m)
	}
	return all
}

// Rendezvous returns the member that has the highest weight for a key. All callers with the same
// members get the same result. When a member leaves, only the keys of that member move. The weight
// depends only on the key and the ID, and is the same in all versions of dray. Without members, the
// result is the zero Member.
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

// weight hashes the ID, a zero byte and the key by SHA-256, and returns the first 8 bytes of the
// hash.
func weight(key, id string) uint64 {
	h := sha256.New()
	_, _ = io.WriteString(h, id+"\x00"+key)
	return binary.BigEndian.Uint64(h.Sum(nil))
}
