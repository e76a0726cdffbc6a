package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Aside keeps the build caches that are pushed to an upstream somewhere else, where they cost less and are pruned. Clients
// notice nothing: what was kept aside is found under the name that it was pushed to.
type Aside struct {
	// To is the upstream that keeps them, one whose content lies here: it is asked about each manifest and blob that the
	// other one is asked for. A repository is called there by the name of the other upstream and its own.
	To *Upstream
	// WriteBack forwards them to where they were pushed to as well, in the background.
	WriteBack bool
}

// aside is where a repository's build caches are kept.
func (u *Upstream) aside(repo string) (to *Upstream, name string, ok bool) {
	if u.Aside == nil {
		return nil, "", false
	}
	return u.Aside.To, u.Name + "/" + repo, true
}

// keepsAside says whether a manifest is one of those that are kept elsewhere.
func (u *Upstream) keepsAside(man *oci.Manifest) bool { return u.Aside != nil && man.BuildCache() }

// notInstead refuses pushes to where another upstream's build caches are kept: what is there stands before what that one
// has, so it has to come with the rights that are needed there, and through its checks.
func (m *Mirror) notInstead(to *Upstream, repo string) error {
	for _, u := range m.upstreams {
		if u.Aside != nil && u.Aside.To == to && strings.HasPrefix(repo, u.Name+"/") {
			return oci.ErrDenied.With("%s keeps the build caches of %s under this name: push to that", to.Name, u.Name)
		}
	}
	return nil
}

// divert leads a request about something that was kept aside to where it is.
func (m *Mirror) divert(x *exchange) {
	to, name, ok := x.up.aside(x.target.Repo)
	if !ok {
		return
	}
	var err error
	if ctx := x.r.Context(); x.q.Kind == oci.KindBlob {
		_, err = to.Source.StatBlob(ctx, to.remote(name), x.q.Ref.Digest)
	} else {
		_, err = to.Source.StatManifest(ctx, to.remote(name), x.q.Ref, nil)
	}
	if err == nil {
		x.up, x.target.Upstream, x.target.Repo = to, to.Name, name
	}
}

// keptAside reports a blob that lies here for a repository's build caches. Who pushes an image may leave it out: it is
// sent from here.
func (m *Mirror) keptAside(ctx context.Context, up *Upstream, repo string, d digest.Digest) (size int64, ok bool) {
	to, name, ok := up.aside(repo)
	if !ok {
		return 0, false
	}
	size, err := to.Source.StatBlob(ctx, to.remote(name), d)
	return size, err == nil
}

// landAside brings a build cache to where such are kept.
func (m *Mirror) landAside(ctx context.Context, up *Upstream, repo string, ref oci.Reference, man *oci.Manifest) (upstream.Pushed, error) {
	to, name, _ := up.aside(repo)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	var brought []pinKey
	for _, c := range m.neededChildren(ctx, up, repo, man) {
		if !c.Manifest {
			brought = append(brought, pinKey{up.Name, repo, c.Digest})
			g.Go(func() error { return m.lendAside(gctx, up, repo, c) })
		}
	}
	if err := g.Wait(); err != nil {
		return upstream.Pushed{}, err
	}
	pushed, err := to.Sink.PutManifest(ctx, to.remote(name), ref, man)
	if err != nil {
		return upstream.Pushed{}, err
	}
	// What was known of the tag at the upstream is no longer what clients get.
	m.forgetReference(ctx, up, repo, ref)
	if !up.Aside.WriteBack {
		m.pins.drop(brought...)
		return pushed, nil
	}
	m.tasks.Start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, landWithin)
		defer cancel()
		_, err := m.land(ctx, upstream.Call{}, up, repo, ref, man)
		m.metrics.pushes.WithLabelValues(up.Name, outcome(err)).Inc()
		if err != nil {
			m.log.Warn("build cache kept here alone: it could not be forwarded", "upstream", up.Name, "repository", repo, "reference", ref.String(), "error", err)
		}
	})
	return pushed, nil
}

// lendAside gives a blob to where build caches are kept. It is one that the client has pushed, or that the upstream
// vouches for; what is not here is fetched.
func (m *Mirror) lendAside(ctx context.Context, up *Upstream, repo string, c oci.Child) error {
	to, name, _ := up.aside(repo)
	if _, kept := m.keptAside(ctx, up, repo, c.Digest); kept {
		return nil
	}
	size := int64(-1)
	if p := m.pins.get(pinKey{up.Name, repo, c.Digest}); p != nil {
		size = p.size
	} else {
		var err error
		if size, err = up.Source.StatBlob(ctx, up.remote(repo), c.Digest); oci.NotFound(err) {
			return oci.NotPushed(oci.KindBlob, c.Digest, repo)
		} else if err != nil {
			return err
		}
	}
	o := m.origin(up, repo, c.Digest)
	return to.Sink.PutBlob(ctx, to.remote(name), upstream.Upload{
		Open: func() (io.ReadCloser, error) { return m.cache.Open(ctx, o.blob(size), o.fetch) },
		Size: size, Announced: c.Digest,
		Digest: func() (digest.Digest, error) { return c.Digest, nil },
	})
}

// replaceAside drops a build cache whose tag has been given to something else.
func (m *Mirror) replaceAside(ctx context.Context, up *Upstream, repo string, ref oci.Reference, man *oci.Manifest) {
	to, name, ok := up.aside(repo)
	if !ok || ref.Tag == "" || man.BuildCache() {
		return
	}
	if err := to.Deleter.DeleteManifest(ctx, to.remote(name), ref); err != nil && !oci.NotFound(err) {
		m.log.Warn("a build cache stands before what was pushed under its tag", "upstream", up.Name, "repository", repo, "tag", ref.Tag, "error", err)
	}
}

// checkAside refuses what would not work.
func (u *Upstream) checkAside() error {
	if u.Aside == nil {
		return nil
	}
	to := u.Aside.To
	switch {
	case to == nil || to.Sink == nil || to.Deleter == nil:
		return fmt.Errorf("mirror: upstream %q: build caches cannot be kept where nothing can be pushed and deleted", u.Name)
	case to == u || to.Aside != nil:
		return fmt.Errorf("mirror: upstream %q: build caches are kept in a circle", u.Name)
	case oci.CheckRepo(u.Name) != nil:
		return errors.New("mirror: upstream \"" + u.Name + "\" cannot begin the name of a repository, as is needed for its build caches")
	}
	return nil
}
