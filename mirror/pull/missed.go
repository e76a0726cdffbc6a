package pull

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/mirror/admin/api"
	"dray/mirror/past"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
)

// asked returns the record of dray's requests to upstreams for a client's request. If x already has
// a record, for example because dray now asks a fallback, asked returns this record.
func asked(x *request.Request) *upstream.Asked {
	if x.Miss != nil && x.Miss.Asked != nil {
		return x.Miss.Asked
	}
	return new(upstream.Asked)
}

// missedTag returns why dray cannot answer from the fact about a tag. fact is nil if there is none.
func (f *finder) missedTag(x *request.Request, t tag, fact *meta.TagFact) *past.Miss {
	m := &past.Miss{Cause: api.MissNew, Asked: asked(x)}
	switch {
	case fact == nil:
	case fact.NotFound || meta.Age(time.Now(), fact.CheckedAt) >= t.repo.Up.Tags.Fresh:
		m.Cause, m.Since = api.MissExpired, fact.CheckedAt
	default:
		m.Cause, m.Since = f.gone(fact.Digest)
	}
	return m
}

// missedManifest returns why dray asks the upstream about a manifest by digest. confirm says that
// dray must ask even if it has the manifest, because the request may be a check before a push.
func (f *finder) missedManifest(x *request.Request, confirm bool) *past.Miss {
	m := &past.Miss{Cause: api.MissNew, Asked: asked(x)}
	if _, here := f.o.Cache.Stat(x.Q.Ref.Digest); here || confirm {
		m.Cause = api.MissUnconfirmed
	} else if g, ok := f.o.Cache.Gone(x.Q.Ref.Digest); ok {
		m.Cause, m.Since = causeOf(g)
	}
	return m
}

// missedBlob returns why dray needs more than the cache for a blob. loc is the place where the blob
// was found. source is the source of its bytes, or empty if dray has no bytes to send.
func (f *finder) missedBlob(a *upstream.Asked, loc repository.Location, d digest.Digest, source cache.Source) *past.Miss {
	m := &past.Miss{Cause: api.MissNew, Asked: a}
	switch loc.Place {
	case repository.Visible:
		m.Cause, m.Since = f.gone(d)
	case repository.Shared:
		m.Cause = api.MissUnconfirmed
	case repository.Absent:
		m.Cause, m.Since = api.MissAbsent, loc.When
	}
	switch source {
	case cache.SourceFlight:
		m.Cause, m.Since, m.Joined = api.MissArriving, time.Time{}, true
	case cache.SourceDirect:
		m.Cause, m.Since = api.MissUncached, time.Time{}
	}
	return m
}

// gone returns why and when content left the cache. It returns MissLost if the cache has no record
// of that.
func (f *finder) gone(d digest.Digest) (api.MissCause, time.Time) {
	if g, ok := f.o.Cache.Gone(d); ok {
		return causeOf(g)
	}
	return api.MissLost, time.Time{}
}

func causeOf(g disk.Gone) (api.MissCause, time.Time) {
	switch g.Why {
	case disk.GoneEvicted:
		return api.MissEvicted, g.At
	case disk.GoneDamaged:
		return api.MissDamaged, g.At
	}
	return api.MissRemoved, g.At
}

// askedBy calls p.ask, and records in m whether p.ask joined the question of another request.
func (p *Puller) askedBy(ctx context.Context, x *request.Request, accept []string, m *past.Miss) (*answer, error) {
	x.Miss = m
	a, err := p.ask(ctx, x, accept)
	m.Joined = !m.Asked.Begun()
	return a, err
}
