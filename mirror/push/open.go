package push

import (
	"cmp"
	"slices"
	"time"
)

// OpenUpload is an upload that a client has begun and not ended.
type OpenUpload struct {
	Upstream, Repository, User string
	// Bytes is the number of bytes that dray has received.
	Bytes int64
	// Last is when the last request ended; it is zero while a request is under way.
	Last time.Time
}

// Uploads lists the open uploads, sorted by upstream and repository. It leaves out the IDs of the
// uploads, because anybody who knows the ID of an anonymous client's upload may continue it.
func (p *Pusher) Uploads() []*OpenUpload {
	// The elements are pointers to keep the program small: all pointer types share one compiled
	// SortFunc.
	all := []*OpenUpload{}
	for _, s := range p.sessions.all() {
		o := &OpenUpload{Upstream: s.repo.Up.Name, Repository: s.repo.Name, User: s.user, Bytes: s.blob.Size()}
		select {
		case <-s.mu:
			o.Last = s.lastUsed
			s.mu <- struct{}{}
		default:
		}
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *OpenUpload) int {
		return cmp.Or(cmp.Compare(a.Upstream, b.Upstream), cmp.Compare(a.Repository, b.Repository), cmp.Compare(b.Bytes, a.Bytes))
	})
	return all
}
