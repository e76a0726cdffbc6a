package fleet_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
)

// TestFiftyMembers counts what fifty members that fetch nothing ask of the store of leases.
func TestFiftyMembers(t *testing.T) {
	const members, length = 50, time.Minute
	d, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := cache.New(cache.Options{Disk: d})
	keys, err := fleet.ParseKeys([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		store := &fleettest.Memory{}
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		var running sync.WaitGroup
		var all []*fleet.Fleet
		for i := range members {
			f := fleet.New(fleet.Options{
				Self:   fleet.Member{ID: fmt.Sprintf("member %02d", i), Address: fmt.Sprintf("127.0.0.1:%d", i+1)},
				Leases: store, Cache: c, Keys: func() *fleet.Keys { return keys },
			})
			all = append(all, f)
			running.Go(func() { _ = f.Run(ctx) })
		}
		time.Sleep(length - fleet.RenewEvery/2)
		for _, f := range all {
			if live := len(f.Live()); live != members {
				t.Errorf("a member sees %d members", live)
			}
		}
		calls := store.Calls()
		cancel()
		running.Wait()
		rounds := int(length / fleet.RenewEvery) // the first at once
		perSecond := float64(calls) / length.Seconds()
		t.Logf("%d calls in %v, %.1f a second", calls, length, perSecond)
		if calls > 2*members*rounds {
			t.Errorf("%d calls, more than two for each member and %v", calls, fleet.RenewEvery)
		}
	})
}
