package live

import (
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
)

// Track counts one request towards a pull or a push. The zero Track counts nothing. Only the
// goroutine of the request uses it.
type Track struct {
	table *Table
	pull  *pull
	push  *push
}

// Track returns a Track for one request.
func (t *Table) Track() Track { return Track{table: t} }

// Manifest records that the answer to a GET or HEAD will be a manifest. Callers call it before they
// send the answer, because a client asks for the blobs as soon as it has the answer.
func (k *Track) Manifest(o Owner, agent, reference string, get bool, m *Manifest) {
	if k.table != nil && k.pull == nil {
		k.pull = k.table.manifest(o, agent, reference, get, m)
	}
}

// Blob records that a client asks for a blob by GET.
func (k *Track) Blob(o Owner, agent string, d digest.Digest) {
	if k.table != nil && k.pull == nil {
		k.pull = k.table.blob(o, agent, d)
	}
}

// Push records that a client sends a part of a push. reference is the tag or digest of the
// manifest, and is empty if the request sends no manifest.
func (k *Track) Push(o Owner, agent, reference string) {
	if k.table != nil && k.push == nil {
		k.push = k.table.push(o, agent, reference)
	}
}

// Sent returns the counter of the bytes that the client gets from the given source, such as the
// disk. It returns nil if the Track has no pull.
func (k *Track) Sent(source string) *atomic.Int64 {
	if k.pull == nil {
		return nil
	}
	return &k.pull.bytes[indexOf(source)]
}

// Received returns the counter of the bytes that the client has pushed, or nil if the Track has no
// push.
func (k *Track) Received() *atomic.Int64 {
	if k.push == nil {
		return nil
	}
	return &k.push.received
}

// Forwarded returns the counter of the bytes that dray has sent to the upstream, or nil if the
// Track has no push.
func (k *Track) Forwarded() *atomic.Int64 {
	if k.push == nil {
		return nil
	}
	return &k.push.forwarded
}

// Running is the state of checks whose verdict is not known yet.
const Running = string(api.LiveChecksRunning)

// Checks records the state of the push's checks: Running, or the verdict.
func (k *Track) Checks(verdict string) {
	k.change(func() { k.push.checks = api.LiveChecks(verdict) })
}

// Stored counts one blob of the push. The client has sent the blob completely, or has mounted it.
func (k *Track) Stored() {
	k.change(func() { k.push.blobs++ })
}

// Pushed records that a manifest was pushed.
func (k *Track) Pushed(reference string, d digest.Digest) {
	k.change(func() {
		k.push.reference, k.push.digest = text(reference), digest.Digest(text(d.String()))
		k.push.tagged = reference != d.String()
	})
}

// change calls f while the shard of the push is locked. Without a push, it does nothing.
func (k *Track) change(f func()) {
	if k.push == nil {
		return
	}
	k.push.in.mu.Lock()
	defer k.push.in.mu.Unlock()
	f()
}

// End records that the request has ended. message is the text of its error, or empty if there was
// none. id identifies the request in the log.
func (k *Track) End(message, id string) {
	e := k.entry()
	if e == nil {
		return
	}
	if message != "" {
		e.in.mu.Lock()
		e.failures++
		e.failed, e.failedAs = text(message), text(id)
		e.in.mu.Unlock()
	}
	e.end(k.table)
	k.pull, k.push = nil, nil
}

func (k *Track) entry() *entry {
	switch {
	case k.pull != nil:
		return &k.pull.entry
	case k.push != nil:
		return &k.push.entry
	}
	return nil
}
