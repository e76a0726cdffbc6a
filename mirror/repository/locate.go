package repository

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/upstream"
	"dray/upstream/oci"
)

// Need is the purpose for which a caller of [Repo.LocateBlob] or [Repo.LocateManifest] wants
// content.
type Need int

const (
	// Serve sends the content to a client that may pull from the repository.
	Serve Need = iota
	// ServePusher sends the content to a client of a listener that takes pushes. Such a client also
	// sees the content of pushes that are under way.
	ServePusher
	// ServeHere answers a HEAD of a client that cannot push, without asking the upstream.
	ServeHere
	// LeaveOut answers a client that asks whether its push may leave the content out.
	LeaveOut
	// LeaveToQueue is LeaveOut for a push that is acknowledged before it is forwarded.
	LeaveToQueue
	// Wait decides whether a push waits for a foreign layer, which clients need not send.
	Wait
	// Publish ensures that the upstream has the content before it gets the manifest that names the
	// content.
	Publish
	// Acknowledge ensures that the content is on stable storage here, or that the upstream confirms it
	// now.
	Acknowledge
	// AcknowledgeHeld is Acknowledge for a manifest that is held here. If the upstream does not
	// answer, dray can forward the held copy.
	AcknowledgeHeld
	// Judge passes the content to the checks of a push.
	Judge
	// Forwarded decides whether the upstream has a manifest, or will certainly get it.
	Forwarded
	// CopyToBuildCache copies the content to the repository that stores the build caches.
	CopyToBuildCache
	needs // the number of needs above
)

// Place is a place where content can be. In the comments on the places, "it" is the content.
type Place int

const (
	// Nowhere: none of the places that the need lists has it. The upstream may still have it.
	Nowhere Place = iota
	// Visible: dray may serve it from the repository without asking the upstream. Its bytes are held
	// here, or have to be fetched from the upstream.
	Visible
	// Held: it is visible, and its bytes are in memory or on disk.
	Held
	// Stored: it is visible or in the build caches, and its bytes are on stable storage.
	Stored
	// RememberedHeld: it is both Remembered and Held.
	RememberedHeld
	// InStaging: a client has pushed it, and its manifest has not been forwarded yet.
	InStaging
	// InQueue: the queue holds it for an acknowledged push.
	InQueue
	// InBuildCache: it is stored with the repository's build caches.
	InBuildCache
	// InWaiting: it is a manifest that passed its checks and waits for another manifest to refer to
	// it.
	InWaiting
	// Remembered: a fact says that the upstream has it. The fact may be out of date.
	Remembered
	// Recent: it is a manifest that is Held, and the upstream confirmed it within [TagPolicy.Fresh].
	Recent
	// Confirmed: the upstream was asked now and has it.
	Confirmed
	// Answered: like Confirmed, but dray does not repeat a failed request.
	Answered
	// Shared: its bytes are held here through another repository, or the tier has them. The upstream
	// was asked now, and also has it in this repository.
	Shared
	// Arriving: another mirror on the same store of facts has received it from a client, and is
	// sending it to the upstream.
	Arriving
	// Elsewhere: another mirror has received it from a client. While that mirror sends it to the
	// upstream, dray waits. After that, dray asks the upstream. If the upstream lacks it and the other
	// mirror holds it back, the result is an error.
	Elsewhere
	// Absent: the upstream recently answered "not found". The result is that answer, as an error.
	Absent
)

// Location is the result of [Repo.LocateBlob] and [Repo.LocateManifest].
type Location struct {
	Place Place
	// Size is the size of a blob in bytes, -1 if it is not known. Size can be known even if Place is
	// Nowhere, because a manifest may state it.
	Size int64
	// When is the time at which the upstream confirmed the content, if Place is Remembered,
	// RememberedHeld, Recent, Confirmed, Answered, Shared or Elsewhere. It is zero if an older version
	// of dray recorded the fact. If Place is Absent, it is the time of the "not found".
	When time.Time
	// Manifest is set if LocateManifest found the manifest and its bytes are here.
	Manifest *Manifest
	// Staged is set if Place is InStaging.
	Staged *Staged
}

// order has the places that are asked for one need: one list for blobs, and one list for manifests
// by digest. The places are asked in the order of the list. The first place that has the content is
// the answer.
type order struct {
	need             Need
	blobs, manifests []Place
	why              string
}

// orders is the table of all needs. No other code decides where dray looks for content.
var orders = [needs]order{
	Serve: {Serve,
		[]Place{Visible, InQueue, Absent, Shared},
		[]Place{InQueue, Held, Absent},
		"Facts come first, because they cost one look-up. Bytes that came through another repository need a confirmation of " +
			"the upstream. A queued manifest is newer than the facts about it."},
	ServePusher: {ServePusher,
		[]Place{Visible, InQueue, InStaging, Absent, Shared},
		[]Place{InQueue, Held, InWaiting, Absent},
		"As Serve, and a client that may push can read content that a push has just brought."},
	ServeHere: {ServeHere,
		[]Place{Held, InQueue},
		[]Place{InQueue, Held, Absent},
		"A HEAD on a mirror is answered only for content that can be sent at once. Other places need a question to the upstream."},
	LeaveOut: {LeaveOut,
		[]Place{InStaging, InQueue, Remembered, Arriving},
		[]Place{InQueue, InWaiting, Recent, Absent},
		"A 200 promises that a push without the content will succeed: it is being forwarded, or the upstream has it. A copy in " +
			"the cache does not prove that. A fact about a blob may be old, because a blob that the upstream lacks is sent again " +
			"with its manifest. Nothing brings a lost manifest back, so its fact must be recent."},
	LeaveToQueue: {LeaveToQueue,
		[]Place{InStaging, InQueue, RememberedHeld},
		[]Place{InQueue, InWaiting, Recent, Absent},
		"The push that follows needs the bytes here, or a confirmation of the upstream at that time. So a fact alone is not enough."},
	Wait: {Wait,
		[]Place{InStaging, InQueue, Remembered, Visible, Arriving},
		nil,
		"The layer is found if a client has sent it, in this push or an earlier one. The upstream is not asked, because it does " +
			"not have most foreign layers."},
	Publish: {Publish,
		[]Place{InStaging, Remembered, Confirmed, InQueue, InBuildCache, Held, Elsewhere},
		[]Place{InWaiting},
		"The staged blobs of this push come first: if forwarding one failed, it is sent again. A blob that the upstream has is " +
			"not sent. Otherwise a copy that is visible to this repository is sent. A blob in none of these places may have reached another mirror."},
	Acknowledge: {Acknowledge,
		[]Place{InStaging, InQueue, Stored, Confirmed, Elsewhere},
		[]Place{InQueue, Confirmed},
		"After the acknowledgement, no client can send a missing blob. So a fact is not enough, and neither is a copy in memory, " +
			"which is lost with the process."},
	AcknowledgeHeld: {AcknowledgeHeld,
		nil,
		[]Place{InQueue, Answered},
		"The manifest is held here, so the client waits for one attempt at most."},
	Judge: {Judge,
		[]Place{InStaging, InQueue, Visible, Remembered, Confirmed, Elsewhere},
		[]Place{InWaiting, InQueue, Held, Absent},
		"The staged blobs of this push are judged as they were sent. Bytes that came through another repository are judged only " +
			"if the upstream confirms that this one has them, too."},
	Forwarded: {Forwarded,
		nil,
		[]Place{InWaiting, InQueue, Held, Confirmed},
		"A waiting manifest has not been forwarded, whatever the facts say. A queued one has been acknowledged, so it will be."},
	CopyToBuildCache: {CopyToBuildCache,
		[]Place{InBuildCache, InStaging, Confirmed},
		nil,
		"A blob that is there already is not sent. Otherwise it is a staged blob, or one that the upstream confirms."},
}

// LocateBlob finds a blob for a need. It returns an error if the upstream was asked and failed. A
// "not found" is an error at two places only: Absent, while it is believed, and Shared. A failure
// of the store of facts is no error: LocateBlob then does not find the blob in the places that
// depend on facts.
func (r Repo) LocateBlob(ctx context.Context, d digest.Digest, need Need) (Location, error) {
	return r.LocateBlobBy(ctx, upstream.Call{}, d, need)
}

// LocateBlobBy is LocateBlob with options for its requests to the upstream.
func (r Repo) LocateBlobBy(ctx context.Context, how upstream.Call, d digest.Digest, need Need) (Location, error) {
	size := int64(-1)
	for _, place := range orders[need].blobs {
		at, ok, err := blobAt(ctx, how, r, d, place)
		if ok || err != nil {
			at.Place = place
			return at, err
		}
		if at.Size > 0 { // the blob is not visible, but a manifest that names the blob states its size
			size = at.Size
		}
	}
	return Location{Size: size}, nil
}

func blobAt(ctx context.Context, how upstream.Call, r Repo, d digest.Digest, place Place) (at Location, ok bool, err error) {
	s := r.store
	switch place {
	case Visible:
		link, visible, err := r.visible(ctx, d)
		if err != nil {
			return Location{Size: -1}, false, nil
		}
		return Location{Size: link.Size}, visible, nil
	case Held:
		if _, visible, _ := r.visible(ctx, d); visible {
			at.Size, ok = s.o.Cache.Stat(d)
		}
	case RememberedHeld:
		if at, ok, _ = remembered(ctx, r, d); ok {
			_, ok, _ = blobAt(ctx, how, r, d, Held)
		}
	case Stored:
		return stored(ctx, r, d)
	case InStaging:
		if b := r.Staged(d); b != nil {
			return Location{Size: b.Size, Staged: b}, true, nil
		}
	case InQueue:
		at.Size, ok = s.o.Queue.Blob(r.Up.Name, r.Name, d)
	case InBuildCache:
		if to, stored := r.BuildCaches(); stored {
			size, err := to.Up.Source.StatBlob(ctx, to.Remote(), d)
			return Location{Size: size}, err == nil, nil
		}
	case Arriving:
		f, err := r.inTransit(ctx, d)
		return Location{Size: f.Size}, err == nil && !f.Held, nil
	case Elsewhere:
		return elsewhere(ctx, how, r, d)
	case Remembered:
		return remembered(ctx, r, d)
	case Confirmed:
		asked := time.Now()
		size, err := r.Ask(ctx, how, d)
		if oci.NotFound(err) {
			return at, false, nil
		}
		return Location{Size: size, When: asked}, err == nil, err
	case Shared:
		_, here := s.o.Cache.Stat(d)
		if here || r.Up.Tier != nil && r.Up.Tier.Has(ctx, d) {
			asked := time.Now()
			size, err := r.Confirm(ctx, how, d)
			return Location{Size: size, When: asked}, err == nil, err
		}
	case Absent:
		at.When, err = r.NoBlob(d).Believed(ctx)
		return at, err != nil, err
	}
	return at, ok, nil
}

// remembered looks for a fact that the upstream has the content. ok is false if there is no such
// fact.
func remembered(ctx context.Context, r Repo, d digest.Digest) (at Location, ok bool, err error) {
	fact, err := r.store.o.Presence.Get(ctx, r.Up.Name, r.Name, d)
	return Location{Size: fact.Size, When: fact.Confirmed}, err == nil, nil
}

// stored looks for a blob that is visible or in the build caches, and puts it on stable storage
// before it returns.
func stored(ctx context.Context, r Repo, d digest.Digest) (at Location, ok bool, err error) {
	_, stored, _ := blobAt(ctx, upstream.Call{}, r, d, InBuildCache)
	if _, visible, _ := r.visible(ctx, d); !visible && !stored {
		return at, false, nil
	}
	release, err := r.store.o.Cache.Retain(ctx, d)
	if err != nil {
		return at, false, nil
	}
	defer release()
	at.Size, _ = r.store.o.Cache.Stat(d)
	return at, true, nil
}

// LocateManifest finds a manifest by digest for a need. accept lists the media types that the
// client accepts. It matters only for Absent, because some registries answer "not found" if the
// client does not accept the type of the manifest. LocateManifest returns errors as LocateBlob
// does.
func (r Repo) LocateManifest(ctx context.Context, d digest.Digest, accept []string, need Need) (Location, error) {
	for _, place := range orders[need].manifests {
		at, ok, err := manifestAt(ctx, r, d, accept, place)
		if ok || err != nil {
			at.Place = place
			return at, err
		}
	}
	return Location{Size: -1}, nil
}

func manifestAt(ctx context.Context, r Repo, d digest.Digest, accept []string, place Place) (at Location, ok bool, err error) {
	ref := oci.Reference{Digest: d}
	switch place {
	case InQueue:
		at.Manifest = r.Queued(ref, accept)
	case Held:
		at.Manifest = r.Held(ctx, d)
	case InWaiting:
		if man := r.store.waiting.Get(r.Key(d)); man != nil {
			at.Manifest = ManifestOf(man)
		}
	case Recent:
		at, ok, err = remembered(ctx, r, d)
		if !ok || meta.Age(time.Now(), at.When) >= r.Up.Tags.Fresh {
			return at, false, err
		}
		at.Manifest = r.Held(ctx, d)
	case Confirmed, Answered:
		asked, source := time.Now(), r.Up.Source
		if place == Answered {
			source = r.Up.OneTry()
		}
		_, err := source.StatManifest(ctx, r.Remote(), ref, oci.AnyManifest())
		if oci.NotFound(err) {
			return at, false, nil
		}
		return Location{Size: -1, When: asked}, err == nil, err
	case Absent:
		at.When, err = r.NoManifest(d, accept).Believed(ctx)
		return at, err != nil, err
	}
	return at, at.Manifest != nil, nil
}

// Confirm asks the upstream whether the repository has a blob. If so, it makes the blob visible to
// the repository and returns its size in bytes. Concurrent calls for a blob share one request.
// While the upstream's last "not found" is believed, Confirm returns that error without asking.
func (r Repo) Confirm(ctx context.Context, how upstream.Call, d digest.Digest) (int64, error) {
	if err := r.NoBlob(d).Err(ctx); err != nil {
		return 0, err
	}
	return r.store.confirms.Do(ctx, r.Key(d), func(ctx context.Context) (int64, error) {
		absent, asked := r.NoBlob(d).Asking(ctx), time.Now()
		size, err := r.Ask(ctx, upstream.Call{Asked: how.Asked}, d)
		if err != nil {
			absent.Remember(ctx, asked, err)
			return 0, err
		}
		r.confirmed(ctx, d, size)
		return size, nil
	})
}

// LookupTimeout is the longest time that a deletion takes, and the longest time that a pull may
// spend on requests to upstreams before its answer begins. Clients wait 30 s for the header of an
// answer.
const LookupTimeout = 25 * time.Second

// Foresight finds out where the content of a repository is. It sends no request to the upstream,
// changes no fact, and does not count as a use of the content.
type Foresight struct {
	Repo
	// Named says that a manifest of the repository will name the content by the time that a client
	// asks for it.
	Named bool
}

// Blob returns the Location that LocateBlob would return if a client asked for a blob now. need is
// Serve or ServePusher. If Place is Shared, the upstream has not confirmed the blob, and LocateBlob
// would ask the upstream. The error is the upstream's last "not found", while it is believed.
func (r Foresight) Blob(ctx context.Context, d digest.Digest, need Need) (Location, error) {
	size := int64(-1)
	for _, place := range orders[need].blobs {
		var at Location
		var ok bool
		var err error
		switch place {
		case Visible:
			var link meta.LinkFact
			link, ok = r.link(ctx, d)
			at.Size = link.Size
		case Shared:
			h := r.store.o.Cache.Inspect(d)
			at.Size, ok = h.Size, h.Held() || r.Up.Tier != nil && r.Up.Tier.Has(ctx, d)
		default: // these places ask nobody
			at, ok, err = blobAt(ctx, upstream.Call{}, r.Repo, d, place)
		}
		if ok || err != nil {
			at.Place = place
			return at, err
		}
		if at.Size > 0 {
			size = at.Size
		}
	}
	return Location{Size: size}, nil
}

// Manifest returns the Location that LocateManifest would return if a client asked for a manifest
// by digest now, except that Manifest does not look in the tier (see InTier). need is Serve or
// ServePusher. The error is the upstream's last "not found", while it is believed.
func (r Foresight) Manifest(ctx context.Context, d digest.Digest, accept []string, need Need) (Location, error) {
	for _, place := range orders[need].manifests {
		var at Location
		var ok bool
		var err error
		if place == Held {
			at.Manifest = r.Peek(ctx, d)
			ok = at.Manifest != nil
		} else { // these places ask nobody
			at, ok, err = manifestAt(ctx, r.Repo, d, accept, place)
		}
		if ok || err != nil {
			at.Place = place
			return at, err
		}
	}
	return Location{Size: -1}, nil
}

// Peek returns the manifest that [Repo.Held] would return without asking the tier, or nil.
func (r Foresight) Peek(ctx context.Context, d digest.Digest) *Manifest {
	link, visible := r.link(ctx, d)
	if !visible || link.Kind != meta.KindManifest {
		return nil
	}
	return r.PeekAt(ctx, d, link.MediaType)
}

// InTier reports whether content is visible to the repository and, as far as the tier of the
// upstream can tell, is in this tier.
func (r Foresight) InTier(ctx context.Context, d digest.Digest) bool {
	if r.Up.Tier == nil {
		return false
	}
	_, visible := r.link(ctx, d)
	return visible && r.Up.Tier.Has(ctx, d)
}

// PeekAt returns a manifest whose bytes are here, or nil. The bytes may have come through any
// repository.
func (r Foresight) PeekAt(ctx context.Context, d digest.Digest, mediaType string) *Manifest {
	raw, err := r.store.o.Cache.Peek(ctx, d, oci.MaxManifestBytes)
	if err != nil {
		return nil
	}
	return ManifestOf(ReadManifest(d, mediaType, raw))
}

// link is like lookUp. If Named is set, it assumes that a manifest of the repository names the
// digest.
func (r Foresight) link(ctx context.Context, d digest.Digest) (meta.LinkFact, bool) {
	link, visible, err := lookUp(ctx, r.store.o.Visibility, r.Repo, d)
	if err == nil || !r.Named {
		return link, visible
	}
	link, err = r.store.o.Visibility.Get(ctx, r.Up.Name, anywhere, d)
	return link, err == nil
}

// Turn is one of the repositories to ask for content.
type Turn struct {
	Repo Repo
	// NotFound says that the repository is asked even if the repositories before it answer "not
	// found".
	NotFound bool
}

// InTurn calls query for the repository r. If the upstream of r does not answer, InTurn calls query
// for the repository of the same name at each fallback of the upstream, until a fallback has the
// content. As long as every upstream that was asked has answered, but without the content, InTurn
// asks only further repositories whose [Turn] has NotFound. If the upstream of r answers with an
// error other than "not found", InTurn returns that error at once, unless a fallback was asked
// before r. d is the requested digest; it is empty for a tag or a list. If the function allowed is
// not nil, InTurn leaves out the fallbacks for which allowed returns false. If the upstream of r
// was the only one that did not answer, and no fallback has the content, InTurn calls query once
// more, for r without fallbacks. This call uses Upstream.Source, which gives up later than
// Upstream.Yielding. If the upstream now answers, InTurn returns the result of this call. InTurn
// returns nil if a call of query returned nil. In all other cases, it returns the first error for
// which [NotAnswered] is true, because the upstream that did not answer may have the content. If
// there is no such error, InTurn returns the error for r.
func InTurn(ctx context.Context, r Repo, d digest.Digest, allowed func(*Upstream) bool, query func(Repo) error) error {
	if len(r.Up.Fallbacks) == 0 {
		return query(r)
	}
	var own, silent error
	borrowed, others := false, false // others says that a fallback did not answer
	for i, e := range Turns(ctx, r, d, allowed) {
		borrowed = borrowed || e.Repo != r && i == 0
		if i > 0 && !e.NotFound && silent == nil {
			continue
		}
		err := query(e.Repo)
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case NotAnswered(err):
			silent = cmp.Or(silent, err)
			others = others || e.Repo != r
		case e.Repo == r && !borrowed && !oci.NotFound(err):
			return err // a refusal is an answer
		}
		if e.Repo == r {
			own = err
		}
	}
	if silent == nil || others {
		return cmp.Or(silent, own)
	}
	alone := r
	alone.Up = r.Up.withoutFallbacks()
	if err := query(alone); err == nil || !NotAnswered(err) && ctx.Err() == nil {
		return err
	}
	return silent
}

// NotAnswered reports whether the error means that the upstream did not say if it has the content.
func NotAnswered(err error) bool {
	return upstream.Transient(err) || errors.Is(err, context.DeadlineExceeded)
}

// Turns returns the repositories to ask for a digest, in order. Its parameters are those of InTurn.
// The repository r comes first, with one exception: if the digest is not visible to r and a
// fallback has lent the digest (see [Lend]), that fallback comes first. The fallback that lent a
// manifest is asked first for all content that the manifest names, because the other upstreams may
// lack that content.
func Turns(ctx context.Context, r Repo, d digest.Digest, allowed func(*Upstream) bool) []Turn {
	all := []Turn{{Repo: r}}
	known := d == ""
	if !known {
		_, known, _ = r.visible(ctx, d)
	}
	for _, f := range r.Up.Fallbacks {
		if allowed != nil && !allowed(f.To) {
			continue
		}
		e := Turn{Repo{Up: f.To, Name: r.Name, store: r.store}, f.NotFound}
		if !known && lent(ctx, e.Repo, r, d) {
			known = true
			for i := range all {
				all[i].NotFound = true
			}
			all = append([]Turn{e}, all...)
			continue
		}
		all = append(all, e)
	}
	return all
}
