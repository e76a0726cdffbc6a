package member

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"dray/cache/fleet"
	"dray/cmd/dray/stats"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
)

const (
	// statePath is the path at which a member serves its state to other members.
	statePath = "/state"
	// statePatience is the time within which a member has to send its state.
	statePatience = 500 * time.Millisecond
	// mostState bounds the length of a member's state, in bytes.
	mostState = 4 << 20
	// mostStreams bounds the number of streams in a member's state.
	mostStreams = 1000
)

// Endpoints returns the endpoints about the fleet for the admin listener. m may be nil.
func (m *Member) Endpoints() []admin.Endpoint {
	return []admin.Endpoint{admin.Query("fleet", func(ctx context.Context, _ url.Values) (api.Fleet, error) {
		if m == nil {
			return api.Fleet{}, api.Errorf(api.CodeNotFound, "this dray is not a member of a fleet; docs/fleet.md says how to make it one")
		}
		return m.report(ctx), nil
	})}
}

// Reporter returns a function that asks all members for their state, or nil if m is nil.
func (m *Member) Reporter() func(context.Context) (api.Fleet, error) {
	if m == nil {
		return nil
	}
	return func(ctx context.Context) (api.Fleet, error) { return m.report(ctx), nil }
}

// report asks all members for their state, concurrently.
func (m *Member) report(ctx context.Context) (all api.Fleet) {
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(m.patience.Answer, statePatience))
	defer cancel()
	members, err := m.Members(bounded)
	if err != nil {
		all.Failure = err.Error()
		members = m.Live()
	}
	if own := func(to fleet.Member) bool { return to.ID == m.id }; !slices.ContainsFunc(members, own) { // Redis may have lost the record that this member is alive
		known := m.Live()
		members = append(members, known[slices.IndexFunc(known, own)])
		slices.SortFunc(members, func(a, b fleet.Member) int { return cmp.Compare(a.ID, b.ID) })
	}
	all.Members = make([]api.FleetMember, len(members))
	var asking sync.WaitGroup
	for i, to := range members {
		all.Members[i] = api.FleetMember{ID: to.ID, Address: to.Address, Zone: to.Zone, Version: to.Version, Protocol: to.Protocol, Asked: to.ID == m.id}
		asking.Go(func() {
			state, err := m.stateOf(ctx, to)
			if err != nil {
				all.Members[i].Failure = err.Error()
				return
			}
			all.Members[i].State = &state
		})
	}
	asking.Wait()
	for _, d := range fleet.DriftOf(m.id, members) {
		for i, to := range members {
			if slices.ContainsFunc(d.Members, func(other fleet.Member) bool { return other.ID == to.ID }) {
				all.Members[i].Drift = append(all.Members[i].Drift, d.Upstream)
			}
		}
	}
	return all
}

var errSilent = errors.New("no answer")

// stateOf asks a member for its state.
func (m *Member) stateOf(ctx context.Context, to fleet.Member) (state api.FleetState, err error) {
	if to.ID == m.id {
		return m.state()
	}
	patience := cmp.Or(m.patience.Answer, statePatience)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%w within %s", errSilent, patience))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, statePath, nil)
	if err != nil {
		return state, err
	}
	resp, err := m.Send(ctx, to, r)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return state, fmt.Errorf("it answered %s", resp.Status)
		}
		err = json.NewDecoder(io.LimitReader(resp.Body, mostState)).Decode(&state)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return state, err
}

// state returns the state of this member.
func (m *Member) state() (api.FleetState, error) {
	families, err := m.metrics.Gather()
	if err != nil {
		return api.FleetState{}, err
	}
	now := m.Activity()
	s := api.FleetState{Started: stats.Of(families).Started, Leases: now.Leases, Followers: now.Followers, Reading: []api.FleetStream{}, Bytes: stats.Sources(families)}
	for _, r := range now.Reading[:min(len(now.Reading), mostStreams)] {
		s.Reading = append(s.Reading, api.FleetStream{Digest: r.Digest, From: r.From, Bytes: r.Bytes, Hop: r.Hop})
	}
	return s, nil
}

// serveState sends the state of this member to another member.
func (m *Member) serveState(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "not a request of a member", http.StatusMethodNotAllowed)
		return
	}
	s, err := m.state()
	if err != nil {
		m.log.Warn("the state of this member of the fleet is not known", "error", err)
		http.Error(w, "the state is not known", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(s); err != nil {
		m.log.Debug("fleet: another member has not accepted the state of this one", "error", err)
	}
}
