package fleettest

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestMemory(t *testing.T) {
	Suite(t, func(*testing.T) Store {
		m := &Memory{}
		return Store{Leases: m, Flush: m.Flush, Expire: func(d digest.Digest) {
			m.mu.Lock()
			defer m.mu.Unlock()
			l := m.leases[d]
			l.until = time.Now()
			m.leases[d] = l
		}, TTL: func(d digest.Digest) int64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return time.Until(m.leases[d].until).Milliseconds()
		}}
	})
}

func TestMemoryClaims(t *testing.T) { Claims(t, &Memory{}) }

func TestMemoryShares(t *testing.T) {
	ShareSuite(t, func(*testing.T) ShareStore {
		m := &Memory{}
		return ShareStore{Shares: m, Expire: func(rate string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for id, s := range m.shares[rate] {
				s.until = time.Time{}
				m.shares[rate][id] = s
			}
		}}
	})
}
