package hosted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"dray/cache"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// state is what the file of a repository says.
type state struct {
	manifests map[digest.Digest]*manifest
	tags      map[string]tag
}

// manifest is one manifest of a repository. Only used changes.
type manifest struct {
	mediaType string
	size      int64
	pushed    time.Time
	used      atomic.Int64 // last use in Unix seconds
	refs
}

// refs is what a manifest says of others.
type refs struct {
	blobs        []oci.Descriptor // what has to be here
	foreign      []digest.Digest  // those of them that clients may have left out, and did not
	manifests    []digest.Digest
	subject      digest.Digest
	artifactType string
	annotations  map[string]string
}

// tag is what a tag points to.
type tag struct {
	Digest digest.Digest `json:"digest"`
	Pushed time.Time     `json:"pushed"`
}

func (m *manifest) lastUse() time.Time {
	if used := time.Unix(m.used.Load(), 0); used.After(m.pushed) {
		return used
	}
	return m.pushed
}

// past is when something happened: now, where a clock that was ahead has noted a later time. What
// is here alone must neither go at once for that, nor stay until then.
func past(noted, now time.Time) time.Time {
	if noted.After(now) {
		return now
	}
	return noted
}

func (st *state) clone() *state {
	c := &state{manifests: maps.Clone(st.manifests), tags: maps.Clone(st.tags)}
	if c.manifests == nil {
		c.manifests = map[digest.Digest]*manifest{}
	}
	if c.tags == nil {
		c.tags = map[string]tag{}
	}
	return c
}

// has reports whether a manifest is there and needs the same: under another type other members count, and foreign layers may have been pushed since.
func (st *state) has(d digest.Digest, m *manifest) bool {
	there := st.manifests[d]
	return there != nil && there.mediaType == m.mediaType && slices.Equal(there.foreign, m.foreign)
}

func (st *state) empty() bool { return len(st.manifests) == 0 && len(st.tags) == 0 }

// remove takes a manifest and its tags out of a state that is being made.
func (st *state) remove(d digest.Digest) {
	delete(st.manifests, d)
	maps.DeleteFunc(st.tags, func(_ string, t tag) bool { return t.Digest == d })
}

// record is the form of a state on disk.
type record struct {
	Version   int                              `json:"version"`
	Name      string                           `json:"name"`
	Manifests map[digest.Digest]manifestRecord `json:"manifests"`
	Tags      map[string]tag                   `json:"tags"`
}

type manifestRecord struct {
	MediaType string    `json:"mediaType"`
	Size      int64     `json:"size"`
	Pushed    time.Time `json:"pushed"`
	Used      int64     `json:"used"` // Unix seconds
	// Foreign are the foreign layers that were pushed as well.
	Foreign []digest.Digest `json:"foreign,omitempty"`
}

const recordVersion = 1

func (st *state) encode(name string) ([]byte, error) {
	r := record{Version: recordVersion, Name: name, Manifests: make(map[digest.Digest]manifestRecord, len(st.manifests)), Tags: st.tags}
	for d, m := range st.manifests {
		r.Manifests[d] = manifestRecord{m.mediaType, m.size, m.pushed, m.used.Load(), m.foreign}
	}
	return json.MarshalIndent(r, "", "\t")
}

// decode reads a file that claims to be that of a repository.
func decode(name string, text []byte) (*state, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion || r.Name != name {
		return nil, fmt.Errorf("it is of version %d, for repository %.100q", r.Version, r.Name)
	}
	st := (&state{}).clone()
	now := time.Now()
	for d, m := range r.Manifests {
		if _, err := oci.ParseDigest(d.String()); err != nil {
			return nil, err
		}
		st.manifests[d] = &manifest{mediaType: m.MediaType, size: m.Size, pushed: past(m.Pushed, now), refs: refs{foreign: m.Foreign}}
		st.manifests[d].used.Store(past(time.Unix(m.Used, 0), now).Unix())
	}
	for name, t := range r.Tags {
		if ref, err := oci.ParseReference(name); err != nil || ref.Tag == "" {
			return nil, fmt.Errorf("tag %.100q", name)
		}
		if st.manifests[t.Digest] == nil {
			return nil, fmt.Errorf("tag %s points to nothing", name)
		}
		t.Pushed = past(t.Pushed, now)
		st.tags[name] = t
	}
	return st, nil
}

// refsOf reads what a manifest says of others. Of the foreign layers it names those count that are here.
func refsOf(m *oci.Manifest, here func(digest.Digest) bool) refs {
	r := refs{}
	for _, c := range m.Children() {
		if c.Foreign() {
			if !here(c.Digest) {
				continue
			}
			r.foreign = append(r.foreign, c.Digest)
		}
		switch {
		case c.Manifest:
			r.manifests = append(r.manifests, c.Digest)
		default:
			r.blobs = append(r.blobs, c.Descriptor)
		}
	}
	if m.Subject != nil {
		r.subject, r.artifactType, r.annotations = m.Subject.Digest, m.ArtifactType, m.Annotations
		if r.artifactType == "" && m.Config != nil { // spec 1.1, "Listing Referrers"
			r.artifactType = m.Config.MediaType
		}
	}
	return r
}

// The file of a repository lies in directories named like the parts of its name. Its own name begins with a character
// that no part of a repository's name begins with.
const (
	fileName = "_repository.json"
	tempName = "_repository.new"
	badName  = "_repository.bad"
)

// fileOf is where the file of a repository lies; the name may come from anybody.
func fileOf(name string) (string, error) {
	if err := oci.CheckRepo(name); err != nil {
		return "", err
	}
	if p := path.Join(name, fileName); fs.ValidPath(p) && p == name+"/"+fileName {
		return p, nil
	}
	return "", oci.ErrNameInvalid.With("invalid repository name %q", name)
}

// repoOf is the inverse of fileOf.
func repoOf(file string) (string, bool) {
	name, ok := strings.CutSuffix(file, "/"+fileName)
	if !ok {
		return "", false
	}
	back, err := fileOf(name)
	return name, err == nil && back == file
}

// write puts a state on stable storage in place of the older one.
func (s *Store) write(name string, st *state) error {
	file, err := fileOf(name)
	if err != nil {
		return err
	}
	text, err := st.encode(name)
	if err != nil {
		return err
	}
	dir := path.Dir(file)
	temp := path.Join(dir, tempName)
	f, err := s.create(dir, temp)
	if errors.Is(err, fs.ErrNotExist) { // a repository beside this one was erased meanwhile
		f, err = s.create(dir, temp)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.root.Rename(temp, file); err != nil {
		return err
	}
	return s.syncDirs(dir)
}

func (s *Store) create(dir, file string) (*os.File, error) {
	if err := s.root.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return s.root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// erase removes the file of a repository that has nothing any more, and directories that are empty then.
func (s *Store) erase(name string) error {
	file, err := fileOf(name)
	if err != nil {
		return err
	}
	if err := s.root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		_ = s.root.Remove(path.Join(dir, tempName))
		if s.root.Remove(dir) != nil { // another repository lies below it
			break
		}
	}
	return nil
}

// syncDirs makes a rename in a directory durable; the directories above may be new.
func (s *Store) syncDirs(dir string) error {
	for {
		f, err := s.root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
		dir = path.Dir(dir)
	}
}

// load reads the files of all repositories.
func (s *Store) load(ctx context.Context) error {
	return fs.WalkDir(s.root.FS(), ".", func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, ok := repoOf(file)
		if !ok || !e.Type().IsRegular() {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return s.loadRepo(ctx, name, file)
	})
}

// loadRepo reads one file. One that cannot be understood is renamed, so that the repository can be pushed anew.
func (s *Store) loadRepo(ctx context.Context, name, file string) error {
	f, err := s.root.Open(file)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	st, err := decode(name, text)
	if err != nil {
		s.log.Error("hosted repository cannot be read and is set aside", "repository", name, "error", err)
		return s.root.Rename(file, path.Join(path.Dir(file), badName))
	}
	s.adopt(ctx, name, st)
	return nil
}

// adopt makes a state that was read the repository's, without the manifests whose bytes are gone.
func (s *Store) adopt(ctx context.Context, name string, st *state) {
	for d, m := range st.manifests {
		raw, err := s.cache.Bytes(ctx, d, oci.MaxManifestBytes)
		if err == nil {
			var parsed *oci.Manifest
			if parsed, err = oci.ParseManifest(m.mediaType, raw); err == nil {
				foreign := m.foreign
				m.refs = refsOf(parsed, func(d digest.Digest) bool { return slices.Contains(foreign, d) })
				continue
			}
		}
		s.log.Warn("hosted manifest is gone", "repository", name, "digest", d, "error", err)
		st.remove(d)
	}
	for d, m := range st.manifests {
		s.restore(ctx, d, m.size)
		for _, b := range m.blobs {
			s.restore(ctx, b.Digest, b.Size)
		}
	}
	r := s.open(name)
	s.swap(r, st, time.Now())
	for d, m := range st.manifests {
		s.drop(d)
		for _, b := range m.blobs {
			s.drop(b.Digest)
		}
	}
}

// restore is take for what a file says is here: it is held even where its bytes are gone, and over the quota.
func (s *Store) restore(ctx context.Context, d digest.Digest, size int64) {
	release, err := s.cache.Keep(ctx, d)
	if err != nil {
		s.log.Warn("hosted blob is gone", "digest", d, "error", err)
		if !errors.Is(err, cache.ErrNotFound) {
			release = nil
		}
	}
	if actual, ok := s.cache.Stat(d); ok {
		size = actual
	}
	s.mu.Lock()
	h := s.holds[d]
	if h == nil {
		h = &hold{size: size}
		s.holds[d] = h
		s.used += size
	}
	h.uses++
	old := h.release
	if release != nil {
		h.release = release
	}
	s.mu.Unlock()
	if old != nil && release != nil {
		old()
	}
}

// change replaces the state of a repository by what f makes of a copy. When f returns an error, or the file cannot be
// written, nothing changes.
func (s *Store) change(ctx context.Context, name string, f func(next *state) error) error {
	r, err := s.takeTurn(ctx, name)
	if err != nil {
		return err
	}
	defer func() { <-r.turn }()
	next := r.now.clone() // only the holder of the turn replaces it
	if err := f(next); err != nil {
		return err
	}
	if err := s.write(name, next); err != nil {
		return oci.ErrUnavailable.With("the mirror cannot store content now").Because(err)
	}
	for _, release := range s.swap(r, next, time.Now()) {
		release()
	}
	return nil
}

// takeTurn waits until nobody else changes a repository, which is made where it is missing.
func (s *Store) takeTurn(ctx context.Context, name string) (*repo, error) {
	for {
		r := s.open(name)
		select {
		case r.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		s.mu.Lock()
		gone := r.gone
		s.mu.Unlock()
		if !gone {
			return r, nil
		}
		<-r.turn
	}
}

// swap makes next the repository's state and settles what is held for it. Needs the turn; what next newly names must be held.
func (s *Store) swap(r *repo, next *state, now time.Time) (free []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := r.now
	r.now, r.stale, r.written = next, false, now
	for d, m := range next.manifests {
		if old.has(d, m) {
			continue
		}
		s.holds[d].uses++
		for _, b := range m.blobs {
			blob := s.join(r, b.Digest)
			blob.needs++
			blob.until = time.Time{} // the push that it was kept for has landed
		}
	}
	for d, m := range old.manifests {
		if next.has(d, m) {
			continue
		}
		free = append(free, s.dropLocked(d)...)
		for _, b := range m.blobs {
			r.members[b.Digest].needs--
			free = append(free, s.leave(r, b.Digest, now)...)
		}
	}
	return free
}

// join makes a blob that is held a member of a repository. Needs mu.
func (s *Store) join(r *repo, d digest.Digest) *member {
	m := r.members[d]
	if m == nil {
		h := s.holds[d]
		h.uses++
		m = &member{size: h.size}
		r.members[d] = m
	}
	return m
}

// leave takes a blob out of a repository that neither needs it nor owes it to a push. Needs mu.
func (s *Store) leave(r *repo, d digest.Digest, now time.Time) []func() {
	if m := r.members[d]; m == nil || m.needs > 0 || now.Before(m.until) {
		return nil
	}
	delete(r.members, d)
	return s.dropLocked(d)
}
