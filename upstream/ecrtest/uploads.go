package ecrtest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// upload is an upload session. The field writing is the lock of the fields below it.
type upload struct {
	id      string
	repo    *repository
	started time.Time
	path    string

	writing chan struct{} // has capacity 1, and so admits one request at a time
	file    *os.File
	hash    hash.Hash
	size    int64
	chunks  []int64 // sizes of the request bodies so far
	ended   bool
}

func (u *upload) discard() {
	u.writing <- struct{}{}
	defer func() { <-u.writing }()
	u.end()
}

// [upload.end] closes and removes the file of a session that has not ended yet.
func (u *upload) end() {
	if !u.ended {
		u.ended = true
		_ = u.file.Close()
		_ = os.Remove(u.path)
	}
}

// digest returns the digest of the bytes so far.
func (u *upload) digest() digest.Digest { return digest.NewDigest(digest.SHA256, u.hash) }

// startUpload serves POST …/uploads/: it mounts the blob if possible, and otherwise opens a
// session.
func (s *Server) startUpload(x *exchange) error {
	repo, err := s.repositoryForPush(x)
	if err != nil {
		if x.sw.MissingRepositoryHangsUp {
			return hangup()
		}
		return err
	}
	if x.Kind == KindMount && s.mount(x, repo) {
		x.w.WriteHeader(http.StatusCreated)
		return nil
	}
	u, err := s.newUpload(repo)
	if err != nil {
		return err
	}
	s.uploadsStarted.Add(1)
	if want := x.r.URL.Query().Get("digest"); want != "" && x.sw.SinglePost {
		return s.complete(x, u, want)
	}
	s.answerUpload(x, u, http.StatusAccepted, "0-0")
	return nil
}

func (s *Server) newUpload(repo *repository) (*upload, error) {
	id := newUUID()
	path := filepath.Join(s.dir, "uploads", id)
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("start upload: %w", err)
	}
	u := &upload{id: id, repo: repo, path: path, writing: make(chan struct{}, 1), file: f, hash: sha256.New()}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.started = s.nowLocked()
	s.uploads[id] = u
	return u, nil
}

// answerUpload sends Location and Range. ECR's Location has the host to which the client sent
// the request.
func (s *Server) answerUpload(x *exchange, u *upload, status int, byteRange string) {
	h := x.w.Header()
	h.Set("Location", s.location(x, "/v2/"+x.Repo+"/blobs/uploads/"+u.id, nil))
	h.Set("Range", byteRange)
	h.Set("Content-Length", "0")
	if s.opts.Quirks.UploadUUID {
		h.Set("Docker-Upload-Uuid", u.id)
	}
	if status == http.StatusNoContent {
		h.Del("Content-Length")
	}
	x.w.WriteHeader(status)
}

// session finds the upload and locks it. The caller unlocks it with the returned function.
func (s *Server) session(x *exchange) (*upload, func(), error) {
	repo, err := s.repository(x)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	u, ok := s.uploads[x.Session]
	gone := !ok || u.repo != repo || s.nowLocked().After(u.started.Add(orDefault(x.sw.UploadLife, 12*time.Hour)))
	s.mu.Unlock()
	if gone {
		return nil, nil, x.reg.uploadUnknown(x.Repo, x.Session)
	}
	select {
	case u.writing <- struct{}{}:
	default:
		return nil, nil, refuse(http.StatusConflict, "BLOB_UPLOAD_INVALID", "Another request of the upload with id '%s' is under way", u.id)
	}
	release := func() { <-u.writing }
	if u.ended {
		release()
		return nil, nil, x.reg.uploadUnknown(x.Repo, x.Session)
	}
	return u, release, nil
}

func (s *Server) patchUpload(x *exchange) error {
	u, release, err := s.session(x)
	if err != nil {
		return err
	}
	defer release()
	if err := s.receive(x, u); err != nil {
		return err
	}
	s.answerUpload(x, u, s.opts.Quirks.PatchStatus, s.reportedRange(u.size))
	return nil
}

// reportedRange returns the Range of an answer to PATCH or GET of an upload. At ECR, the Range does
// not grow beyond the first 10 MiB.
func (s *Server) reportedRange(size int64) string {
	if q := s.opts.Quirks.StaleRange; q > 0 {
		size = min(size, q)
	}
	return "0-" + strconv.FormatInt(max(size-1, 0), 10)
}

// receive appends the body of a request to the upload.
func (s *Server) receive(x *exchange, u *upload) error {
	if v := x.r.Header.Get("Content-Range"); v != "" {
		first, _, ok := strings.Cut(strings.TrimPrefix(v, "bytes "), "-")
		at, err := strconv.ParseInt(first, 10, 64)
		if !ok || err != nil {
			return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "Invalid Content-Range '%s'", v)
		}
		if at != u.size {
			return rangeInvalid(at, u.size)
		}
	}
	if x.sw.SmallChunkAtOnce && u.size > 0 && x.r.ContentLength != 0 && u.small(s.opts.Quirks.MinChunk, len(u.chunks)) {
		return partTooSmall()
	}
	n, err := io.Copy(io.MultiWriter(u.file, u.hash), x.r.Body)
	u.size += n
	if n > 0 {
		u.chunks = append(u.chunks, n)
	}
	if err != nil {
		if errors.Is(err, os.ErrClosed) {
			u.ended = true
		}
		return hangup() // the client is gone, or has sent less than it announced
	}
	return nil
}

// [upload.small] reports whether one of the first n chunks is below the minimum.
func (u *upload) small(minimum int64, n int) bool {
	for _, c := range u.chunks[:max(n, 0)] {
		if c < minimum {
			return true
		}
	}
	return false
}

func partTooSmall() *wireError {
	return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "Layer parts must be at least 5 MiB in size, except for the last one")
}

func (s *Server) finishUpload(x *exchange) error {
	want := x.r.URL.Query().Get("digest")
	u, release, err := s.session(x)
	if err != nil {
		return err
	}
	defer release()
	return s.complete(x, u, want)
}

// complete reads the last bytes, checks the digest, and publishes the blob. Once the server has
// read all bytes, the upload ends, even if the server refuses the bytes.
func (s *Server) complete(x *exchange, u *upload, want string) error {
	d, err := digest.Parse(want)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return digestInvalid(want)
	}
	if err := s.receive(x, u); err != nil {
		return err
	}
	defer s.forget(u)
	switch {
	case u.size == 0 && s.opts.Quirks.RefuseEmptyBlobs:
		return refuse(http.StatusInternalServerError, "UNKNOWN", "Upload with id '%s' has no bytes", u.id)
	case u.small(s.opts.Quirks.MinChunk, len(u.chunks)-1):
		return partTooSmall()
	case u.digest() != d:
		return refuse(x.sw.DigestMismatchStatus, "BLOB_UPLOAD_INVALID", "None of the provided layer digests match the calculated layer digest")
	}
	if err := s.publish(u, d, u.size); err != nil {
		return err
	}
	s.uploadsFinished.Add(1)
	h := x.w.Header()
	h.Set("Location", s.location(x, "/v2/"+x.Repo+"/blobs/"+d.String(), nil))
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusCreated)
	return nil
}

// publish moves the file to its final place and adds the blob to the repository.
func (s *Server) publish(u *upload, d digest.Digest, size int64) error {
	if err := u.file.Close(); err != nil {
		return fmt.Errorf("close upload: %w", err)
	}
	if err := os.Rename(u.path, s.blobPath(d)); err != nil {
		return fmt.Errorf("publish %s: %w", d, err)
	}
	u.ended = true
	s.addLayer(u.repo, d, size)
	return nil
}

// forget ends a session that the caller has locked, or has just started in a single POST.
func (s *Server) forget(u *upload) {
	u.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, u.id)
}

func (s *Server) addLayer(repo *repository, d digest.Digest, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := repo.layers[d]; ok {
		if l.remote != "" {
			l.remote = ""
			s.objects[l.object] = l
		}
		return
	}
	l := &layer{digest: d, size: size, object: newUUID()}
	repo.layers[d] = l
	s.objects[l.object] = l
}

func (s *Server) statUpload(x *exchange) error {
	if !x.sw.UploadStatus {
		return nowhere()
	}
	u, release, err := s.session(x)
	if err != nil {
		return err
	}
	defer release()
	s.answerUpload(x, u, http.StatusNoContent, s.reportedRange(u.size))
	return nil
}

func (s *Server) cancelUpload(x *exchange) error {
	if !x.sw.UploadCancel {
		return nowhere()
	}
	u, release, err := s.session(x)
	if err != nil {
		return err
	}
	defer release()
	s.forget(u)
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

// mount links a blob from another repository of the same registry into a repository, if the caller
// may read the source and the source has the blob. Unless Quirks.MountAlways is set, the further
// conditions of ECR apply: the account setting is on, both repositories have the same encryption,
// neither is a pull-through repository, and a manifest of the source names the blob (ECR guide,
// blob mounting; roadmap#2860).
func (s *Server) mount(x *exchange, dst *repository) bool {
	q := x.r.URL.Query()
	d, err := digest.Parse(q.Get("mount"))
	if err != nil || s.forbids(x.who.principal, "ecr:GetDownloadUrlForLayer", x.reg.arn(q.Get("from"))) {
		return false
	}
	s.mu.Lock()
	from, ok := x.reg.find(q.Get("from"), s.nowLocked())
	if !ok || from.layers[d] == nil || from.layers[d].remote != "" {
		s.mu.Unlock()
		return false
	}
	l := *from.layers[d]
	free := s.opts.Quirks.MountAlways
	meets := x.reg.settings["BLOB_MOUNTING"] == "ENABLED" && from.encryption == dst.encryption &&
		!from.pullThrough && !dst.pullThrough && l.active > 0
	s.mu.Unlock()
	if !free && !meets {
		return false
	}
	s.addLayer(dst, d, l.size)
	h := x.w.Header()
	h.Set("Location", s.location(x, "/v2/"+x.Repo+"/blobs/"+d.String(), url.Values{}))
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", "0")
	return true
}
