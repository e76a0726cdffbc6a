package ecrtest

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// readManifest serves GET and HEAD. For a read by tag, ECR converts the manifest between Docker and
// OCI if Accept has only the other of the two types. For a read by digest, ECR never converts it.
func (s *Server) readManifest(x *exchange) error {
	if st := s.Dialect().HeadStatus; st != 0 && x.r.Method == http.MethodHead {
		return refuse(st, "UNSUPPORTED", "")
	}
	if x.Tag == "" && x.Digest == "" && s.opts.Quirks.RefuseInvalidTags {
		return refuse(http.StatusBadRequest, "TAG_INVALID", "Invalid tag '%s'", x.RawRef)
	}
	if err := s.countPull(x.w, x.r); err != nil {
		return err
	}
	s.pullThrough(x)
	repo, err := s.repository(x)
	if err != nil {
		return err
	}
	doc, err := s.findDocument(x, repo)
	if err != nil {
		return err
	}
	if s.Dialect().SignedForGet {
		return s.redirectManifest(x, repo, doc)
	}
	h := x.w.Header()
	h.Set("Content-Type", doc.media)
	h.Set("Content-Length", strconv.Itoa(len(doc.raw)))
	if s.opts.Quirks.SizesHeader {
		h.Set("Sizes", "")
	}
	if (x.r.Method == http.MethodHead || s.opts.Quirks.DigestOnGet) && !s.Dialect().NoDigests {
		h.Set("Docker-Content-Digest", doc.digest.String())
	}
	x.w.WriteHeader(http.StatusOK)
	if x.r.Method == http.MethodGet {
		_, _ = x.w.Write(doc.raw) // fails only if the client is gone
	}
	return nil
}

// maxTags is the quota of tags of one image (service quotas page).
const maxTags = 1000

// findDocument finds the manifest, and converts it for Accept. It records a pull if the Switches
// say that this request counts as one.
func (s *Server) findDocument(x *exchange, repo *repository) (*document, error) {
	accept := parseAccept(x.r.Header.Values("Accept"))
	s.mu.Lock()
	defer s.mu.Unlock()
	img, ok := repo.find(x.Tag, x.Digest)
	if hex, named := strings.CutPrefix(x.Tag, "sha256-"); !ok && named && s.Dialect().DigestTags {
		img, ok = repo.find("", digest.NewDigestFromEncoded(digest.SHA256, hex))
	}
	if !ok && x.sw.ConvertedByDigest && x.Digest != "" {
		if doc, ok := repo.convertedLocked(x.Digest, x.sw); ok {
			return doc, nil
		}
	}
	if !ok || img.archived {
		return nil, manifestUnknown()
	}
	doc := img.doc
	if x.Tag != "" && s.opts.Quirks.ConvertByAccept && !accept.takes(doc.media) {
		fitting, ok := convert(doc, accept, x.sw.ConvertIndexes)
		switch {
		case ok:
			doc = fitting
		case x.sw.RefuseUnacceptable:
			return nil, manifestUnknown()
		}
	}
	if x.r.Method == http.MethodGet && !x.sw.ManifestGetSilent || x.r.Method == http.MethodHead && x.sw.HeadRecordsPull {
		s.recordPullLocked(x, img)
	}
	return doc, nil
}

// recordPullLocked records a pull, unless PullTimeExclusions names the principal.
func (s *Server) recordPullLocked(x *exchange, img *image) {
	if !slices.Contains(s.opts.PullTimeExclusions, x.who.principal) {
		img.pulls++
		img.lastPull = s.nowLocked()
	}
}

// putManifest checks and stores a pushed manifest. It answers with the error of the first check
// that fails: size, syntax, tag, digest, missing images, missing layers, an immutable tag, too many
// tags.
func (s *Server) putManifest(x *exchange) error {
	repo, err := s.repositoryForPush(x)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(x.r.Body, maxManifest+1))
	if err != nil {
		return hangup() // the client is gone, or has sent less than it announced
	}
	if len(raw) > maxManifest {
		return invalidParameter(x.sw.ManifestTooLargeStatus, "ImageManifest", "Member must have length less than or equal to 4194304")
	}
	doc, err := parseDocument(x.r.Header.Get("Content-Type"), raw, s.strictness())
	if err != nil {
		if s.opts.Quirks.StrictManifests {
			return invalidParameter(http.StatusMethodNotAllowed, "ImageManifest", "Invalid JSON syntax")
		}
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid: %v", err)
	}
	if err := s.store(x, repo, doc); err != nil {
		return err
	}
	h := x.w.Header()
	if x.sw.ManifestPutDigest || s.opts.Quirks.DigestOnGet {
		h.Set("Docker-Content-Digest", doc.digest.String())
	}
	if s.opts.Quirks.ManifestLocation {
		h.Set("Location", s.location(x, "/v2/"+x.Repo+"/manifests/"+doc.digest.String(), nil))
	}
	if x.sw.SubjectHeader && doc.subject != "" {
		h.Set("OCI-Subject", doc.subject.String())
	}
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusCreated)
	return nil
}

// store makes the checks that putManifest lists, from the tag on, and stores the manifest if it
// passes them.
func (s *Server) store(x *exchange, repo *repository, doc *document) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case x.Tag == "" && x.Digest == "":
		return refuse(http.StatusBadRequest, "TAG_INVALID", "Invalid tag '%s'", x.RawRef)
	case x.Digest != "" && x.Digest != doc.digest:
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "The image with digest '%s' in repository '%s' and registry ID '%s' does not match the image digest that Amazon ECR has calculated.",
			x.Digest, x.Repo, x.reg.account)
	}
	if missing := repo.missingImages(doc); len(missing) > 0 {
		return refuse(x.sw.MissingImages.Status, x.sw.MissingImages.Code, "Images with digests '%s' required for pushing image into repository with name '%s' in the registry with id '%s' do not exist",
			joinDigests(missing), x.Repo, x.reg.account)
	}
	if missing := repo.missingLayers(doc); len(missing) > 0 {
		return refuse(x.sw.MissingLayers.Status, x.sw.MissingLayers.Code, "Layers with digests '%s' required for pushing image into repository with name '%s' in the registry with id '%s' do not exist",
			joinDigests(missing), x.Repo, x.reg.account)
	}
	if _, taken := repo.tags[x.Tag]; taken && x.Tag != "" && repo.immutable(x.Tag) {
		return refuse(http.StatusBadRequest, "TAG_INVALID", "The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the tag is immutable.", x.Tag, x.Repo)
	}
	if img, ok := repo.images[doc.digest]; ok && x.Tag != "" && repo.tags[x.Tag] != doc.digest && len(repo.sortedTags(img)) >= maxTags {
		return refuse(x.sw.TooManyTags.Status, x.sw.TooManyTags.Code, "The image with digest '%s' in repository '%s' already has %d tags", doc.digest, x.Repo, maxTags)
	}
	repo.put(doc, x.Tag, s.nowLocked())
	return nil
}

func (r *repository) missingImages(doc *document) []digest.Digest {
	return slices.DeleteFunc(slices.Clone(doc.children), func(d digest.Digest) bool { _, ok := r.images[d]; return ok })
}

func (r *repository) missingLayers(doc *document) []digest.Digest {
	var missing []digest.Digest
	for _, b := range doc.blobs {
		if _, ok := r.layers[b.Digest]; !ok {
			missing = append(missing, b.Digest)
		}
	}
	return missing
}

func (s *Server) deleteManifest(x *exchange) error {
	repo, err := s.repository(x)
	if err != nil {
		return err
	}
	if x.sw.ManifestDeleteStatus == http.StatusNotFound {
		return nowhere()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	img, ok := repo.find(x.Tag, x.Digest)
	if !ok {
		return manifestUnknown()
	}
	if x.Tag != "" && x.sw.DeleteTagOnly {
		delete(repo.tags, x.Tag)
		if slices.Contains(repo.tagged(), img.doc.digest) {
			x.w.WriteHeader(x.sw.ManifestDeleteStatus)
			return nil
		}
	}
	repo.remove(img.doc.digest)
	x.w.WriteHeader(x.sw.ManifestDeleteStatus)
	return nil
}

func (r *repository) tagged() []digest.Digest {
	ds := make([]digest.Digest, 0, len(r.tags))
	for _, d := range r.tags {
		ds = append(ds, d)
	}
	return ds
}
