package ecrtest

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image describes one image of the default registry.
type Image struct {
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"`
	MediaType  string        `json:"mediaType"`
	Tags       []string      `json:"tags"`
	Raw        []byte        `json:"-"`
	Pushed     time.Time     `json:"pushedAt"`
	Archived   bool          `json:"archived"`
	Pulls      int           `json:"pulls"`
	LastPull   time.Time     `json:"lastRecordedPullTime"` // zero means never
}

// Images returns all images of the default registry, sorted by repository and digest.
func (s *Server) Images() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Image{}
	for _, r := range s.defaultRegistry().repos {
		for _, img := range r.images {
			out = append(out, r.inspect(img))
		}
	}
	slices.SortFunc(out, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

func (r *repository) inspect(img *image) Image {
	return Image{Repository: r.name, Digest: img.doc.digest, MediaType: img.doc.media, Tags: r.sortedTags(img), Raw: slices.Clone(img.doc.raw),
		Pushed: img.pushed, Archived: img.archived, Pulls: img.pulls, LastPull: img.lastPull}
}

// Image finds an image by tag or digest.
func (s *Server) Image(repo, ref string) (Image, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.defaultRegistry().repos[repo]
	if !ok {
		return Image{}, false
	}
	img, ok := r.images[digest.Digest(ref)]
	if !ok {
		img, ok = r.images[r.tags[ref]]
	}
	if !ok {
		return Image{}, false
	}
	return r.inspect(img), true
}

// HasBlob reports whether a repository has a blob. Blobs that no manifest names count, too.
func (s *Server) HasBlob(repo string, d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.defaultRegistry().repos[repo]
	return ok && r.layers[d] != nil
}

// Archive moves an image to the archive class, where pulls do not find it. With archived == false,
// Archive moves the image back. It reports whether the image exists.
func (s *Server) Archive(repo, ref string, archived bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.defaultRegistry().repos[repo]
	if !ok {
		return false
	}
	img, ok := r.find("", digest.Digest(ref))
	if !ok {
		img, ok = r.find(ref, "")
	}
	if ok {
		r.archive(img, archived, s.nowLocked())
	}
	return ok
}

// CreateRepository creates a repository with the defaults of the API. It does not change an
// existing repository.
func (s *Server) CreateRepository(name string) {
	s.createRepository(s.defaultRegistry(), newRepository(name, newUUID(), s.now()))
}

// UploadCount counts upload sessions.
type UploadCount struct {
	Open     int   `json:"open"`
	Started  int64 `json:"started"`
	Finished int64 `json:"finished"`
}

// Uploads returns the counts of upload sessions since the server was made.
func (s *Server) Uploads() UploadCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return UploadCount{Open: len(s.uploads), Started: s.uploadsStarted.Load(), Finished: s.uploadsFinished.Load()}
}

// Token issues a token of the default registry, as GetAuthorizationToken would. principal is an
// ARN; empty means the ARN of the user "dray". The result is the password of the user AWS.
func (s *Server) Token(principal string) string {
	principal = orDefault(principal, "arn:aws:iam::"+s.opts.Account+":user/dray")
	return s.issue(&token{principal: principal, region: s.opts.Region, expires: s.now().Add(s.opts.TokenLife), push: true})
}

// Blob returns the bytes of a blob of any repository.
func (s *Server) Blob(d digest.Digest) ([]byte, bool) {
	if d.Validate() != nil {
		return nil, false
	}
	raw, err := os.ReadFile(s.blobPath(d))
	return raw, err == nil
}

// DropBlob removes a blob from a repository, and all images that name the blob. The result is as if
// lifecycle rules had deleted these images, and ECR had then removed the blob. DropBlob reports
// whether the repository had the blob.
func (s *Server) DropBlob(repo string, d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.defaultRegistry().repos[repo]
	if !ok || r.layers[d] == nil {
		return false
	}
	for id, img := range r.images {
		if slices.ContainsFunc(img.doc.blobs, func(b blobRef) bool { return b.Digest == d }) {
			r.remove(id)
		}
	}
	delete(r.layers, d)
	return true
}
