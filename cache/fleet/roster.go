package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// Live returns the members that were alive when this one last renewed its leases, which happens
// every RenewEvery, in the order of their IDs. This member is always among them. Members whose
// protocol is too far from this one's are, too. While the store of leases does not answer, Live
// returns the members that it last named; before its first answer, this one alone. Live never
// waits. The caller must not change the result.
func (f *Fleet) Live() []Member { return *f.live.Load() }

// look asks the store which members are alive. If it fails, those that it last named remain.
func (f *Fleet) look(ctx context.Context) error {
	all, err := f.o.Leases.Members(ctx)
	if err != nil {
		return err
	}
	at := 0
	for at < len(all) && all[at].ID < f.o.Self.ID {
		at++
	}
	live := make([]Member, 0, len(all)+1)
	live = append(append(live, all[:at]...), f.self())
	if at < len(all) && all[at].ID == f.o.Self.ID {
		at++
	}
	live = append(live, all[at:]...)
	f.live.Store(&live)
	return nil
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
