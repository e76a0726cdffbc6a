// Package window connects the page for operators, and parts of the API, with the parts of dray that
// they show.
package window

import (
	"context"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"dray/cache/disk"
	"dray/cmd/dray/config"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/program"
	"dray/cmd/dray/registries"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/admin/page"
	"dray/mirror/explain"
	"dray/mirror/history"
	"dray/mirror/inventory"
	"dray/mirror/live"
	"dray/mirror/push"
)

// Parts are the parts of dray that the page shows.
type Parts struct {
	Config     config.Config // the configuration in force
	Registries []*registries.Registry
	Checks     []admin.Check
	Stats      func() (api.Stats, error)
	Savings    func() (api.Savings, error)
	Live       *live.Table
	Disk       *disk.Dir
	Inventory  *inventory.Inventory
	Explain    func(context.Context, explain.Query) (api.Explanation, error)
	Queue      func() api.Queued
	Uploads    func() []*push.OpenUpload
	History    *history.History
	// Fleet is nil if dray is no member of a fleet.
	Fleet func(context.Context) (api.Fleet, error)
	Log   *slog.Logger
}

// New returns the handler of the page.
func New(p Parts) http.Handler {
	return page.New(page.Sources{
		Version:   program.Version(),
		Ready:     func(ctx context.Context) api.Readiness { return admin.Ready(ctx, p.Checks, 0) },
		Stats:     p.Stats,
		Live:      p.Live.Snapshot,
		Upstreams: p.upstreams,
		Disk:      (&cacheDisk{dir: p.Disk, inventory: p.Inventory}).describe,
		Images:    p.images,
		Explain: func(ctx context.Context, name string) (api.Explanation, error) {
			return p.Explain(ctx, explain.Query{Name: name})
		},
		Tell:    ctl.Explained,
		Queue:   p.Queue,
		Uploads: p.uploads,
		Savings: p.Savings,
		Fleet:   p.Fleet,
		History: p.History.Series,
		Configuration: func() (string, error) {
			var text strings.Builder
			err := p.Config.Print(&text)
			return text.String(), err
		},
		Log: p.Log,
	})
}

// upstreams returns the upstreams of the configuration. It sets State only for upstreams that are
// registries, not for those whose content dray itself stores.
func (p Parts) upstreams() []page.Upstream {
	all := make([]page.Upstream, len(p.Config.Upstreams))
	for i, u := range p.Config.Upstreams {
		all[i] = page.Upstream{Name: u.Name, Kind: string(u.Kind), Registry: "stored in dray alone", Push: u.Push}
		for _, r := range p.Registries {
			if r.Name == u.Name {
				all[i].Registry = r.Registry
				all[i].State = explain.Registry{Breaker: r.Breaker, Limiter: r.Limiter}.State("")
			}
		}
	}
	return all
}

const (
	// scanPatience bounds how long a request for the page waits for the cache to read its directory
	// after a start of dray. Before the cache has read it, the page cannot say which blob the cache
	// evicts next.
	scanPatience = 20 * time.Millisecond
	// victimAge is how long the page uses the result of one search for the blob that is evicted next.
	// A search may have to skip many blobs that have been used, and holds the lock of the cache
	// meanwhile.
	victimAge = time.Minute
)

// cacheDisk describes the cache on disk for the page.
type cacheDisk struct {
	dir       *disk.Dir
	inventory *inventory.Inventory

	mu   sync.Mutex // guards the fields below
	next *api.Victim
	at   time.Time // when the method victim last set the field next
}

func (c *cacheDisk) describe(ctx context.Context) (page.Disk, error) {
	s := c.dir.Stats()
	d := page.Disk{Used: s.Bytes, Reserved: s.Reserved, Pinned: s.Pinned, Max: s.MaxBytes, Blobs: s.Blobs, Unverified: s.Unverified}
	d.Free, _ = c.dir.Free() // 0 if it is not known
	d.Next = c.victim(ctx)
	return d, nil
}

// victim returns the blob that the cache evicts next, or nil if there is no such blob or it is not
// known.
func (c *cacheDisk) victim(ctx context.Context) *api.Victim {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && time.Since(c.at) < victimAge {
		return c.next
	}
	ctx, cancel := context.WithTimeout(ctx, scanPatience)
	defer cancel()
	victims, err := c.inventory.Eviction(ctx, 1, 1)
	if err != nil {
		return nil
	}
	c.at, c.next = time.Now(), nil
	if len(victims) > 0 {
		c.next = &victims[0]
	}
	return c.next
}

func (p Parts) images(ctx context.Context) iter.Seq2[api.Image, error] {
	return p.Inventory.Images(ctx, "")
}

func (p Parts) uploads() []page.Upload {
	open := p.Uploads()
	all := make([]page.Upload, len(open))
	for i, u := range open {
		all[i] = page.Upload(*u)
	}
	return all
}
