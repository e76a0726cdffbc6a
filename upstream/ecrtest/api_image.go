package ecrtest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// imageID names an image in the API.
type imageID struct {
	Digest digest.Digest `json:"imageDigest,omitempty"`
	Tag    string        `json:"imageTag,omitempty"`
}

type imageFailure struct {
	ID     imageID `json:"imageId"`
	Code   string  `json:"failureCode"`
	Reason string  `json:"failureReason"`
}

type imagesInput struct {
	RegistryID string    `json:"registryId"`
	Name       string    `json:"repositoryName"`
	IDs        []imageID `json:"imageIds"`
	Accepted   []string  `json:"acceptedMediaTypes"`
	NextToken  string    `json:"nextToken"`
	MaxResults *int      `json:"maxResults"`
	Filter     struct {
		TagStatus string `json:"tagStatus"`
	} `json:"filter"`
}

// imagesFor decodes the input of a call about images and finds their repository.
func (s *Server) imagesFor(c apiCall) (imagesInput, *registry, *repository, error) {
	in, err := decode[imagesInput](c)
	if err != nil {
		return in, nil, nil, err
	}
	if len(in.IDs) > 100 {
		return in, nil, nil, exception("InvalidParameterException", "Invalid parameter at 'imageIds' failed to satisfy constraint: 'Member must have length less than or equal to 100'")
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	return in, g, r, err
}

// selected returns the digests of the images that the input names. If the input names no images,
// selected returns the digests of all images that pass the filter of the input.
func (r *repository) selected(in imagesInput) ([]string, *imageFailure) {
	var out []string
	if len(in.IDs) == 0 {
		for d, img := range r.images {
			tagged := len(r.sortedTags(img)) > 0
			if in.Filter.TagStatus == "TAGGED" && !tagged || in.Filter.TagStatus == "UNTAGGED" && tagged {
				continue
			}
			out = append(out, d.String())
		}
	}
	for _, id := range in.IDs {
		img, fail := r.lookup(id)
		if fail != nil {
			return nil, fail
		}
		out = append(out, img.doc.digest.String())
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (r *repository) lookup(id imageID) (*image, *imageFailure) {
	if id.Tag == "" && id.Digest == "" {
		return nil, &imageFailure{id, "MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"}
	}
	tag := id.Tag
	if id.Digest != "" {
		tag = ""
	}
	img, ok := r.find(tag, id.Digest)
	switch {
	case !ok:
		return nil, &imageFailure{id, "ImageNotFound", "Requested image not found"}
	case id.Tag != "" && r.tags[id.Tag] != img.doc.digest:
		return nil, &imageFailure{id, "ImageTagDoesNotMatchDigest", "The given tag does not match the given digest"}
	}
	return img, nil
}

func (s *Server) describeImages(c apiCall) (any, error) {
	in, g, r, err := s.imagesFor(c)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names, fail := r.selected(in)
	if fail != nil {
		return nil, exception("ImageNotFoundException", "The image with imageId {imageDigest:'%s', imageTag:'%s'} does not exist within the repository with name '%s' in the registry with id '%s'",
			fail.ID.Digest, fail.ID.Tag, r.name, g.account)
	}
	names, next, err := apiPage(names, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	details := []map[string]any{}
	for _, n := range names {
		details = append(details, r.detail(g, r.images[digest.Digest(n)]))
	}
	return withNext(map[string]any{"imageDetails": details}, next), nil
}

func (r *repository) detail(g *registry, img *image) map[string]any {
	size := int64(0)
	for _, b := range img.doc.blobs {
		if l, ok := r.layers[b.Digest]; ok && !b.config {
			size += l.size
		}
	}
	d := map[string]any{
		"registryId": g.account, "repositoryName": r.name, "imageDigest": img.doc.digest, "imageSizeInBytes": size,
		"imagePushedAt": epoch(img.pushed), "imageManifestMediaType": img.doc.media, "imageStatus": "ACTIVE",
	}
	if img.archived {
		d["imageStatus"] = "ARCHIVED"
	}
	if tags := r.sortedTags(img); len(tags) > 0 {
		d["imageTags"] = tags
	}
	if img.doc.artifactType != "" {
		d["artifactMediaType"] = img.doc.artifactType
	}
	if img.doc.subject != "" {
		d["subjectManifestDigest"] = img.doc.subject
	}
	if !img.lastPull.IsZero() {
		d["lastRecordedPullTime"] = epoch(img.lastPull)
	}
	return d
}

func (s *Server) listImages(c apiCall) (any, error) {
	in, _, r, err := s.imagesFor(c)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names, _ := r.selected(in)
	names, next, err := apiPage(names, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	ids := []imageID{}
	for _, n := range names {
		img := r.images[digest.Digest(n)]
		tags := r.sortedTags(img)
		for _, t := range tags {
			ids = append(ids, imageID{img.doc.digest, t})
		}
		if len(tags) == 0 {
			ids = append(ids, imageID{Digest: img.doc.digest})
		}
	}
	return withNext(map[string]any{"imageIds": ids}, next), nil
}

func (s *Server) batchGetImage(c apiCall) (any, error) {
	in, g, r, err := s.imagesFor(c)
	if err != nil {
		return nil, err
	}
	accept := parseAccept(in.Accepted)
	s.mu.Lock()
	defer s.mu.Unlock()
	images, failures := []map[string]any{}, []imageFailure{}
	for _, id := range in.IDs {
		img, fail := r.lookup(id)
		if fail == nil && img.archived {
			fail = &imageFailure{id, "ImageInaccessible", "The image is archived"}
		}
		if fail != nil {
			failures = append(failures, *fail)
			continue
		}
		doc := img.doc
		if id.Digest == "" && !accept.takes(doc.media) {
			if other, ok := convert(doc, accept, s.Switches().ConvertIndexes); ok {
				doc = other
			}
		}
		if !slices.Contains(s.opts.PullTimeExclusions, c.principal) {
			img.pulls++
			img.lastPull = s.nowLocked()
		}
		images = append(images, map[string]any{"registryId": g.account, "repositoryName": r.name, "imageManifest": string(doc.raw),
			"imageManifestMediaType": doc.media, "imageId": imageID{doc.digest, id.Tag}})
	}
	return map[string]any{"images": images, "failures": failures}, nil
}

func (s *Server) batchDeleteImage(c apiCall) (any, error) {
	in, _, r, err := s.imagesFor(c)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone, failures := []imageID{}, []imageFailure{}
	for _, id := range in.IDs {
		img, fail := r.lookup(id)
		if fail == nil && r.referenced(img.doc.digest) && (id.Digest != "" || len(r.sortedTags(img)) == 1) {
			fail = &imageFailure{id, "ImageReferencedByManifestList", "Requested image referenced by manifest list"}
		}
		if fail != nil {
			failures = append(failures, *fail)
			continue
		}
		gone = append(gone, imageID{img.doc.digest, id.Tag})
		if id.Digest == "" {
			delete(r.tags, id.Tag)
		}
		if id.Digest != "" || len(r.sortedTags(img)) == 0 {
			r.remove(img.doc.digest)
		}
	}
	return map[string]any{"imageIds": gone, "failures": failures}, nil
}

// referenced reports whether an index names the image.
func (r *repository) referenced(d digest.Digest) bool {
	for _, img := range r.images {
		if slices.Contains(img.doc.children, d) {
			return true
		}
	}
	return false
}

func (s *Server) putImage(c apiCall) (any, error) {
	in, err := decode[struct {
		RegistryID string        `json:"registryId"`
		Name       string        `json:"repositoryName"`
		Manifest   string        `json:"imageManifest"`
		MediaType  string        `json:"imageManifestMediaType"`
		Tag        string        `json:"imageTag"`
		Digest     digest.Digest `json:"imageDigest"`
	}](c)
	if err != nil {
		return nil, err
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	if len(in.Manifest) > maxManifest {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'imageManifest' failed to satisfy constraint: 'Member must have length less than or equal to 4194304'")
	}
	doc, perr := parseDocument(in.MediaType, []byte(in.Manifest), s.strictness())
	if perr != nil {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'")
	}
	s.mu.Lock()
	held := r.images[doc.digest]
	same := held != nil && !held.archived && (in.Tag == "" || r.tags[in.Tag] == doc.digest)
	s.mu.Unlock()
	if same {
		return nil, exception("ImageAlreadyExistsException", "Image with digest '%s' and tag '%s' already exists in the repository with name '%s' in registry with id '%s'", doc.digest, in.Tag, in.Name, g.account)
	}
	x := &exchange{call: call{Repo: in.Name, Tag: in.Tag, Digest: orDefault(in.Digest, doc.digest)}, reg: g, sw: s.Switches()}
	if err := s.store(x, r, doc); err != nil {
		return nil, asException(s.wire(err))
	}
	return map[string]any{"image": map[string]any{"registryId": g.account, "repositoryName": r.name, "imageManifest": in.Manifest,
		"imageManifestMediaType": doc.media, "imageId": imageID{doc.digest, in.Tag}}}, nil
}

func (s *Server) batchCheckLayers(c apiCall) (any, error) {
	in, err := decode[struct {
		RegistryID string   `json:"registryId"`
		Name       string   `json:"repositoryName"`
		Digests    []string `json:"layerDigests"`
	}](c)
	if err != nil {
		return nil, err
	}
	if len(in.Digests) < 1 || len(in.Digests) > 100 {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'layerDigests' failed to satisfy constraint: 'Member must have length between 1 and 100'")
	}
	_, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	layers, failures := []map[string]any{}, []map[string]any{}
	for _, text := range in.Digests {
		d, err := digest.Parse(text)
		if err != nil {
			failures = append(failures, map[string]any{"layerDigest": text, "failureCode": "InvalidLayerDigest", "failureReason": "Invalid layer digest"})
			continue
		}
		l, ok := r.layers[d]
		if !ok {
			layers = append(layers, map[string]any{"layerDigest": text, "layerAvailability": "UNAVAILABLE"})
			continue
		}
		availability := "AVAILABLE"
		if l.archived() {
			availability = "ARCHIVED"
		}
		layers = append(layers, map[string]any{"layerDigest": text, "layerAvailability": availability, "layerSize": l.size, "mediaType": orDefault(l.media, mediaDockerConfig)})
	}
	return map[string]any{"layers": layers, "failures": failures}, nil
}

func (s *Server) getDownloadURL(c apiCall) (any, error) {
	in, err := decode[struct {
		RegistryID string        `json:"registryId"`
		Name       string        `json:"repositoryName"`
		Digest     digest.Digest `json:"layerDigest"`
	}](c)
	if err != nil {
		return nil, err
	}
	g, r, err := s.repositoryFor(c, in.RegistryID, in.Name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	l, ok := r.layers[in.Digest]
	var found layer
	if ok {
		found = *l
	}
	s.mu.Unlock()
	if !ok {
		return nil, asMissingLayer(g.blobUnknown(in.Name, in.Digest))
	}
	if found.remote != "" {
		return nil, exception("UnableToGetUpstreamLayerException", "The layer with digest '%s' is not cached yet", in.Digest)
	}
	if found.active == 0 {
		return nil, exception("LayerInaccessibleException", "The layer with digest '%s' in the repository with name '%s' is not associated with any active image", in.Digest, in.Name)
	}
	return map[string]any{"downloadUrl": s.signURL(strings.TrimSuffix(s.opts.ObjectsURL, "/"), g, r, found), "layerDigest": in.Digest}, nil
}

func asMissingLayer(e *wireError) *wireError {
	return &wireError{Status: http.StatusBadRequest, Code: "LayersNotFoundException", Message: e.Message}
}
