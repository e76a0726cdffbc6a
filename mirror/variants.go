package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"dray/upstream"
	"dray/upstream/oci"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Variants says which images get a second tag, under which their layers are compressed by zstd. The image itself is never changed: its digest
// is what clients have pushed and know.
type Variants struct {
	// TagSuffix is put behind the tag.
	TagSuffix string
	// Repositories are patterns as in a Rule.
	Repositories []string
}

const (
	// maxVariants bounds the images that wait for theirs.
	maxVariants = 64
	// maxUnpacked bounds what is made of a layer on the way, in bytes.
	maxUnpacked = 100 << 30
	// maxVariantChildren bounds the images of an index.
	maxVariantChildren = 64
	// zstdRevision goes up with every change of how layers are compressed.
	zstdRevision  = "1"
	mediaTypeZstd = "application/vnd.oci.image.layer.v1.tar+zstd"
)

// packed says what layers become: whether they are unpacked first.
var packed = map[string]bool{
	"application/vnd.oci.image.layer.v1.tar+gzip": true, "application/vnd.docker.image.rootfs.diff.tar.gzip": true,
	"application/vnd.oci.image.layer.v1.tar": false, "application/vnd.docker.image.rootfs.diff.tar": false,
}

// errNoVariant is why there is none: nothing would be different, or something is not understood.
var errNoVariant = errors.New("there is no variant")

// variant is an image that has landed and is to have another form.
type variant struct {
	up   *Upstream
	repo string
	tag  string
	man  *oci.Manifest
}

// annotationVariantOf is what dray says in a variant: the digest of the image that it is another form of.
const annotationVariantOf = "vnd.dray.variant.of"

// fits reports whether images under a tag of a repository get a second one.
func (v *Variants) fits(repo, tag string) bool {
	if v == nil || tag == "" || derivedTag(tag) || strings.HasSuffix(tag, v.TagSuffix) {
		return false
	}
	return slices.ContainsFunc(v.Repositories, func(pattern string) bool { return fits(repo, pattern) })
}

// vary has a variant made of what has landed, or is about to. It never waits.
func (m *Mirror) vary(p plea) {
	if p.man.Subject != nil || !p.up.Variants.fits(p.repo, p.ref.Tag) {
		return
	}
	if !m.variants.add(variant{p.up, p.repo, p.ref.Tag, p.man}) {
		m.metrics.variants.WithLabelValues(p.up.Name, "dropped").Inc()
	}
}

func (m *Mirror) varies() bool {
	for _, up := range m.upstreams {
		if up.Variants != nil {
			return true
		}
	}
	return false
}

// varyOne is the worker's part of vary.
func (m *Mirror) varyOne(ctx context.Context, c chore[variant]) {
	v := c.what
	err := error(errStillQueued)
	if _, waits := m.queue.Find(v.up.Name, v.repo, v.tag); !waits {
		bounded, cancel := context.WithTimeout(upstream.Background(ctx, nil), landWithin)
		err = m.makeVariant(bounded, v)
		cancel()
	}
	result := "made"
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, errNoVariant):
		result = "none"
	case err != nil:
		if again := !isRefusal(err) || upstream.Transient(err) || errors.Is(err, upstream.ErrCredentials); again && m.variants.putOff(c, attachPauses) {
			return
		}
		result = "failed"
		m.log.Warn("zstd variant not made", "upstream", v.up.Name, "repository", v.repo, "tag", v.tag, "error", err)
	}
	m.metrics.variants.WithLabelValues(v.up.Name, result).Inc()
}

func (m *Mirror) makeVariant(ctx context.Context, v variant) error {
	ref, err := oci.ParseReference(v.tag + v.up.Variants.TagSuffix)
	if err != nil || ref.Tag == "" {
		return fmt.Errorf("%w: the tag would be too long", errNoVariant)
	}
	var man *oci.Manifest
	if v.man.Index() {
		man, err = m.zstdIndex(ctx, v)
	} else {
		man, err = m.zstdImage(ctx, v, v.man)
	}
	if err == nil {
		man, err = annotated(man, annotationVariantOf, v.man.Digest.String())
	}
	if err == nil {
		m.hasVariant(ctx, v)
		_, err = m.land(ctx, v.up, v.repo, ref, man)
	}
	return err
}

// zstdIndex brings the variants of an index's images to the upstream and makes the index of them. Attestations are left out: they are about
// the images as they were pushed.
func (m *Mirror) zstdIndex(ctx context.Context, v variant) (*oci.Manifest, error) {
	if len(v.man.Manifests) > maxVariantChildren {
		return nil, fmt.Errorf("%w of an index of %d manifests", errNoVariant, len(v.man.Manifests))
	}
	var children []json.RawMessage
	changed := false
	for _, d := range v.man.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		child, err := (&pushed{m: m, up: v.up, repo: v.repo}).Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		switch other, err := m.zstdImage(ctx, v, child); {
		case err == nil:
			if _, err := m.land(ctx, v.up, v.repo, oci.Reference{Digest: other.Digest}, other); err != nil {
				return nil, err
			}
			d.MediaType, d.Digest, d.Size = other.MediaType, other.Digest, int64(len(other.Raw))
			changed = true
		case !errors.Is(err, errNoVariant):
			return nil, err
		}
		raw, err := json.Marshal(d)
		if err != nil {
			return nil, err
		}
		children = append(children, raw)
	}
	if !changed {
		return nil, errNoVariant
	}
	return rewritten(v.man.Raw, oci.MediaTypeOCIIndex, map[string]any{"manifests": children})
}

// zstdImage brings the layers of an image to the upstream as zstd and makes the manifest with them. The configuration stays, and with it the
// diffIDs: what is in the layers is the same.
func (m *Mirror) zstdImage(ctx context.Context, v variant, man *oci.Manifest) (*oci.Manifest, error) {
	if man.Index() || man.Config == nil || !imageConfig(man.Config.MediaType) {
		return nil, errNoVariant
	}
	from := &pushed{m: m, up: v.up, repo: v.repo}
	diffs, err := from.diffIDs(ctx, *man.Config)
	if err != nil {
		return nil, err
	}
	if len(diffs) != len(man.Layers) {
		return nil, errNoVariant
	}
	layers, changed := slices.Clone(man.Layers), false
	for i, l := range layers {
		gzipped, known := packed[l.MediaType]
		if !known {
			if l.MediaType != mediaTypeZstd {
				return nil, fmt.Errorf("%w of a layer of type %s", errNoVariant, l.MediaType)
			}
			continue
		}
		other, err := m.zstdLayer(ctx, from, l, gzipped, diffs[i])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
		layers[i].MediaType, layers[i].Digest, layers[i].Size = mediaTypeZstd, other.Digest, other.Size
		changed = true
	}
	if !changed {
		return nil, errNoVariant
	}
	config := *man.Config
	config.MediaType = oci.MediaTypeOCIConfig // the content is the same in both forms
	return rewritten(man.Raw, oci.MediaTypeOCIManifest, map[string]any{"config": config, "layers": layers})
}

// diffIDs are those of a configuration.
func (c *pushed) diffIDs(ctx context.Context, config oci.Descriptor) ([]digest.Digest, error) {
	r, err := c.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxConfigBytes))
	return diffIDs(raw), err
}

// remade is what has become of a layer.
type remade struct {
	Digest digest.Digest `json:"d"`
	Size   int64         `json:"s"`
}

// zstdLayer makes a layer's other form, unless it was made before, and brings it to the upstream.
func (m *Mirror) zstdLayer(ctx context.Context, from *pushed, l oci.Descriptor, gzipped bool, diffID digest.Digest) (remade, error) {
	up, repo := from.up, from.repo
	var r remade
	if raw, ok := m.remade.Recall(ctx, l.Digest, "zstd", zstdRevision); ok && json.Unmarshal(raw, &r) == nil {
		if _, err := m.known.Get(ctx, up.Name, repo, r.Digest); err == nil {
			return r, nil
		}
		if _, held := m.cache.Stat(r.Digest); held {
			return r, m.supply(ctx, up, repo, r.Digest, r.Size)
		}
	}
	src, err := from.Open(ctx, l)
	if err != nil {
		return r, err
	}
	defer src.Close()
	to, err := m.cache.Receive(ctx)
	if err != nil {
		return r, err
	}
	defer to.Close()
	sum := digest.Canonical.Digester()
	if err := recompress(io.MultiWriter(to, sum.Hash()), src, gzipped, diffID); err != nil {
		return r, err
	}
	r = remade{sum.Digest(), to.Size()}
	if _, err := to.Commit(ctx, r.Digest); err != nil {
		return r, err
	}
	if err := m.supply(ctx, up, repo, r.Digest, r.Size); err != nil {
		return r, err
	}
	if raw, err := json.Marshal(r); err == nil {
		m.remade.Remember(ctx, l.Digest, "zstd", zstdRevision, raw)
	}
	return r, nil
}

// recompress writes a layer as zstd. What is in it must be what the configuration says.
func recompress(to io.Writer, src io.Reader, gzipped bool, diffID digest.Digest) error {
	plain := src
	if gzipped {
		z, err := gzip.NewReader(src)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoVariant, err)
		}
		plain = z
	}
	// One goroutine gives the same bytes for the same layer each time, and leaves the other cores to clients.
	enc, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(enc, sum), io.LimitReader(plain, maxUnpacked+1))
	if err = errors.Join(err, enc.Close()); err != nil {
		return err
	}
	if n > maxUnpacked {
		return fmt.Errorf("%w: the layer is longer than %d bytes", errNoVariant, int64(maxUnpacked))
	}
	if _, err := io.Copy(io.Discard, src); err != nil { // its digest is verified at the end
		return err
	}
	if got := digest.NewDigest(digest.SHA256, sum); got != diffID {
		return fmt.Errorf("%w: it is %s, the configuration says %s", errNoVariant, got, diffID)
	}
	return nil
}

// rewritten makes a manifest of another one: all of its members but those that are given.
func rewritten(raw []byte, mediaType string, with map[string]any) (*oci.Manifest, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	with["mediaType"] = mediaType
	for name, value := range with {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		members[name] = text
	}
	out, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	return oci.ParseManifest(mediaType, out)
}

// annotated is a manifest with one annotation more.
func annotated(man *oci.Manifest, key, value string) (*oci.Manifest, error) {
	all := map[string]string{key: value}
	for k, v := range man.Annotations {
		if k != key {
			all[k] = v
		}
	}
	return rewritten(man.Raw, man.MediaType, map[string]any{"annotations": all})
}

// forgets is the memory where there is none.
type forgets struct{}

func (forgets) Recall(context.Context, digest.Digest, string, string) ([]byte, bool) {
	return nil, false
}
func (forgets) Remember(context.Context, digest.Digest, string, string, []byte) {}
