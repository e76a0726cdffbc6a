package repository

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// Need is what the caller of [Repo.LocateBlob] or [Repo.LocateManifest] wants to do with content.
type Need int

const (
	// Serve gives the content to a client that may pull from the repository.
	Serve Need = iota
	// ServePusher gives it to a client of a listener that takes pushes. Such a client sees what a
	// push under way has brought.
	ServePusher
	// ServeHere answers a HEAD from what is here, without a question.
	ServeHere
	// LeaveOut tells a client that its push may leave the content out.
	LeaveOut
	// LeaveToQueue is LeaveOut where the push is acknowledged before the upstream has it.
	LeaveToQueue
	// Wait asks whether a push waits for a foreign layer, which clients need not send.
	Wait
	// Publish makes sure that the upstream has the content before the manifest that names it.
	Publish
	// Acknowledge makes sure that the content is on stable storage here, or at the upstream now.
	Acknowledge
	// AcknowledgeHeld is Acknowledge for a manifest that is held here, so that there is something to
	// send where the upstream does not answer.
	AcknowledgeHeld
	// Judge shows the content to the checks of a push.
	Judge
	// Forwarded asks whether a manifest is, or certainly will be, at the upstream.
	Forwarded
	// CopyToBuildCache gives the content to where build caches are stored.
	CopyToBuildCache
	needs // their number
)

// Place is where content is.
type Place int

const (
	// Nowhere: no place of the need has it. The upstream may.
	Nowhere Place = iota
	// Visible: the repository may see it without a question. Its bytes are here, or come from the
	// upstream.
	Visible
	// Held: it is visible, and its bytes are in memory or on disk.
	Held
	// Stored: it is visible or in the build caches, and its bytes are on stable storage.
	Stored
	// RememberedHeld: the upstream confirmed it some time ago, it is visible, and its bytes are in
	// memory or on disk.
	RememberedHeld
	// InStaging: a push that is under way has brought it.
	InStaging
	// InQueue: a push that was acknowledged and is still to be forwarded has brought it.
	InQueue
	// InBuildCache: it is stored with the repository's build caches.
	InBuildCache
	// InWaiting: the manifest has passed its checks and waits for one that refers to it.
	InWaiting
	// Remembered: the upstream confirmed it some time ago.
	Remembered
	// Confirmed: the upstream was asked now, and has it.
	Confirmed
	// Answered: as Confirmed, by a single attempt.
	Answered
	// Shared: its bytes are here, through another repository, and the upstream was asked now and
	// has it in this one.
	Shared
	// Absent: the upstream said a moment ago that it has no such content.
	Absent
)

// Location is where content is.
type Location struct {
	Place Place
	// Size is in bytes, -1 where it is not known. A manifest may tell the size of what is Nowhere.
	Size int64
	// When is when the upstream confirmed it, for what is Remembered, RememberedHeld, Confirmed,
	// Answered or Shared; zero where an older dray recorded it.
	When time.Time
	// Manifest is the content, where a manifest was located and is here.
	Manifest *Manifest
	// Staged is the blob that a push has brought, where Place is InStaging.
	Staged *Staged
}

// order is, for each need, the places in the order in which they are asked, for blobs and for
// manifests by digest. The first place that has the content is the answer.
type order struct {
	need             Need
	blobs, manifests []Place
	why              string
}

// orders is the one table of where content is looked for.
var orders = [needs]order{
	Serve: {Serve,
		[]Place{Visible, InQueue, Shared, Absent},
		[]Place{InQueue, Held, Absent},
		"The facts come first because a hot answer costs one look. Bytes of another repository need the upstream's word. " +
			"A manifest that is queued is newer than what facts say."},
	ServePusher: {ServePusher,
		[]Place{Visible, InQueue, InStaging, Shared, Absent},
		[]Place{InQueue, Held, InWaiting, Absent},
		"As Serve; and whoever may push reads what a push has just brought."},
	ServeHere: {ServeHere,
		[]Place{Held, InQueue},
		[]Place{InQueue, Held},
		"A HEAD on a mirror is answered from what it can send at once. Anything else is a question."},
	LeaveOut: {LeaveOut,
		[]Place{InStaging, InQueue, Remembered},
		[]Place{Remembered},
		"A 200 promises that a push which leaves the blob out will succeed: it is on its way, or the upstream has it. That the " +
			"cache holds it proves nothing about the upstream."},
	LeaveToQueue: {LeaveToQueue,
		[]Place{InStaging, InQueue, RememberedHeld},
		[]Place{InQueue},
		"The push that follows needs the bytes, or the upstream's word at that moment: a remembered fact has to come with the bytes."},
	Wait: {Wait,
		[]Place{InStaging, InQueue, Remembered, Visible},
		nil,
		"A client has sent the layer, to this push or to an earlier one. The upstream is not asked: most foreign layers are nowhere."},
	Publish: {Publish,
		[]Place{InStaging, Remembered, Confirmed, InQueue, InBuildCache, Held},
		[]Place{InWaiting},
		"The bytes of this push come first: their way may have failed, and then they are sent again. What the upstream has is not " +
			"sent. Only then is a copy here sent, and only one that this repository may see."},
	Acknowledge: {Acknowledge,
		[]Place{InStaging, InQueue, Stored, Confirmed},
		[]Place{InQueue, Confirmed},
		"Nobody will be there to send what turns out to be missing. So a remembered fact is not enough, and memory is not either: it " +
			"does not outlive the process."},
	AcknowledgeHeld: {AcknowledgeHeld,
		nil,
		[]Place{InQueue, Answered},
		"The client need not wait for more than one attempt to ask the upstream."},
	Judge: {Judge,
		[]Place{InStaging, InQueue, Visible, Remembered, Confirmed},
		[]Place{InWaiting, InQueue, Held, Absent},
		"The bytes of this push are judged as they came. What came through another repository is looked at only where the upstream " +
			"says that this one has it, too."},
	Forwarded: {Forwarded,
		nil,
		[]Place{InWaiting, InQueue, Held, Confirmed},
		"A manifest that waits has not been forwarded, whatever else is known of it. What was acknowledged will be."},
	CopyToBuildCache: {CopyToBuildCache,
		[]Place{InBuildCache, InStaging, Confirmed},
		nil,
		"What is there already is not sent. Otherwise it is a blob that the client has pushed, or that the upstream confirms."},
}

// LocateBlob finds a blob for a need. An error is the upstream's, for a place where it is asked, or
// its recent answer that there is no such blob. A store of facts that fails has nothing.
func (r Repo) LocateBlob(ctx context.Context, d digest.Digest, need Need) (Location, error) {
	return r.LocateBlobBy(ctx, upstream.Call{}, d, need)
}

// LocateBlobBy is LocateBlob with questions to the upstream that are sent as how says.
func (r Repo) LocateBlobBy(ctx context.Context, how upstream.Call, d digest.Digest, need Need) (Location, error) {
	size := int64(-1)
	for _, place := range orders[need].blobs {
		at, ok, err := blobAt(ctx, how, r, d, place)
		if ok || err != nil {
			at.Place = place
			return at, err
		}
		if at.Size > 0 { // a manifest names it, and says no more
			size = at.Size
		}
	}
	return Location{Size: size}, nil
}

// blobAt asks one place for a blob.
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
		if _, here := s.o.Cache.Stat(d); here {
			asked := time.Now()
			size, err := r.Confirm(ctx, d)
			return Location{Size: size, When: asked}, err == nil, err
		}
	case Absent:
		err := r.NoBlob(d).Err(ctx)
		return at, err != nil, err
	}
	return at, ok, nil
}

// remembered finds content that the upstream confirmed some time ago.
func remembered(ctx context.Context, r Repo, d digest.Digest) (at Location, ok bool, err error) {
	fact, err := r.store.o.Presence.Get(ctx, r.Up.Name, r.Name, d)
	return Location{Size: fact.Size, When: fact.Confirmed}, err == nil, nil
}

// stored finds a blob on stable storage, and puts there what is in memory alone.
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

// LocateManifest finds a manifest by digest for a need. accept is what the client takes: some
// registries answer "not found" to a client that does not take the type.
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

// manifestAt asks one place for a manifest.
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
	case Remembered:
		return remembered(ctx, r, d)
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
		err := r.NoManifest(d, accept).Err(ctx)
		return at, err != nil, err
	}
	return at, at.Manifest != nil, nil
}

// Confirm asks the upstream whether the repository has a blob, once for all who ask, and lets the
// repository see it. It returns the size in bytes. A recent "no" is not asked again.
func (r Repo) Confirm(ctx context.Context, d digest.Digest) (int64, error) {
	if err := r.NoBlob(d).Err(ctx); err != nil {
		return 0, err
	}
	return r.store.confirms.Do(ctx, r.Key(d), func(ctx context.Context) (int64, error) {
		asked := time.Now()
		size, err := r.Ask(ctx, upstream.Call{}, d)
		if err != nil {
			r.NoBlob(d).Remember(ctx, asked, err)
			return 0, err
		}
		r.confirmed(ctx, d, size)
		return size, nil
	})
}

// LookFor bounds the questions to an upstream that a pull needs before its answer can begin:
// clients wait 30 s for a header.
const LookFor = 25 * time.Second
