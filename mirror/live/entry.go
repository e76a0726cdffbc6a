package live

import (
	"strings"
	"sync/atomic"
	"time"

	"dray/mirror/admin/api"
)

// entry has the fields that pulls and pushes have in common. The mutex of the shard guards the
// fields that are not atomic.
type entry struct {
	in        *shard
	id        uint64
	agent     string
	reference string
	began     time.Time
	// underWay is the number of requests that have begun and not ended.
	underWay atomic.Int32
	// last is when a request last began or ended, as read from Table.now.
	last atomic.Int64

	failures  int
	failed    string // the last error
	failedAs  string // the ID of the request that had this error
	samples   [window]int64
	sample    int // index of the oldest sample
	seconds   int64
	perSecond int64
}

func (s *shard) newEntry(t *Table, agent string) entry {
	return entry{in: s, id: t.ids.Add(1), agent: text(agent), began: time.Now()}
}

// begin counts a request. The caller holds the mutex of the shard, so that the entry is not removed
// meanwhile.
func (e *entry) begin(t *Table) {
	e.underWay.Add(1)
	e.last.Store(t.now.Load())
}

func (e *entry) end(t *Table) {
	e.last.Store(t.now.Load())
	e.underWay.Add(-1)
}

// idleSince reports whether the entry has had no request after the time cutoff. The unit of cutoff
// is nanoseconds since 1970.
func (e *entry) idleSince(cutoff int64) bool {
	return e.underWay.Load() == 0 && e.last.Load() <= cutoff
}

// measure computes the rate from the sum of all bytes so far. The table calls it once a second.
func (e *entry) measure(sum int64) {
	e.seconds++
	e.perSecond = (sum - e.samples[e.sample]) / min(e.seconds, window)
	e.samples[e.sample] = sum
	e.sample = (e.sample + 1) % window
}

// state returns the state of the entry in the operators' API.
func (e *entry) state() api.LiveState {
	if e.underWay.Load() > 0 {
		return api.LiveActive
	}
	return api.LiveIdle
}

// common returns the fields that pulls and pushes have in common in the operators' API. The caller
// holds the mutex of the shard.
func (o *owned) common(e *entry) api.LiveEntry {
	c := api.LiveEntry{
		ID: e.id, Client: o.Addr.String(), User: o.User, Agent: e.agent, Upstream: o.Upstream, Repository: o.Repository, Reference: e.reference,
		State: e.state(), Began: e.began.UTC(), Last: time.Unix(0, e.last.Load()).UTC(), Rate: max(e.perSecond, 0),
		Failures: e.failures, Error: e.failed, RequestID: e.failedAs,
	}
	if !o.Addr.IsValid() {
		c.Client = ""
	}
	return c
}

// text returns a copy of the first maxText bytes of s, without invalid UTF-8. A substring of s, in
// place of a copy, could keep the whole header of a request in memory.
func text(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxText)], ""))
}
