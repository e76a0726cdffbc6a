// Package member makes this dray a member of a fleet.
package member

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/fleet"
	"dray/cache/meta"
	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
	"dray/mirror/ceilings"
	"dray/mirror/writer"
)

// Options configure a member.
type Options struct {
	Config config.Config
	Leases fleet.Leases
	Claims fleet.Claims
	Shares fleet.Shares
	Cache  *cache.Cache
	// Version is the version of the program.
	Version string
	// Zone finds the zone of this machine if the configuration names none. The member does not wait
	// for Zone. If Zone is nil, the member has only the zone that the configuration names.
	Zone func(context.Context) (string, error)
	// Metrics has the metrics of the program.
	Metrics  prometheus.Gatherer
	Patience fleet.Patience
	Logger   *slog.Logger
}

// Member is this dray in its fleet.
type Member struct {
	*fleet.Fleet
	id        string
	address   string
	metrics   prometheus.Gatherer
	patience  fleet.Patience
	keys      func() *fleet.Keys
	upstreams atomic.Pointer[upstreams]
	facts     *meta.Shared // nil until Facts is called
	drift     *drift
	writers   writer.Options
	findZone  func(context.Context) (string, error) // nil unless the member looks for its zone
	ceilings  *ceilings.Ceilings
	log       *slog.Logger
}

// New returns the member, or nil if the configuration has no fleet. The member sends no request
// yet. New reads the secret and the ID of this member. At the first start, it creates the ID in the
// state directory.
func New(o Options) (*Member, error) {
	c := o.Config.Fleet
	if !c.On(o.Config.Metadata) {
		return nil, nil
	}
	keys, err := watched.Value(watched.Watching(o.Logger), c.SecretFile, fleet.ParseKeys, nil)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	id, err := identity(filepath.Join(o.Config.State.Directory, "fleet-id"))
	if err != nil {
		return nil, fmt.Errorf("the ID of this member: %w", err)
	}
	m := &Member{id: id, address: c.Address, metrics: o.Metrics, patience: o.Patience, keys: keys, drift: newDrift(o.Logger), log: o.Logger}
	self := fleet.Member{ID: id, Address: c.Advertise, Zone: c.Zone, Version: o.Version, Protocol: fleet.Protocol()}
	if c.Zone == "" {
		m.findZone = o.Zone
	}
	m.Fleet = fleet.New(fleet.Options{
		Self:   self,
		Leases: o.Leases, Cache: o.Cache, Keys: keys, Upstreams: m.shown, Patience: o.Patience, Grace: o.Config.Limits.ShutdownGrace.Std(), Logger: o.Logger,
	})
	m.Handle(statePath, http.HandlerFunc(m.serveState))
	m.writers = writer.Options{
		Self: self, Members: m.Fleet, Claims: o.Claims, Patience: o.Patience, Logger: o.Logger,
		Identity: func(name string) string { return m.upstreams.Load().identities[name] },
	}
	m.ceilings = ceilings.New(ceilings.Options{Self: id, Fleet: m.Fleet, Shares: o.Shares, Patience: o.Patience.Store, Logger: o.Logger})
	m.Handle(ceilings.Path, m.ceilings)
	m.Use(o.Config, nil)
	return m, nil
}

// Writers returns the options by which members pass on pushes to each other, or nil without a
// fleet. m may be nil.
func (m *Member) Writers() *writer.Options {
	if m == nil {
		return nil
	}
	return &m.writers
}

// Answer makes w answer the requests of other members about pushes. Call Answer before Serve. m may
// be nil.
func (m *Member) Answer(w *writer.Writers) {
	if m != nil {
		m.Handle(writer.Path, w)
	}
}

// Collectors returns the metrics of the fleet. If Facts was called before, it also returns the
// metrics of the fleet's facts.
func (m *Member) Collectors() []prometheus.Collector {
	all := append(m.Fleet.Collectors(), m.drift.gauge)
	all = append(all, m.ceilings.Collectors()...)
	if m.facts != nil {
		all = append(all, m.facts.Collectors()...)
	}
	return all
}

// Run calls [fleet.Fleet.Run]. Meanwhile, it finds the zone of this member, helps to divide the
// ceilings of registries among the members (package ceilings), and looks for [drift].
func (m *Member) Run(ctx context.Context) error {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { m.placed(ctx) })
	others.Go(func() { m.watch(ctx) })
	others.Go(func() { _ = m.ceilings.Run(ctx) }) // never fails
	return m.Fleet.Run(ctx)
}

// zonePauses are the pauses before a member looks for its zone again.
var zonePauses = []time.Duration{10 * time.Second, time.Minute}

// placed finds the zone of this member with findZone, unless findZone is nil.
func (m *Member) placed(ctx context.Context) {
	if m.findZone == nil {
		return
	}
	name, err := m.findZone(ctx)
	for _, pause := range zonePauses {
		if err == nil {
			break
		}
		select {
		case <-time.After(pause):
			name, err = m.findZone(ctx)
		case <-ctx.Done():
			return
		}
	}
	switch {
	case err == nil:
		m.SetZone(name)
		m.log.Info("the zone of this member of the fleet is that of the machine", "zone", name)
	case slices.ContainsFunc(m.Live(), func(other fleet.Member) bool { return other.Zone != "" }):
		m.log.Info("this machine names no zone for the fleet, and other members have one: set fleet.zone", "error", err)
	default:
		m.log.Debug("this machine names no zone for the fleet; fleet.zone sets one", "error", err)
	}
}

// Part returns the fleet.Fleet of this member, or nil without a fleet. m may be nil.
func (m *Member) Part() *fleet.Fleet {
	if m == nil {
		return nil
	}
	return m.Fleet
}

// Listen listens for other members.
func (m *Member) Listen(ctx context.Context) (net.Listener, error) {
	ln, err := fleet.Listen(ctx, m.address)
	if err == nil {
		m.log.Info("listening for the fleet", "address", ln.Addr().String())
	}
	return ln, err
}

// identity returns the ID in a file. It first writes a new ID if the file is missing or empty.
func identity(file string) (string, error) {
	text, err := os.ReadFile(filepath.Clean(file))
	if id := strings.TrimSpace(string(text)); id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := rand.Text()
	return id, os.WriteFile(file, []byte(id+"\n"), 0o600)
}
