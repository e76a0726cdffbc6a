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

// Manifest says that the answer to a GET or HEAD will be a manifest. It is called before the answer
// is sent: as soon as a client has the manifest, it asks for what the manifest names.
func (k *Track) Manifest(o Owner, agent, reference string, get bool, m *Manifest) {
	if k.table != nil && k.pull == nil {
		k.pull = k.table.manifest(o, agent, reference, get, m)
	}
}

// Blob says that a client asks for a blob by GET.
func (k *Track) Blob(o Owner, agent string, d digest.Digest) {
	if k.table != nil && k.pull == nil {
		k.pull = k.table.blob(o, agent, d)
	}
}

// Push says that a client sends a part of a push. reference is that of a manifest, or empty.
func (k *Track) Push(o Owner, agent, reference string) {
	if k.table != nil && k.push == nil {
		k.push = k.table.push(o, agent, reference)
	}
}

// Sent returns the counter of the bytes of a pull that come from a source, or nil.
func (k *Track) Sent(source string) *atomic.Int64 {
	if k.pull == nil {
		return nil
	}
	return &k.pull.bytes[indexOf(source)]
}

// Received returns the counter of the bytes that the client has pushed, or nil.
func (k *Track) Received() *atomic.Int64 {
	if k.push == nil {
		return nil
	}
	return &k.push.received
}

// Forwarded returns the counter of the bytes that were sent to the upstream, or nil.
func (k *Track) Forwarded() *atomic.Int64 {
	if k.push == nil {
		return nil
	}
	return &k.push.forwarded
}

// Running says that the verdict on a push is not known yet.
const Running = string(api.LiveChecksRunning)

// Checks says how far the checks of the push are: Running, or the verdict.
func (k *Track) Checks(verdict string) {
	k.change(func() { k.push.checks = api.LiveChecks(verdict) })
}

// Stored says that a blob of the push was sent completely, or mounted.
func (k *Track) Stored() {
	k.change(func() { k.push.blobs++ })
}

// Pushed says that a manifest was pushed.
func (k *Track) Pushed(reference string, d digest.Digest) {
	k.change(func() {
		k.push.reference, k.push.digest = text(reference), digest.Digest(text(d.String()))
		k.push.tagged = reference != d.String()
	})
}

// change changes the push.
func (k *Track) change(f func()) {
	if k.push == nil {
		return
	}
	k.push.in.mu.Lock()
	defer k.push.in.mu.Unlock()
	f()
}

// End says that the request has ended, with an error if failed is not empty. id identifies the
// request in the log.
func (k *Track) End(failed, id string) {
	e := k.entry()
	if e == nil {
		return
	}
	if failed != "" {
		e.in.mu.Lock()
		e.failures++
		e.failed, e.failedAs = text(failed), text(id)
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
